"""Cases as CSV: a row for every case and repeat, both sides beside each other.

What a model or an author wrote is data here, too: a cell that a spreadsheet would read as a formula gets an
apostrophe before it, as OWASP's "CSV Injection" advises, and characters that no spreadsheet shows are replaced.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from suites.report.views import AnswerView, CaseRow

_COLUMNS = ("suite", "case_id", "case", "repeat", "title", "tags", "must_pass", "change", "expected")
_OF_A_SIDE = ("status", "score", "latency_ms", "cost_usd", "output", "reason")
_FORMULA = re.compile("[\\s\x00-\x1f]*[=+\\-@\uff1d\uff0b\uff0d\uff20]")  # the wide forms, too: some programs fold them
_LEADING = ("\t", "\r", "\n")
_NOT_SHOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
MAX_CELL_CHARACTERS = 32_000  # Excel takes 32,767


def render_csv(suites: Mapping[str, Iterable[CaseRow]]) -> str:
    """The document (RFC 4180), with a byte-order mark, without which Excel takes UTF-8 for something else.

    Columns of metrics follow the others, `metric.NAME` of the candidate and `baseline.metric.NAME`.
    """
    rows = [(suite, row) for suite, found in suites.items() for row in found]
    names = sorted({name for _, row in rows for side in _sides(row) for name in side.metrics})
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*_COLUMNS, *_OF_A_SIDE, *(f"baseline.{name}" for name in _OF_A_SIDE), *map(cell, _heads(names))])
    for suite, row in rows:
        writer.writerow([*_about(suite, row), *_side(row.candidate), *_side(row.baseline), *_metrics(row, names)])
    return "\ufeff" + text.getvalue()


def cell(text: str) -> str:
    """`text` as a cell that is shown and never computed; cut where a spreadsheet would drop the rest."""
    plain = _NOT_SHOWN.sub("�", text if len(text) <= MAX_CELL_CHARACTERS else text[: MAX_CELL_CHARACTERS - 1] + "…")
    return f"'{plain}" if plain.startswith(_LEADING) or _FORMULA.match(plain) else plain


def _sides(row: CaseRow) -> list[AnswerView]:
    return [row.candidate, *([row.baseline] if row.baseline else [])]


def _heads(names: Sequence[str]) -> list[str]:
    return [*(f"metric.{name}" for name in names), *(f"baseline.metric.{name}" for name in names)]


def _about(suite: str, row: CaseRow) -> list[str]:
    plain = (suite, row.case_id, str(row.number), str(row.repeat + 1), row.title, " ".join(row.tags))
    return [cell(text) for text in (*plain, "yes" if row.must_pass else "", row.change, row.expected)]


def _side(side: AnswerView | None) -> list[str]:
    if side is None:
        return [""] * len(_OF_A_SIDE)
    figures = [_figure(value) for value in (side.score, side.latency_ms, side.cost_usd)]
    return [side.status, *figures, cell(side.output or ""), cell(side.reason)]


def _metrics(row: CaseRow, names: Sequence[str]) -> list[str]:
    return [
        _figure(side.metrics.get(name) if side else None) for side in (row.candidate, row.baseline) for name in names
    ]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"
