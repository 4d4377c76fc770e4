"""Suites of other tools as suites of ours: promptfoo's configurations, OpenAI Evals' registries."""
