"""The advice as one HTML page that asks for nothing from outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
from suites.report.chart import chart
from suites.report.page import esc, mark, page, table

_GOOD = ("ship the prompt", "mend the form", "set parameters", "few-shot", "fine-tune", "few-shot and fine-tune")
_BAD = ("contradictions", "mend the examples")


def render_html(advice: Advice) -> str:
    """The recommendation, then all that was measured."""
    chosen = advice.recommendation
    kind = "good" if chosen.kind in _GOOD else "bad" if chosen.kind in _BAD else "doubt"
    body = [f"<h1>{mark(chosen.kind, kind)} {esc(chosen.title)}</h1>", _list(chosen.reasons)]
    body += [f"<p>Next: <code>{esc(command)}</code></p>" for command in chosen.next]
    body += ["<h2>Variants</h2>", *_variants(advice)] if advice.variants else []
    body += ["<h2>Learning curve</h2>", _curve(advice), _list(list(curve_lines(advice)))] if advice.curve else []
    body += ["<h2>Failures of the prompt alone</h2>", *map(_group, advice.groups)] if advice.groups else []
    body += ["<h2>Examples</h2>", _list(list(data_lines(advice))), *_mislabelled(advice)]
    body += _shots(advice)
    notes = [*training_lines(advice), *break_even_lines(advice), look_line(advice), timed_line(advice)]
    notes += [f"not tried: {one.what}: {one.why}" for one in advice.skipped]
    body += ["<h2>How it was measured</h2>", _list([line for line in notes if line])]
    told = f"Advice <code>{esc(advice.advice_id)}</code>: <code>turnout advise --of {esc(advice.advice_id)}</code>"
    return page(f"Turnout advice: {chosen.title}", [*body, f"<footer>{told}</footer>"])


def _list(lines: Any) -> str:
    return f"<ul>{''.join(f'<li>{esc(line.strip())}</li>' for line in lines)}</ul>"


def _variants(advice: Advice) -> Iterator[str]:
    heads = ("variant", "model", "right", "dev", "95% interval", "against the prompt", "p", "tokens in", "out", "p50 ms",
             "p95 ms", "$ / 1,000")  # fmt: skip
    yield table(heads, [_row(one, advice.recommendation.variant) for one in advice.variants], range(2, 12))
    if not all(one.ships for one in advice.variants):
        yield f'<p class="dim">{esc(ASIDE)}</p>'


def _row(one: Variant, chosen: str | None) -> tuple[str, ...]:
    points, p = difference(one)
    low, high = one.ci95
    name = (
        esc(one.title) + ("" if one.ships else " *") + (f" {mark('recommended', 'good')}" if one.key == chosen else "")
    )
    note = f'<div class="dim">{esc(one.note)}</div>' if one.note else ""
    spend = one.spend
    return (
        name + note, esc(one.model), f"{one.right}/{one.total}", percent(one.accuracy), f"{low:.1%} – {high:.1%}",
        esc(points), p, tokens(spend.prompt_tokens), tokens(spend.answer_tokens), milliseconds(spend.p50_ms),
        milliseconds(spend.p95_ms), cost(spend),
    )  # fmt: skip


def _curve(advice: Advice) -> str:
    """Accuracy by examples: what was measured, then the forecasts with their intervals."""
    curve: Mapping[str, Any] = advice.curve or {}
    measured = [1 - one["wrong"] / one["total"] for one in curve["points"]]
    forecast = [one["accuracy"] for one in curve["forecasts"]]
    titles = [f"{one['examples']} examples, measured: {1 - one['wrong'] / one['total']:.1%}" for one in curve["points"]]
    titles += [f"{one['examples']} examples, forecast: {one['accuracy']:.1%}" for one in curve["forecasts"]]
    bands = [None] * len(measured) + [tuple(one["ci95"]) for one in curve["forecasts"]]
    return chart([*measured, *forecast], titles, bands)


def _group(group: Mapping[str, Any]) -> str:
    p = "" if group["p"] is None else f", p = {group['p']:.2g}"
    counts = f"{group['failures']} of {group['count']}, {percent(group['share'])} of all failures, lift {group['lift']:.1f}{p}"
    rows = [
        (str(one["row"]), esc(one["input"]), esc(one["expected"]), esc(one["answered"])) for one in group["examples"]
    ]
    shown = table(("row", "input", "expected", "answered"), rows)
    return f"<details><summary>{esc(group_name(group))}: {counts}</summary>{shown}</details>"


def _mislabelled(advice: Advice) -> Iterator[str]:
    if advice.data.mislabelled:
        rows = [(str(one["row"]), esc(one["expected"]), esc(one["answered"])) for one in advice.data.mislabelled]
        shown = table(("example", "label", "what trainings that did not see it say"), rows)
        yield f"<details><summary>{len(rows)} examples that may be labelled wrongly</summary>{shown}</details>"


def _shots(advice: Advice) -> list[str]:
    if not advice.shots:
        return []
    rows = [
        (esc(", ".join(f"{name}: {value}" for name, value in one.vars.items())), esc(one.expected))
        for one in advice.shots
    ]
    shown = table(("variables", "expected"), rows)
    return [f"<details><summary>{len(rows)} examples that would stand in the prompt</summary>{shown}</details>"]
