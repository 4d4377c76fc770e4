"""Tune or not, measured: the job that asks, chooses examples for the prompt, trains on parts, and recommends one thing.

`advise` is the whole of it, read from top to bottom; what is decided from the figures is pure, in `suites.advice`.
"""
