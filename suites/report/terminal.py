"""Runs and gates as tables on a terminal. Texts of others are never read as markup of rich."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from suites.report.views import CaseView
from suites.verdicts import GateDecision, Verdict

MAX_QUARANTINED = 10  # of a suite
LINES_OF_A_CELL = 3  # of a case that changed
_LEAST_WIDTH = 12  # characters of a column of texts

_STYLES: dict[Verdict, str] = {"pass": "green", "fail": "red", "inconclusive": "yellow", "could_not_run": "red"}


def print_gate(console: Console, decisions: Sequence[GateDecision]) -> None:
    """One gate: a row for each suite, its thresholds, every reason in words, and the cases that were left out."""
    table = folding("suite", "verdict", "pass rate", "95%", "baseline", "broken", "mended", "paired", "p")
    for decision in decisions:
        cells = [percent(decision.pass_rate), interval(decision.ci95), percent(decision.baseline_pass_rate)]
        counts = (len(decision.newly_broken), len(decision.newly_mended), decision.paired)
        verdict = Text(decision.verdict.replace("_", " "), style=_STYLES[decision.verdict])
        cells += [*map(str, counts), number(decision.p_value)]
        table.add_row(Text(decision.suite), verdict, *map(Text, cells))
    console.print(table)
    _print_thresholds(console, decisions)
    for decision in decisions:
        for reason in decision.reasons:
            console.print(Text(f"{decision.suite}: {reason}", style=_STYLES[decision.verdict]))
        for case in decision.quarantined[:MAX_QUARANTINED]:
            name = f"{case.title} ({case.case_id})" if case.title else case.case_id
            console.print(Text(f"{decision.suite}: left out, {name}: {case.in_words()}", style="yellow"))
        if len(decision.quarantined) > MAX_QUARANTINED:
            console.print(Text(f"  … and {len(decision.quarantined) - MAX_QUARANTINED} more", style="yellow"))


def folding(*heads: str) -> Table:
    """A table that loses nothing on a narrow terminal: what does not fit goes on in the next line of its cell."""
    return Table(*(Column(head, overflow="fold") for head in heads))


def print_changes(
    console: Console,
    title: str,
    views: Sequence[CaseView],
    left: int = 0,
    sides: tuple[str, str] = ("baseline", "candidate"),
) -> None:
    """Cases that changed: what was expected, what both sides answered, and why; cut to fit the console's width.

    `left` says how many more there are, `sides` what the two are called.
    """
    if not views:
        return
    names = ["case", "expected", "baseline", "candidate", "why"]
    if all(view.baseline is None for view in views):
        names.remove("baseline")
    called = dict(zip(("baseline", "candidate"), sides, strict=True))
    columns = (Column(called.get(name, name), overflow="fold", ratio=1) for name in names)
    table = Table(*columns)
    limit = LINES_OF_A_CELL * max(_LEAST_WIDTH, console.width // len(names) - 3)
    for view in views:
        cells = {"case": view.title, "why": view.reason, "expected": view.expected}
        cells |= {"baseline": view.baseline, "candidate": view.candidate}
        table.add_row(*(Text(_cut(cells[name], limit)) for name in names))
    console.print(Text(title))
    console.print(table)
    if left:
        console.print(Text(f"  … and {left} more: --html FILE and --csv FILE have all of them"))


def _cut(text: str | None, limit: int) -> str:
    """`text` on one line, cut to `limit` characters; a dash where there is none."""
    line = " ".join((text or "–").split()) or "–"
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _print_thresholds(console: Console, decisions: Sequence[GateDecision]) -> None:
    rows = [(decision.suite, row) for decision in decisions for row in decision.thresholds]
    if rows:
        table = folding("suite", "threshold", "bound", "value", "")
        for suite, row in rows:
            met = Text("met" if row.met else "missed", style="green" if row.met else "red")
            table.add_row(Text(suite), Text(row.name), f"{row.bound:g}", row.shown, met)
        console.print(table)


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def interval(bounds: tuple[float, float] | None) -> str:
    return f"{bounds[0]:.1%} – {bounds[1]:.1%}" if bounds else "–"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if value < 1 else f"{value:,.1f}"
