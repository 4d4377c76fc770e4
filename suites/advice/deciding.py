"""One recommendation from all that was measured, by the rule that docs/advice.md writes out.

The first line that holds decides: mend the examples; ship what is good enough; else the cheapest rung that helps and is good
enough; else more examples, where the curve says how many; else not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from suites.advice.answers import paired
from suites.advice.curve import TOLD, Curve, Needed
from suites.advice.report import ORDER, TRAINED, BreakEven, Recommendation, Rung, Variant
from suites.statistics import mcnemar_two_sided

MOST_CONTRADICTING = 0.2  # of the examples, as the data report refuses them
_OF_RUNG: dict[Rung, str] = {
    "form": "mend the form",
    "parameters": "set parameters",
    "few-shot": "few-shot",
    "lora": "fine-tune",
    "few-shot+lora": "few-shot and fine-tune",
}
_TITLES: dict[str, str] = {
    "mend the form": "Mend the form of the answers: the model knows them",
    "set parameters": "Set the parameters",
    "few-shot": "Put examples into the prompt",
    "fine-tune": "Fine-tune",
    "few-shot and fine-tune": "Fine-tune on the prompt with examples in it",
}


@dataclass(frozen=True)
class Facts:
    """What the rule reads. `bar` is the suite's `pass_rate`, None where it has none; `called` names it in commands.

    `untrained` says why nothing was trained, empty where something was. `commonest` is the answer that most examples have,
    where answers are labels, and `always` the outcomes of giving nothing else.
    """

    called: str
    given: int
    kept: int
    contradicting: int
    ceiling: float
    refusals: Sequence[str] = ()
    variants: Sequence[Variant] = ()
    curve: Curve | None = None
    bar: float | None = None
    alpha: float = 0.05
    margin: float = 0.02
    p95_ms: float | None = None  # bounds of the suite
    cost_per_1k_usd: float | None = None
    forms: Sequence[str] = ()  # what is wrong with the form of answers, and what mends it
    untrained: str = ""
    commonest: str = ""
    always: str = ""
    options: str = ""  # of the fine-tune that was measured
    local: str = ""  # " --local" where the commands need it
    advice_id: str = ""

    @property
    def prompt(self) -> Variant:
        return self.variants[0]

    @property
    def prompt_is_enough(self) -> bool:
        """Whether the prompt alone reaches the bar, be it within the bounds or not."""
        return self.bar is not None and self.prompt.accuracy >= self.bar

    @property
    def candidates(self) -> list[Variant]:
        """What can be shipped and keeps the suite's bounds of time and price, the cheapest rung first."""
        found = [one for one in self.shippable if not self.breaks(one)]
        return sorted(found, key=lambda one: (ORDER.index(one.rung), one.shots, -one.accuracy))

    @property
    def shippable(self) -> list[Variant]:
        """What could be recommended, but for the suite's bounds."""
        return [one for one in self.variants[1:] if one.ships and one.rung in _OF_RUNG]

    def breaks(self, one: Variant) -> str:
        """Which bound of the suite a variant breaks, in words; empty where none is known to be."""
        spend = one.spend
        if self.p95_ms is not None and spend.p95_ms is not None and spend.p95_ms > self.p95_ms:
            return f"{one.title}: p95 of {spend.p95_ms:,.0f} ms is above the suite's {self.p95_ms:g} ms"
        cost, bound = spend.cost_per_1k_usd, self.cost_per_1k_usd
        if bound is not None and cost is not None and cost > bound:
            return f"{one.title}: ${cost:.4g} for 1,000 requests is above the suite's ${bound:g}"
        return ""

    def helps(self, one: Variant) -> bool:
        """Whether it is better than the prompt alone, by `margin` or more, and surely so.

        Where the prompt is good enough but too slow or too dear, what is good enough and is neither helps, too; without a
        bar what is as good as the prompt but for `margin`.
        """
        return (bool(self.breaks(self.prompt)) and self.is_as_good(one)) or self.is_better(one)

    def is_better(self, one: Variant) -> bool:
        """Whether it is surely better than the prompt alone, whatever it takes and whether or not it can be shipped."""
        pairs = one.paired
        return pairs is not None and pairs.p_holm <= self.alpha and pairs.difference >= self.margin

    def is_as_good(self, one: Variant) -> bool:
        """Whether it can stand in for the prompt: both reach the bar, or without one it is no worse but for `margin`."""
        if self.bar is None:
            return one.level >= self.prompt.accuracy - self.margin - 1e-9
        return self.prompt_is_enough and one.level >= self.bar


def recommend(facts: Facts) -> Recommendation:
    """The first line of the rule that holds."""
    if found := _about_examples(facts):
        return found
    if facts.prompt_is_enough and not facts.breaks(facts.prompt):
        return _ship(facts, f"{_rate(facts.prompt)}, and the suite asks for {facts.bar:.1%}")
    helping = [one for one in facts.candidates if facts.helps(one)]
    chosen = _cheapest(facts, helping)
    if chosen is not None:
        return _take(facts, chosen)
    if facts.bar is None:
        return _without_a_bar(facts)
    return _beyond_the_bar(facts, helping)


# ------------------------------------------------------------------------------------------------ the examples


def _about_examples(facts: Facts) -> Recommendation | None:
    contradicts = facts.contradicting > MOST_CONTRADICTING * facts.given
    if contradicts or (facts.bar is not None and facts.ceiling < facts.bar):
        bar = f", and the suite asks for {facts.bar:.1%}" if facts.bar is not None else ""
        told = f"{facts.contradicting} of {facts.given} examples give different answers to the same input"
        most = f"no model can answer more than {facts.ceiling:.1%} of the examples right{bar}"
        fix = "decide which answer is right, or give the prompt the variable that tells these inputs apart"
        title = "Your examples contradict each other"
        return _made("contradictions", title, [told, most, fix], [_advise(facts)])
    if facts.refusals:
        title = "Mend the examples first: they cannot be trained on, nor tell how good the prompt is"
        return _made("mend the examples", title, facts.refusals, [_advise(facts)])
    return None


# ------------------------------------------------------------------------------------------------ what is good enough


def _cheapest(facts: Facts, helping: Sequence[Variant]) -> Variant | None:
    """With a bar: the first that reaches it. Without: the first that is within the margin of the best."""
    if not helping:
        return None
    bar = max(one.level for one in helping) - facts.margin if facts.bar is None else facts.bar
    return next((one for one in helping if one.level >= bar - 1e-9), None)


def _take(facts: Facts, one: Variant) -> Recommendation:
    kind = _OF_RUNG[one.rung]
    broken = facts.breaks(facts.prompt)
    reasons = [*_beside_the_commonest(facts, one), *([broken] if broken else [])]
    reasons += [f"the prompt alone has {_rate(facts.prompt)}", f"{one.title} has {_rate(one)}{_paired(one)}"]
    reasons += facts.forms if one.rung == "form" else ()
    if one.forecast is not None:
        reasons.append(f"trained on all {facts.kept} examples the curve gives it {one.forecast:.1%}")
    if facts.bar is not None:
        reasons.append(f"the suite asks for {facts.bar:.1%}")
    reasons += _cheaper(facts, one)
    return _made(kind, _TITLES[kind], reasons, _next(facts, one), one.key)


def _beside_the_commonest(facts: Facts, one: Variant) -> list[str]:
    """A warning where a variant may have learnt one label alone: with few examples of the others it is as right so."""
    if not facts.commonest:
        return []
    both, broken, mended, neither = paired(facts.always, one.outcomes)
    pairs = both + broken + mended + neither
    if not pairs or (mended > broken and mcnemar_two_sided(broken, mended) <= facts.alpha):
        return []
    return [
        f"always answering {facts.commonest!r} would have {(both + broken) / pairs:.1%} of {pairs} right: it is not sure that"
        f" {one.title} tells the other answers apart, so collect examples of those"
    ]


def _cheaper(facts: Facts, one: Variant) -> list[str]:
    """Why the best of each cheaper rung is not taken, and what of them the bounds alone rule out."""
    cheaper = [other for other in facts.shippable if ORDER.index(other.rung) < ORDER.index(one.rung)]
    best: dict[Rung, Variant] = {}
    for other in cheaper:
        if not facts.breaks(other):
            best[other.rung] = max(best.get(other.rung, other), other, key=lambda each: each.accuracy)
    told = [f"nothing cheaper does: {_rate(other)} for {other.title}{_unsure(facts, other)}" for other in best.values()]
    return told + [_told_broken(facts, other) for other in cheaper if facts.breaks(other)]


def _unsure(facts: Facts, one: Variant) -> str:
    """Why what may reach the bar is not taken all the same."""
    return "" if facts.helps(one) else ", which is not surely better than the prompt alone"


def _next(facts: Facts, one: Variant) -> list[str]:
    if one.rung in TRAINED:
        write = [_write(facts)] if one.rung == "few-shot+lora" else []
        return [*write, _finetune(facts)]
    if one.rung == "form":
        return [f"turnout run {facts.called}{facts.local}"]
    return [_write(facts), f"turnout gate {facts.called}{facts.local}"]


def _ship(facts: Facts, *reasons: str) -> Recommendation:
    commands = [f"turnout gate {facts.called}{facts.local}"]
    told = [*_beside_the_commonest(facts, facts.prompt), *reasons]
    return _made("ship the prompt", "Ship the prompt as it is", told, commands, facts.prompt.key)


def _without_a_bar(facts: Facts) -> Recommendation:
    """Nothing helps: the prompt is shipped, where it keeps the suite's bounds."""
    if facts.breaks(facts.prompt):
        told = f"the prompt alone has {_rate(facts.prompt)}, and nothing that was tried is as good within the bounds"
        return _out_of_bounds(facts, [told, *_not_helping(facts), *_broken(facts)])
    return _ship(facts, _nothing_better(facts), *_not_helping(facts), *_broken(facts))


def _out_of_bounds(facts: Facts, reasons: Sequence[str]) -> Recommendation:
    """The prompt is good enough, and the suite's gate would fail it for its time or its price."""
    title = "Do not ship the prompt as it is: it breaks the suite's bounds, and nothing as good keeps them"
    return _made("out of bounds", title, reasons, [_another_base(facts)])


def _broken(facts: Facts) -> list[str]:
    return [_told_broken(facts, one) for one in facts.variants if facts.breaks(one)]


def _told_broken(facts: Facts, one: Variant) -> str:
    """Which bound it breaks, and how good it is: the prompt's accuracy is told elsewhere."""
    good = "" if one is facts.prompt else f"; it has {_rate(one)}{_paired(one)}"
    return f"{facts.breaks(one)}{good}"


def _nothing_better(facts: Facts) -> str:
    outside = [one for one in facts.variants[1:] if facts.is_better(one)]
    return f"nothing that {_limits(facts, outside) or 'was tried'} is surely better than the prompt alone"


def _limits(facts: Facts, outside: Sequence[Variant]) -> str:
    """What is true of all that could be recommended and of none of those `outside`: no figure may be contrary to what is said."""
    found = (
        ("was asked of the prompt's own model", any(one.rung == "against" for one in outside)),
        ("can be shipped as it stands", any(not one.ships for one in outside)),
        ("keeps the suite's bounds", any(facts.breaks(one) for one in outside)),
        ("is surely better than the prompt alone", any(one in facts.candidates for one in outside)),
    )
    said = [words for words, is_so in found if is_so]
    return " and ".join(filter(None, (", ".join(said[:-1]), *said[-1:])))


def _not_helping(facts: Facts) -> list[str]:
    return [f"{one.title} has {_rate(one)}{_paired(one)}" for one in facts.candidates]


# ------------------------------------------------------------------------------------------------ what is not


def _beyond_the_bar(facts: Facts, helping: Sequence[Variant]) -> Recommendation:
    """The bar is missed by all that was tried, or the bounds are: more examples, or none of it."""
    reasons = [f"the suite asks for {facts.bar:.1%}, and the prompt alone has {_rate(facts.prompt)}"]
    if helping:
        top = max(helping, key=lambda one: one.accuracy)  # as measured: the forecast is told beside it
        outside = [one for one in facts.variants[1:] if one.accuracy > top.accuracy and one not in facts.candidates]
        best = f"the best that {_limits(facts, outside) or 'was tried'}"
        reasons.append(f"{best}, {top.title}, has {_rate(top)}{_paired(top)}")
    else:
        reasons += [_nothing_better(facts), *_not_helping(facts)]
    reasons += _broken(facts)
    needed = facts.curve.needed if facts.curve else None
    tuned = next((one for one in facts.variants if one.rung == "lora"), None)
    is_barred = tuned is not None and bool(facts.breaks(tuned))  # more examples make it neither faster nor cheaper
    if facts.prompt_is_enough and (needed is None or is_barred):
        return _out_of_bounds(facts, reasons)
    if needed is None:
        return _undecided(facts, reasons)
    if is_barred:
        title = "Do not fine-tune: the tuned model breaks the suite's bounds, however many examples it learns from"
        return _made("do not fine-tune", title, reasons, [_another_base(facts)])
    return _by_the_curve(facts, needed, reasons, tuned)


def _by_the_curve(facts: Facts, needed: Needed, reasons: list[str], tuned: Variant | None) -> Recommendation:
    """What more examples would give the fine-tune, which keeps the suite's bounds."""
    if needed.answer == "number" and needed.examples is not None:
        more = max(1, needed.examples - facts.kept)
        ends = f"{needed.low:,} to {needed.high:,}" if needed.high else f"{needed.low:,} or more"
        reasons.append(f"by the learning curve it takes {needed.examples:,} examples in all (80% interval {ends})")
        return _made("collect examples", f"Collect about {more:,} more examples first", reasons, [_advise(facts)])
    if needed.answer == "out of reach":
        reasons.append(
            f"by the learning curve {TOLD} times the {facts.kept} examples there are do not reach it, nor do many more"
        )
        title = (
            f"Do not fine-tune: the threshold is out of reach for this base model, also with {TOLD} times the examples"
        )
        return _made("do not fine-tune", title, reasons, [_another_base(facts)])
    if needed.answer == "reached":
        reasons.append(
            "by the learning curve a training on all examples reaches it, which the folds do not show surely"
        )
        key = tuned.key if tuned else None  # of what is recommended, never of a cheaper rung that helps more
        told = [*(_beside_the_commonest(facts, tuned) if tuned else ()), *reasons]
        return _made("fine-tune", _TITLES["fine-tune"], told, [_finetune(facts)], key)
    reasons.append("whether more examples would reach it the curve cannot say")
    return _made("collect examples", f"Collect {facts.kept:,} more examples, and ask again", reasons, [_advise(facts)])


def _undecided(facts: Facts, reasons: Sequence[str]) -> Recommendation:
    why = facts.untrained or "no training gave a learning curve"
    outside = [one for one in facts.variants[1:] if facts.bar is not None and one.accuracy >= facts.bar]
    limits = _limits(facts, outside)
    title = f"Nothing cheaper {f'that {limits} ' if limits else ''}reaches the threshold; a fine-tune was not tried"
    mends = (f" {option}" for option in ("--base ALIAS", "--minutes N") if option.split()[0] in why)
    return _made("cannot say", title, [*reasons, f"nothing was trained: {why}"], [_advise(facts, next(mends, ""))])


# ------------------------------------------------------------------------------------------------ words


def _made(
    kind: str, title: str, reasons: Sequence[str], commands: Sequence[str], variant: str | None = None
) -> Recommendation:
    return Recommendation(kind=kind, title=title, reasons=tuple(reasons), next=tuple(commands), variant=variant)


def _finetune(facts: Facts) -> str:
    return f"turnout finetune {facts.called}{facts.options}{facts.local} --watch"


def _another_base(facts: Facts) -> str:
    return f"turnout advise {facts.called} --base ALIAS{facts.local}"


def _advise(facts: Facts, more: str = "") -> str:
    return f"turnout advise {facts.called}{more}{facts.local}"


def _write(facts: Facts) -> str:
    return f"turnout advise --of {facts.advice_id}{facts.local} --write PROMPT_FILE"


def _rate(one: Variant) -> str:
    return f"{one.accuracy:.1%} of {one.total} ({one.ci95[0]:.1%} to {one.ci95[1]:.1%})"


def _paired(one: Variant) -> str:
    if one.paired is None:
        return ""
    return f", {one.paired.mended} mended and {one.paired.broken} broken, p = {one.paired.p_holm:.2g} after Holm"


# ------------------------------------------------------------------------------------------------ break-even


def break_even(variants: Sequence[Variant], training_price_usd: float | None, margin: float) -> tuple[BreakEven, ...]:
    """For each trained variant the cheapest other one that is as good, but for `margin`, and when the training has paid.

    A price that nobody gave leaves it out: there is nothing to compare.
    """
    found = []
    for one in variants:
        rivals = [
            other for other in variants if other.rung not in {*TRAINED, "form"} and other.level >= one.level - margin
        ]
        known = [other for other in rivals if other.spend.cost_per_1k_usd is not None]
        own = one.spend.cost_per_1k_usd
        if one.rung in TRAINED and known and own is not None and training_price_usd is not None:
            rival = min(known, key=lambda other: other.spend.cost_per_1k_usd or 0.0)
            found.append(_against(one, own, rival, training_price_usd))
    return tuple(found)


def _against(one: Variant, own: float, rival: Variant, price_usd: float) -> BreakEven:
    saving = ((rival.spend.cost_per_1k_usd or 0.0) - own) / 1000
    requests = math.ceil(round(price_usd / saving, 6)) if saving > 0 else None
    why = (
        f"${price_usd:.4g} of training over ${saving:.3g} saved a request" if saving > 0 else "a request saves nothing"
    )
    return BreakEven(variant=one.key, against=rival.key, saving_usd=saving, requests=requests, why=why)
