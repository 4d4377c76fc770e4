"""The advice as Markdown, for a pull request or an issue."""

from __future__ import annotations

from collections.abc import Iterator

from suites.advice.report import Advice
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
from suites.report.markdown import code, escape

MOST_GROUPS = 12


def render_markdown(advice: Advice) -> str:
    """The recommendation first, then what it rests on."""
    lines = [f"## {escape(advice.recommendation.title)}", ""]
    lines += [f"- {escape(reason)}" for reason in advice.recommendation.reasons]
    lines += ["", *(f"    {command}" for command in advice.recommendation.next), ""]
    lines += [f"{escape(line)}  " for line in data_lines(advice)]
    lines += [*_variants(advice), *_groups(advice), ""]
    for part in (curve_lines, training_lines, break_even_lines):
        lines += [f"- {escape(line.strip())}" for line in part(advice)]
    lines += [f"- not tried: {escape(one.what)}: {escape(one.why)}" for one in advice.skipped]
    lines += [f"- {escape(line)}" for line in (look_line(advice), timed_line(advice)) if line]
    return "\n".join([*lines, "", f"Advice {code(advice.advice_id)}", ""])


def _variants(advice: Advice) -> Iterator[str]:
    if not advice.variants:
        return
    yield ""
    yield "| variant | right | dev | 95% | against the prompt | p | tokens in | out | p50 ms | p95 ms | $ / 1,000 |"
    yield "|---|---:|---:|---|---|---:|---:|---:|---:|---:|---:|"
    for one in advice.variants:
        low, high = one.ci95
        points, p = difference(one)
        spend = one.spend
        cells = [escape(one.title) + ("" if one.ships else " \\*"), f"{one.right}/{one.total}", percent(one.accuracy)]
        cells += [f"{low:.1%} – {high:.1%}", points, p, tokens(spend.prompt_tokens), tokens(spend.answer_tokens)]
        cells += [milliseconds(spend.p50_ms), milliseconds(spend.p95_ms), cost(spend)]
        yield "| " + " | ".join(cells) + " |"
    if not all(one.ships for one in advice.variants):
        yield ""
        yield escape(ASIDE)


def _groups(advice: Advice) -> Iterator[str]:
    if not advice.groups:
        return
    yield from (
        "",
        "| failures of the prompt share | failed | of all | lift | p | such as |",
        "|---|---:|---:|---:|---:|---|",
    )
    for group in advice.groups[:MOST_GROUPS]:
        p = "" if group["p"] is None else f"{group['p']:.2g}"
        first = group["examples"][0]
        shown = f"{first['input']} → {first['answered']} (wanted {first['expected']})"
        cells = [code(group_name(group)), f"{group['failures']}/{group['count']}", percent(group["share"])]
        yield "| " + " | ".join([*cells, f"{group['lift']:.1f}", p, code(shown, 120)]) + " |"
