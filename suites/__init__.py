"""Cases to verdict: suite files, assertions, the runner, exact statistics, the gate and its reports.

Imports of ours only `prompts`, and nothing heavy: `check`, `run` and `gate` start as fast as this package does.
"""
