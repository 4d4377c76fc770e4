"""Runs side by side, and one after another, as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from suites.report.comparison import Compared, headline, tables_of
from suites.report.terminal import folding, interval, number, percent, print_changes
from suites.report.views import CaseRow, CaseView
from suites.trend import Point, series_of, sparkline

MAX_CHANGED = 10  # of a kind


def print_comparison(console: Console, compared: Compared) -> None:
    """Two runs side by side: figures, then the first cases that flipped."""
    for note in compared.notes:
        console.print(Text(note, style="yellow"))
    for found in tables_of(compared):
        table = folding(*found.heads)
        for row in found.rows:
            table.add_row(*map(Text, row))
        console.print(Text(found.title))
        console.print(table)
    for change in ("broken", "mended"):
        rows = compared.changed(change)
        views = [_as_view(row, change) for row in rows[:MAX_CHANGED]]
        print_changes(console, f"newly {change}: {len(rows)}", views, len(rows) - len(views), ("A", "B"))
    console.print(Text(headline(compared)))


def _as_view(row: CaseRow, change: str) -> CaseView:
    was = row.baseline
    worse = row.candidate if change == "broken" or was is None else was
    return CaseView(row.title, row.candidate.output, was.output if was else None, worse.reason, row.expected or None)


def print_trend(console: Console, points: Sequence[Point]) -> None:
    """The runs, oldest first, and a line of bars for each figure."""
    table = folding("started", "variant", "suite", "pass rate", "95%", "p50 ms", "p95 ms", "USD/1k", "run")
    for point in points:
        figures = map(number, (point.p50_ms, point.p95_ms, point.cost_per_1k_usd))
        rate = (percent(point.pass_rate), interval(point.ci95))
        cells = (point.started_at[:16].replace("T", " "), point.variant, point.suite, *rate, *figures, point.run_id)
        table.add_row(*map(Text, cells))
    console.print(table)
    bars = folding("figure", "trend", "least", "most", "last")
    for name, values in series_of(points).items():
        known = [value for value in values if value is not None]
        cells = (name, sparkline(values), *map(number, (min(known), max(known), known[-1])))
        bars.add_row(*map(Text, cells))
    console.print(bars)
