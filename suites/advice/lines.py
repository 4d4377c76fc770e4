"""The advice in a terminal: at most a hundred columns, the recommendation last, where the eye is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from suites.advice.report import Advice, Variant
from suites.advice.words import (
    ASIDE,
    break_even_lines,
    cost,
    curve_lines,
    data_lines,
    difference,
    group_name,
    look_line,
    milliseconds,
    percent,
    timed_line,
    tokens,
    training_lines,
)

WIDTH = 100
MOST_GROUPS = 10


def print_advice(console: Console, advice: Advice) -> None:
    """Everything that was measured, then the one thing recommended."""
    width = min(WIDTH, console.width)
    for line in data_lines(advice):
        console.print(Text(line), width=width)
    if advice.groups:
        console.print(_groups(advice), width=width)
    if advice.variants:
        console.print(_accuracies(advice), width=width)
        console.print(_spends(advice), width=width)
    for line in _figures(advice):
        console.print(Text(line), width=width)
    console.print(Text(f"\n{advice.recommendation.title}", style="bold"), width=width)
    for reason in advice.recommendation.reasons:
        console.print(Text(f"  - {reason}"), width=width)
    for command in advice.recommendation.next:
        console.print(Text(f"  next: {command}"), width=width, soft_wrap=True)


def _figures(advice: Advice) -> Iterator[str]:
    yield from curve_lines(advice)
    yield from training_lines(advice)
    yield from break_even_lines(advice)
    yield from (f"not tried: {one.what}: {one.why}" for one in advice.skipped)
    yield from filter(None, (look_line(advice), timed_line(advice)))
    if not all(one.ships for one in advice.variants):
        yield ASIDE


def _groups(advice: Advice) -> Table:
    """The failures of the prompt alone by what they share."""
    table = Table(Column("failures share", ratio=1, overflow="fold"), *_right("failed", "of all", "lift", "p"))
    for group in advice.groups[:MOST_GROUPS]:
        p = "" if group["p"] is None else f"{group['p']:.2g}"
        failed = f"{group['failures']}/{group['count']}"
        table.add_row(Text(group_name(group)), failed, percent(group["share"]), f"{group['lift']:.1f}", p)
    return table


def _accuracies(advice: Advice) -> Table:
    table = Table(Column("variant", ratio=1, overflow="fold"), *_right("right", "dev", "95%", "against prompt", "p"))
    for one in advice.variants:
        table.add_row(
            Text(_title(one)), f"{one.right}/{one.total}", percent(one.accuracy), _interval(one), *difference(one)
        )
    return table


def _spends(advice: Advice) -> Table:
    """What a request takes, one in flight."""
    table = Table(
        Column("variant", ratio=1, overflow="fold"), *_right("tokens in", "out", "p50 ms", "p95 ms", "$/1,000")
    )
    for one in advice.variants:
        if one.rung != "form":
            spend = one.spend
            times = milliseconds(spend.p50_ms), milliseconds(spend.p95_ms)
            table.add_row(
                Text(one.title), tokens(spend.prompt_tokens), tokens(spend.answer_tokens), *times, cost(spend)
            )
    return table


def _title(one: Variant) -> str:
    return one.title if one.ships else f"{one.title} *"


def _interval(one: Variant) -> str:
    return f"{one.ci95[0]:.0%}–{one.ci95[1]:.0%}"


def _right(*names: str) -> list[Any]:
    return [Column(name, justify="right", no_wrap=True) for name in names]
