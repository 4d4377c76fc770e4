"""The figures of an advice in words, the same in the terminal, in Markdown and on the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prompts.wording import many
from suites.advice.curve import TOLD
from suites.advice.report import Advice, Spend, Variant

ASIDE = "* not to be shipped as it stands"
_KINDS = {
    "label": "expected {}",
    "confusion": "{}",
    "variable": "{}",
    "length": "the {}",
    "word": "the input has “{}”",
    "form": "form: {}",
}
_CONTRADICTIONS = 3


def percent(share: float) -> str:
    return f"{share:.1%}"


def tokens(count: float | None) -> str:
    return "–" if count is None else f"{count:,.0f}" if count >= 10 else f"{count:.1f}"


def milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def cost(spend: Spend) -> str:
    return "–" if spend.cost_per_1k_usd is None else f"{spend.cost_per_1k_usd:.4g}"


def difference(one: Variant) -> tuple[str, str]:
    """Points gained with their interval, and the exact p of the pairs; dashes for what nothing is set beside."""
    pairs = one.paired
    if pairs is None:
        return "–", "–"
    low, high = (100 * end for end in pairs.ci95)
    return f"{100 * pairs.difference:+.1f} ({low:+.0f} to {high:+.0f})", f"{pairs.p:.2g}"


def group_name(group: Mapping[str, Any]) -> str:
    """What the failures of a group share, and the mend where the form is at fault."""
    name = _KINDS[group["kind"]].format(group["name"])
    return f"{name} ({group['mend']})" if group["mend"] else name


def data_lines(advice: Advice) -> Iterator[str]:
    """What is known of the examples: how many, and what is wrong with them."""
    data = advice.data
    yield f"prompt {advice.prompt}, suite {advice.suite}"
    yield f"{data.given:,} examples given, {data.kept:,} kept, {advice.folds} folds"
    if data.contradicting:
        yield (f"{data.contradicting} contradict others: at most {percent(data.ceiling)} of all can be answered right")
        for one in data.contradictions[:_CONTRADICTIONS]:
            rows = ", ".join(map(str, one["rows"]))
            yield f"  examples {rows}: {' / '.join(map(repr, one['answers']))}"
    if data.mislabelled:
        rows = ", ".join(str(one["row"]) for one in data.mislabelled[:8])
        yield f"{many(len(data.mislabelled), 'example')} may be labelled wrongly, by trainings that did not see them: {rows}"


def curve_lines(advice: Advice) -> Iterator[str]:
    """The points of the learning curve, and what it forecasts."""
    curve = advice.curve
    if curve is None:
        return
    points = ", ".join(f"{one['examples']}: {1 - one['wrong'] / one['total']:.1%}" for one in curve["points"])
    yield f"LoRA by examples trained on: {points} ({curve['method']})"
    for one in curve["forecasts"]:
        low, high = one["ci95"]
        chance = "" if one["reach"] is None else f", chance of the threshold {one['reach']:.0%}"
        yield f"  {one['examples']:,} examples: {one['accuracy']:.1%} ({low:.1%} to {high:.1%}){chance}"
    needed = curve["needed"]
    if needed is not None:
        yield f"  the threshold of {percent(advice.bar or 0.0)}: {needed_words(needed)}"


def needed_words(needed: Mapping[str, Any]) -> str:
    """How many examples the threshold takes."""
    if needed["answer"] == "number":
        high = f"{needed['high']:,}" if needed["high"] is not None else "beyond what can be said"
        return f"{needed['examples']:,} examples in all (80% interval {needed['low']:,} to {high})"
    return {
        "reached": "the examples there are suffice, by the curve",
        "out of reach": f"out of reach, by the curve, also with {TOLD} times the examples",
        "cannot say": "how many more examples it takes, the curve cannot say",
    }[needed["answer"]]


def training_lines(advice: Advice) -> Iterator[str]:
    """What was trained for the advice, and what one training on all examples takes."""
    found = advice.trained
    if found is None:
        return
    yield (
        f"{found.trainings} trainings on {found.device}: {found.seconds / 60:.1f} min, {found.energy_wh:.2g} Wh "
        f"({found.energy_from})"
    )
    price = "" if found.one_price_usd is None else f", ${found.one_price_usd:.3g}"
    yield f"  one on all examples: about {found.one_s / 60:.1f} min, {found.one_energy_wh:.2g} Wh{price}"


def break_even_lines(advice: Advice) -> Iterator[str]:
    titles = {one.key: one.title for one in advice.variants}
    for one in advice.break_even:
        pays = f"after {one.requests:,} requests" if one.requests is not None else "never"
        yield f"{titles[one.variant]} pays {pays}, beside {titles[one.against]}: {one.why}"


def look_line(advice: Advice) -> str:
    """What the one look at the held-out cases showed, or why there was none."""
    look = advice.look
    if look is None:
        return ""
    if not look["taken"]:
        return str(look["why"])
    before, after = look["before"], look["after"]
    rates = f"{before['passed']} of {before['total']} before, {after['passed']} after"
    return f"held-out, look {look['look']}: {look['verdict']}, {rates}; evidence {look['evidence_id']}"


def timed_line(advice: Advice) -> str:
    """How latency and cost were measured."""
    first = advice.variants[0].spend if advice.variants else Spend()
    told = f"latency: {first.timed} requests of each, one in flight" if first.timed else ""
    sources = sorted({one.spend.cost_from for one in advice.variants if one.spend.cost_from})
    return "; ".join(filter(None, (told, *(f"cost by {one}" for one in sources))))
