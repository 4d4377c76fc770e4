"""Two runs side by side, as tables of texts that every form of the report shows, as Markdown and as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from suites.drift import Drift
from suites.report.case_blocks import case_blocks
from suites.report.html import percent
from suites.report.markdown import MAX_CHARACTERS, code, escape
from suites.report.page import esc, page, table
from suites.report.views import CaseRow
from suites.run_comparison import Flips, RunComparison, Shift

MARKER = "<!-- turnout:compare -->"
MAX_CASES = 10  # of a kind, in Markdown
MAX_TAGS = 50


@dataclass(frozen=True, slots=True)
class SideView:
    """One run: what it tested, where that comes from, and its own figures."""

    letter: str
    run_id: str
    variant: str
    suite: str
    origin: str
    passed: int
    judged: int
    pass_rate: float | None
    ci95: tuple[float, float] | None

    @property
    def shown(self) -> str:
        """The variant, with where its version comes from."""
        return f"{self.variant} ({self.origin})" if self.origin else self.variant


@dataclass(frozen=True, slots=True)
class Compared:
    """All that a report of two runs shows. Of `rows` the candidate is B and the baseline A."""

    a: SideView
    b: SideView
    comparison: RunComparison
    drifts: Sequence[Drift]
    rows: Sequence[CaseRow]
    notes: Sequence[str] = ()

    @property
    def sides(self) -> tuple[SideView, SideView]:
        return self.a, self.b

    def changed(self, change: str) -> list[CaseRow]:
        """The cases that broke or were mended: of several repeats the first that shows it."""
        found: dict[str, CaseRow] = {}
        for row in self.rows:
            if row.change == change and (row.case_id not in found or _shows(row) > _shows(found[row.case_id])):
                found[row.case_id] = row
        return list(found.values())


def _shows(row: CaseRow) -> bool:
    """Whether this repeat itself went another way on both sides."""
    return row.baseline is not None and (row.baseline.status == "passed") != (row.candidate.status == "passed")


@dataclass(frozen=True, slots=True)
class FigureTable:
    """Texts in rows under their heads, with a line about them."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


_HEADS = ("A", "B", "difference", "95% interval", "p")


def tables_of(compared: Compared) -> Iterator[FigureTable]:
    """The two runs, their paired difference, and that of metrics, tags, latency and cost; empty ones are left out."""
    yield FigureTable(
        "Runs",
        ("", "variant", "run", "passed", "pass rate", "95% interval"),
        tuple(_side_row(side) for side in compared.sides),
    )
    found = compared.comparison
    overall = [("pass rate", str(found.flips.paired), *_flips_row(found.flips))]
    overall += [("mean score", str(found.scores.cases), *_shift_row(found.scores))] if found.scores else []
    yield FigureTable("Paired cases", ("", "cases", *_HEADS), tuple(overall))
    if found.metrics:
        rows = tuple((each.name, str(each.cases), *_shift_row(each)) for each in found.metrics)
        yield FigureTable("Metrics (p adjusted by Holm)", ("metric", "cases", *_HEADS), rows)
    if found.tags:
        yield _tags(found.tags)
    if compared.drifts:
        drift = tuple(
            (_NAMES.get(each.name, each.name), str(each.cases), *_drift_row(each)) for each in compared.drifts
        )
        yield FigureTable(
            "Latency, cost and length", ("", "cases", "A", "B", "difference", "95% interval", "B/A"), drift
        )


def _tags(found: Sequence[tuple[str, Flips]]) -> FigureTable:
    """Of many tags those that changed most surely."""
    surest = sorted(sorted(found, key=lambda item: item[1].p_value)[:MAX_TAGS], key=lambda item: item[0])
    left = f"; {len(found) - MAX_TAGS} more with a larger p are in the JSON" if len(found) > MAX_TAGS else ""
    rows = tuple(
        (tag, str(each.paired), str(len(each.broken)), str(len(each.mended)), *_flips_row(each)) for tag, each in surest
    )
    return FigureTable(f"Tags (p adjusted by Holm{left})", ("tag", "cases", "broken", "mended", *_HEADS), rows)


_NAMES = {
    "p50_ms": "p50, ms",
    "p95_ms": "p95, ms",
    "cost_per_1k_usd": "USD per 1,000 answers",
    "prompt_tokens": "prompt tokens",
    "completion_tokens": "answer tokens",
}


def _side_row(side: SideView) -> tuple[str, ...]:
    interval = f"{percent(side.ci95[0])} – {percent(side.ci95[1])}" if side.ci95 else "–"
    return side.letter, side.shown, side.run_id, f"{side.passed} of {side.judged}", percent(side.pass_rate), interval


def _flips_row(flips: Flips) -> tuple[str, ...]:
    if not flips.paired or flips.difference is None or flips.ci95 is None:
        return ("–",) * 5
    rates = (percent(flips.a_passed / flips.paired), percent(flips.b_passed / flips.paired))
    interval = f"{flips.ci95[0]:+.1%} to {flips.ci95[1]:+.1%}"
    p_value = flips.p_value if flips.p_adjusted is None else flips.p_adjusted
    return *rates, f"{flips.difference:+.1%}", interval, f"{p_value:.2g}"


def _shift_row(shift: Shift) -> tuple[str, ...]:
    p_value = shift.p_value if shift.p_adjusted is None else shift.p_adjusted
    interval = f"{shift.ci95[0]:+.3f} to {shift.ci95[1]:+.3f}"
    return f"{shift.a:.3f}", f"{shift.b:.3f}", f"{shift.difference:+.3f}", interval, f"{p_value:.2g}"


def _drift_row(drift: Drift) -> tuple[str, ...]:
    interval = f"{drift.ci95[0]:+.4g} to {drift.ci95[1]:+.4g}"
    ratio = "–" if drift.ratio is None else f"{drift.ratio:.2f}"
    return f"{drift.a:,.4g}", f"{drift.b:,.4g}", f"{drift.difference:+.4g}", interval, ratio


def headline(compared: Compared) -> str:
    """What came of it, in a sentence."""
    flips = compared.comparison.flips
    changes = f"{len(flips.broken)} newly broken, {len(flips.mended)} newly mended of {flips.paired} paired cases"
    return f"{changes}, p = {flips.p_value:.2g} (McNemar, exact, two-sided)"


def as_data(compared: Compared) -> dict[str, Any]:
    """The JSON of a comparison, but for the flipped cases and the runs, which its caller knows."""
    from dataclasses import asdict

    found = compared.comparison
    return {
        **found.flips.as_dict(),
        "only_a": [*found.only_a],
        "only_b": [*found.only_b],
        "score": asdict(found.scores) if found.scores else None,
        "metrics": {each.name: asdict(each) for each in found.metrics},
        "tags": {tag: each.as_dict() for tag, each in found.tags},
        "drift": {each.name: asdict(each) for each in compared.drifts},
        "notes": [*compared.notes],
    }


# ------------------------------------------------------------------------------------ Markdown


def comparison_markdown(compared: Compared) -> str:
    """A comment; without the cases where it would be longer than GitHub takes."""
    parts = [MARKER, f"## {escape(headline(compared))}", ""]
    parts += [f"- {escape(note)}" for note in compared.notes] + [""] * bool(compared.notes)
    for each in tables_of(compared):
        parts += [f"**{each.title}**", "", *_markdown_table(each), ""]
    cases = [*_changed(compared, "broken"), *_changed(compared, "mended")]
    text = "\n".join([*parts, *cases])
    if len(text) <= MAX_CHARACTERS:
        return text
    told = "_The cases are left out: the comment would be too long. `--html` and `--csv` have all of them._"
    return ("\n".join([*parts, told]))[:MAX_CHARACTERS] + "\n"


def _markdown_table(found: FigureTable) -> list[str]:
    lines = ["| " + " | ".join(found.heads) + " |", "|---" * len(found.heads) + "|"]
    return lines + ["| " + " | ".join(map(escape, row)) + " |" for row in found.rows]


def _changed(compared: Compared, change: str) -> list[str]:
    rows = compared.changed(change)
    if not rows:
        return []
    lines = [f"<details open><summary>Newly {change}: {len(rows)}</summary>", ""]
    lines += ["| case | expected | A | B | why |", "|---|---|---|---|---|"]
    for row in rows[:MAX_CASES]:
        was = row.baseline
        worse = row.candidate if change == "broken" or was is None else was
        cells = (row.title, row.expected, was.output if was else None, row.candidate.output, worse.reason)
        lines.append("| " + " | ".join(map(code, cells)) + " |")
    more = ["", f"… and {len(rows) - MAX_CASES} more"] if len(rows) > MAX_CASES else []
    return [*lines, *more, "", "</details>", ""]


# ------------------------------------------------------------------------------------ HTML


def comparison_page(compared: Compared) -> str:
    """The page: figures, then every paired case, what flipped first."""
    body = [f"<h1>{esc(compared.a.variant)} → {esc(compared.b.variant)}</h1>", f"<p>{esc(headline(compared))}</p>"]
    body += [f"<ul>{''.join(f'<li>{esc(note)}</li>' for note in compared.notes)}</ul>"] if compared.notes else []
    for each in tables_of(compared):
        rows = [tuple(map(esc, row)) for row in each.rows]
        texts = 3 if each.title == "Runs" else 1
        body += [f"<h3>{esc(each.title)}</h3>", table(each.heads, rows, range(texts, len(each.heads)))]
    body += case_blocks(compared.rows, ("A", "B"))
    return page(f"{compared.a.variant} → {compared.b.variant}", body)
