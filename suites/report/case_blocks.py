"""Cases in an HTML report: each folded, with what was expected and both answers side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from suites.report.page import esc, mark
from suites.report.views import AnswerView, CaseRow

MAX_CASES = 2_000  # of a suite: a page of more is slow to open
MAX_ANSWER_CHARACTERS = 4_000
UNFOLDED = 5  # of those that broke

_KINDS = {"passed": "good", "failed": "bad", "errored": "bad", "skipped": "doubt"}
_FIRST = {"broken": 0, "mended": 1, "": 2}


def case_blocks(rows: Sequence[CaseRow], sides: tuple[str, str] = ("baseline", "candidate")) -> list[str]:
    """The cases with a filter above them: what broke first, then what was mended, what did not pass, and the rest."""
    if not rows:
        return []
    ordered = sorted(rows, key=_place)
    blocks = [_block(row, sides, is_open=place < UNFOLDED) for place, row in enumerate(islice(ordered, MAX_CASES))]
    left = len(rows) - len(blocks)
    told = (
        [f"<p>{left:,} more cases are left out of this page; <code>--csv</code> writes all of them.</p>"]
        if left
        else []
    )
    return ["<section>", "<h3>Cases</h3>", _filters(rows), *blocks, *told, "</section>"]


def _place(row: CaseRow) -> tuple[int, bool, int, int]:
    return _FIRST[row.change], row.candidate.status == "passed", row.number, row.repeat


def _kinds(row: CaseRow) -> Iterable[str]:
    return (kind for kind in (row.change, row.candidate.status) if kind)


def _filters(rows: Sequence[CaseRow]) -> str:
    found = {kind for row in rows for kind in _kinds(row)}
    kinds = [kind for kind in ("broken", "mended", "passed", "failed", "errored", "skipped") if kind in found]
    options = "".join(f'<option value="{kind}">{kind}</option>' for kind in kinds)
    return (
        '<div class="filters" hidden><input type="search" placeholder="Filter by text" aria-label="Filter by text">'
        f'<select aria-label="Filter by kind"><option value="">all cases</option>{options}</select><output></output></div>'
    )


def _block(row: CaseRow, sides: tuple[str, str], *, is_open: bool) -> str:
    status = row.candidate.status
    change = mark(f"newly {row.change}", "bad" if row.change == "broken" else "good") if row.change else ""
    flags = [mark("must pass")] if row.must_pass else []
    flags += [mark(tag) for tag in row.tags]
    repeat = f' <span class="dim">repeat {row.repeat + 1}</span>' if row.repeat else ""
    unfolded = " open" if is_open and row.change == "broken" else ""
    kinds = " ".join(_kinds(row))
    head = " ".join(filter(None, (mark(status, _KINDS[status]), change, esc(row.title) + repeat, *flags)))
    expected = f"<p>Expected</p><pre>{esc(row.expected, MAX_ANSWER_CHARACTERS)}</pre>" if row.expected else ""
    answers = [(sides[0], row.baseline), (sides[1], row.candidate)]
    shown = "".join(_answer(name, answer) for name, answer in answers if answer is not None)
    case_id = f'<p class="dim">case <code>{esc(row.case_id)}</code></p>'
    inside = f'{expected}<div class="sides">{shown}</div>{case_id}'
    return (
        f'<details class="case" data-kinds="{kinds}"{unfolded}><summary>{head}</summary><div>{inside}</div></details>'
    )


def _answer(name: str, answer: AnswerView) -> str:
    about = [_milliseconds(answer.latency_ms)] if answer.latency_ms is not None else []
    about += [f"score {answer.score:.3g}"] if answer.score is not None else []
    about += [f"{answer.cost_usd:.3g} USD"] if answer.cost_usd is not None else []
    head = (
        f'<p>{esc(name)} {mark(answer.status, _KINDS[answer.status])} <span class="dim">{", ".join(about)}</span></p>'
    )
    output = f"<pre>{esc(answer.output, MAX_ANSWER_CHARACTERS)}</pre>" if answer.output is not None else ""
    reason = f"<p>{esc(answer.reason, MAX_ANSWER_CHARACTERS)}</p>" if answer.reason else ""
    return f"<div>{head}{output or '<p class=dim>no answer came</p>'}{reason}</div>"


def _milliseconds(latency_ms: float) -> str:
    return f"{latency_ms:,.0f} ms" if latency_ms >= 10 else f"{latency_ms:.2g} ms"
