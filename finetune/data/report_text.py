"""A data report in plain lines, for terminals and job events."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.data.balance import Balance
from finetune.data.report import Contradiction, DataReport, Length, Listed, Repeat
from prompts.wording import many

LINES_OF_A_KIND = 5
LABELS = 8

_REASONS = {
    "held-out": "same input as a held-out case",
    "held-out-near": "nearly a held-out case",
    "held-out-13-gram": "13 words in a row of a held-out case",
    "held-out-within": "holds the whole of a held-out case",
    "in-prompt": "stands in the prompt as one of its examples",
    "in-prompt-near": "nearly one of the prompt's examples",
    "duplicate": "same input as an earlier example",
    "near-duplicate": "nearly an earlier example",
}


def report_lines(report: DataReport) -> list[str]:
    """The report as lines of plain text: what there is, what was left out, what to look at, what stops a launch."""
    return [
        f"examples   {report.given:,} given, {report.kept:,} kept; compared with {_cases(report.heldout)}",
        *(f"  left out {count:,}: {_REASONS.get(reason, reason)}" for reason, count in sorted(report.dropped.items())),
        *([f"  left out {report.contradicting:,}: different answers to the same input"] if report.contradicting else []),
        *_lengths(report),
        _balance(report.answers),
        *_repeats("held-out", report.overlaps),
        *_repeats("repeated", report.duplicates),
        *_contradictions("conflict", report.conflicts),
        *_contradictions("near", report.near_conflicts),
        *_cut("malformed", report.malformed.total, [f"example {m.index}: {m.message}" for m in report.malformed.shown]),
        *_cut("flagged", report.flags.total,
              [f"example {f.index}, {f.place}: {f.kind} {f.shown}" for f in report.flags.shown]),
        *(f"warning    {warning}" for warning in report.warnings),
        *(f"refused    {refusal}" for refusal in report.refusals),
    ]  # fmt: skip


def _cases(count: int) -> str:
    return many(count, "held-out case")


def _lengths(report: DataReport) -> Iterator[str]:
    if report.lengths is None:
        return
    about = "" if report.lengths.exact else "about "
    yield f"tokens     input {about}{_length(report.lengths.input)}"
    yield f"           answer {about}{_length(report.lengths.answer)}"


def _length(length: Length) -> str:
    return f"{length.median:,} (median; {length.min:,} to {length.max:,}, p95 {length.p95:,})"


def _balance(answers: Balance) -> str:
    if answers.kind == "free text":
        return f"answers    free text, {answers.distinct:,} different"
    named = ", ".join(f"{label!r} {count:,}" for label, count in answers.counts[:LABELS])
    more = f" and {answers.distinct - LABELS:,} more" if answers.distinct > LABELS else ""
    share = f"largest {answers.largest_share:.0%}, entropy {answers.entropy_bits:.2f} bits"
    return f"answers    {answers.distinct:,} labels, {share}: {named}{more}"


def _repeats(title: str, repeats: Listed[Repeat]) -> Iterator[str]:
    lines = [f"example {one.index}: {one.reason}, {one.repeats}" for one in repeats.shown]
    return _cut(title, repeats.total, lines)


def _contradictions(title: str, found: Listed[Contradiction]) -> Iterator[str]:
    lines = [
        f"examples {', '.join(map(str, one.indexes))}: {' / '.join(map(repr, one.outputs))}" for one in found.shown
    ]
    return _cut(title, found.total, lines)


def _cut(title: str, total: int, lines: list[str]) -> Iterator[str]:
    """The first lines of a kind, and how many more there are."""
    yield from (f"{title:<10} {line}" for line in lines[:LINES_OF_A_KIND])
    if total > LINES_OF_A_KIND:
        yield f"{title:<10} … and {total - LINES_OF_A_KIND:,} more"
