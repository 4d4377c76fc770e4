"""Tune or not: what a prompt's answers to its training examples say about the cheapest way to its threshold.

Pure. `service.advising` asks, trains and measures; here answers are grouped (`groups`, `forms`), examples for the
prompt chosen (`shots`), accuracies forecast (`curve`), one thing recommended (`deciding`), and all of it shown
(`page`, `lines`).
"""
