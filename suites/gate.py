"""The verdict: pure functions from the outcomes of two runs to pass, fail, inconclusive or could not run.

With b broken, c mended and n paired cases, in this order: could not run (too many errored cases); fail (a threshold
missed, a `must_pass` case broken, or (b − c)/n > margin with adjusted p_reg = P(Bin(b+c, ½) ≥ b) ≤ α); inconclusive
(n < `min_cases`, or the loss without the significance); pass. A promotion asks for a gain that is shown at its look's
α. Where the gate is on scores the loss is of the mean score, and the paired bootstrap takes the place of the binomial;
which cases are paired, `suites.paired` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter

from prompts.errors import BadInput
from suites.policy import PLAIN_BOUNDS
from suites.standing import judging_doubts
from suites.statistics import alpha_at_look, alpha_left, holm, wilson_interval
from suites.verdicts import (
    GateDecision,
    GateEvidence,
    GateInput,
    PromotionDecision,
    PromotionEvidence,
    ThresholdRow,
    Verdict,
)

if TYPE_CHECKING:
    from suites.paired import Comparison, Tested

Evidence = Annotated[GateEvidence | PromotionEvidence, Field(discriminator="kind")]
_ROUNDING = 1e-12  # (b − c)/n and the margin are decimal fractions: 2 of 100 is not above 0.02


def decide_all(inputs: Sequence[GateInput]) -> list[GateEvidence]:
    """The verdicts of one gate over several suites, their p-values adjusted together (Holm).

    Raises BadInput where one of them has neither baseline nor thresholds.
    """
    compared = [_compared(given) for given in inputs]
    raw = [found.p_loss if found else None for found in compared]
    evidence = []
    for index, (given, found) in enumerate(zip(inputs, compared, strict=True)):
        others = tuple(p for other, p in enumerate(raw) if other != index and p is not None)
        evidence.append(GateEvidence(given=given, others=others, decision=_decide(given, found, others)))
    return evidence


def raw_p_value(given: GateInput) -> float | None:
    """p_reg of one suite before adjustment; None without a baseline, which keeps it out of the family."""
    found = _compared(given)
    return found.p_loss if found else None


def decide(given: GateInput, others: Sequence[float] = ()) -> GateDecision:
    """The verdict on one suite; `others` are the raw p-values of the gate's other suites."""
    return _decide(given, _compared(given), others)


def _compared(given: GateInput) -> Comparison | None:
    """Both sides of a gate; None without a baseline, as of a run, which imports no bootstrap."""
    if given.baseline is None:
        return None
    from suites.paired import compare

    return compare(given)


def _decide(given: GateInput, found: Comparison | None, others: Sequence[float]) -> GateDecision:
    if found is None and not given.thresholds.given():
        raise BadInput(
            f"suite {given.suite}: nothing to decide by: give it `thresholds`, or the gate a baseline", param="baseline"
        )
    p_value = holm([found.p_loss, *others])[0] if found else None
    needed = _cases_needed(given, found, len(others) + 1)
    verdict, reasons = _verdict(given, found, p_value, needed, others)
    return GateDecision(
        suite=given.suite,
        verdict=verdict,
        reasons=tuple(reasons),
        candidate=given.candidate.variant,
        baseline=given.baseline.variant if given.baseline else None,
        **_figures(given, found),
        p_value=p_value,
        cases_needed=needed if verdict == "inconclusive" else None,
    )


def threshold_rows(given: GateInput) -> tuple[ThresholdRow, ...]:
    """Each threshold with the candidate's point estimate; errored cases count as 0, or as not passed."""
    return tuple(_threshold_row(given, name, bound) for name, bound in given.thresholds.given().items())


def _threshold_row(given: GateInput, name: str, bound: float) -> ThresholdRow:
    side = given.candidate
    kind, _, of = name.partition(".")
    value: float | None
    if name in PLAIN_BOUNDS:
        value = getattr(side, name)
    elif kind == "metrics":
        value, _ = side.metric(of)
    else:
        value = side.pass_rate_of(given.tags.get(of, ()))
    if value is None:
        return ThresholdRow(name=name, bound=bound, value=None, met=None)
    met = value <= bound if is_upper_bound(name) else value >= bound - _ROUNDING
    return ThresholdRow(name=name, bound=bound, value=value, met=met)


def is_upper_bound(name: str) -> bool:
    """Whether a threshold of this name is the most that is tolerated, not the least that is asked for."""
    return name in PLAIN_BOUNDS and name != "pass_rate"


def _figures(given: GateInput, found: Comparison | None) -> dict[str, Any]:
    """What both kinds of decision say of the two sides."""
    side, pairs = given.candidate, found.without.pairs if found else None
    return {
        "pass_rate": side.pass_rate,
        "ci95": wilson_interval(side.count("passed"), side.judged) if side.judged else None,
        "baseline_pass_rate": given.baseline.pass_rate if given.baseline else None,
        "thresholds": threshold_rows(given),
        "paired": pairs.paired if pairs else 0,
        "newly_broken": pairs.broken if pairs else (),
        "newly_mended": pairs.mended if pairs else (),
        "quarantined": found.quarantined if found else (),
        "scores": found.without.scores if found else None,
    }


def _verdict(
    given: GateInput, found: Comparison | None, p_value: float | None, needed: int | None, others: Sequence[float]
) -> tuple[Verdict, list[str]]:
    rules: tuple[tuple[Verdict, Iterator[str]], ...] = (
        ("could_not_run", _obstacles(given)),
        ("fail", _failures(given, found, p_value)),
        ("inconclusive", _doubts(given, found, p_value, needed, others)),
    )
    for verdict, rule in rules:
        reasons = list(rule)
        if reasons:
            return verdict, reasons
    return "pass", [_passed_in_words(given, found, p_value)]


def _obstacles(given: GateInput) -> Iterator[str]:
    """Why a side's run cannot be judged."""
    for role, side in (("candidate", given.candidate), ("baseline", given.baseline)):
        if side is None:
            continue
        errored, allowed = side.count("errored"), given.settings.max_error_share
        if side.stopped:
            yield f"the {role}'s run stopped early: {side.stopped}"
        if not (side.judged or side.waiting or side.set_aside):
            yield f"the {role} has no judged case"
        elif side.judged and errored / side.judged > allowed + _ROUNDING:
            share = f"{errored} of {side.judged} cases errored ({errored / side.judged:.1%})"
            yield f"the {role}: {share}, more than the {allowed:.1%} allowed"
    for row in threshold_rows(given):
        if row.met is None and given.candidate.judged:
            yield f"{row.name} is unknown, and its threshold is {row.bound:g}"


def _failures(given: GateInput, found: Comparison | None, p_value: float | None) -> Iterator[str]:
    yield from _missed(given)
    yield from _must_pass_broken(given)
    if found is not None and p_value is not None and _is_lost(given, found) and p_value <= given.settings.alpha:
        alpha = given.settings.alpha
        yield f"regression: {_loss_in_words(given, found)}, p = {p_value:.2g} ≤ {alpha:g}{_counted(found)}"


def _is_lost(given: GateInput, found: Comparison) -> bool:
    return found.loss > given.settings.margin + _ROUNDING


def _loss_in_words(given: GateInput, found: Comparison) -> str:
    loss, margin = found.without.loss, given.settings.margin
    return f"{_in_words(found)}, a loss of {_amount(given, loss)} (margin {_amount(given, margin)})"


def _amount(given: GateInput, share: float) -> str:
    return f"{share:z.3f}" if given.settings.on == "score" else f"{share:z.1%}"  # z: never "-0.0%"


def _in_words(found: Comparison) -> str:
    """What both sides came to, case by case, and how many cases were left out of that."""
    left_out = f", {len(found.quarantined)} flaky on the baseline left out" if found.quarantined else ""
    return _tested_in_words(found.without) + left_out


def _tested_in_words(tested: Tested) -> str:
    pairs, scores = tested.pairs, tested.scores
    if scores is None:
        return f"{len(pairs.broken)} broken and {len(pairs.mended)} mended of {pairs.paired} paired cases"
    interval = f"difference {scores.difference:+.3f}, 95% {scores.ci95[0]:+.3f} to {scores.ci95[1]:+.3f}"
    means = f"mean score {scores.candidate:.3f} against {scores.baseline:.3f}"
    return f"{means} over {pairs.paired} paired cases ({interval})"


def _missed(given: GateInput) -> Iterator[str]:
    for row in threshold_rows(given):
        if row.met is False:
            sign = ">" if is_upper_bound(row.name) else "<"
            yield f"{row.name} {row.shown} {sign} {row.bound:g}{_zeros(given, row.name)}"


def _zeros(given: GateInput, name: str) -> str:
    """How many of a metric's cases count as 0 because they errored."""
    errored = given.candidate.metric(name.removeprefix("metrics."))[1] if name.startswith("metrics.") else 0
    return f" ({errored} of its cases errored and count as 0)" if errored else ""


def _must_pass_broken(given: GateInput) -> Iterator[str]:
    """A `must_pass` case fails where the baseline passed it, or has not been asked it."""
    before = given.baseline.outcomes if given.baseline else {}
    for case_id in given.must_pass:
        status = given.candidate.outcomes.get(case_id, "skipped")
        if status in ("failed", "errored") and before.get(case_id, "skipped") in ("passed", "skipped"):
            yield f"must_pass case {case_id} {status}"


def _doubts(
    given: GateInput, found: Comparison | None, p_value: float | None, needed: int | None, others: Sequence[float]
) -> Iterator[str]:
    settings = given.settings
    cases = found.without.pairs.paired if found else given.candidate.judged
    more = f"; about {needed} cases would decide" if needed else ""
    if cases < settings.min_cases:
        what = "paired with the baseline" if found else "judged"
        yield f"{cases} cases {what}, fewer than min_cases {settings.min_cases}{more}"
    if found is not None and p_value is not None and _is_lost(given, found):
        yield f"{_loss_in_words(given, found)}, but p = {p_value:.2g} > {settings.alpha:g}{_counted(found)}{more}"
    if found is not None:
        from suites.flaky import flaky_doubts

        yield from flaky_doubts(given, found.quarantined, found.every.pairs.paired, settings.alpha / (len(others) + 1))
    yield from judging_doubts(given)
    skipped = [i for i in given.must_pass if given.candidate.outcomes.get(i, "skipped") == "skipped"]
    if skipped:
        yield f"{len(skipped)} must_pass cases were not asked, the first {skipped[0]}"


def _counted(found: Comparison) -> str:
    """What every case says, where some are quarantined: a claim must hold for these, too."""
    return f" (flaky cases counted: {_tested_in_words(found.every)})" if found.quarantined else ""


def _cases_needed(given: GateInput, found: Comparison | None, suites: int) -> int | None:
    """Cases that would show the loss that was seen, at the α that Holm leaves the smallest p-value of `suites`."""
    settings = given.settings
    needed, cases = None, given.candidate.judged
    if found is not None:
        cases = found.without.pairs.paired
        needed = found.doubtful.cases_to_show(settings.alpha / suites) if _is_lost(given, found) else None
    if needed is not None:
        return max(needed, settings.min_cases, cases + 1)
    return settings.min_cases if cases < settings.min_cases else None


def _passed_in_words(given: GateInput, found: Comparison | None, p_value: float | None) -> str:
    side = given.candidate
    text = f"{side.count('passed')} of {side.judged} cases passed"
    if given.thresholds.given():
        text += ", thresholds met"
    if found is not None:
        text += f"; {_in_words(found)}, p = {p_value:.2g}"
    return text


def decide_promotion(given: GateInput, look: int) -> PromotionDecision:
    """Whether the candidate takes the baseline's traffic, at the `look`-th look at this held-out set.

    Raises BadInput without a baseline: traffic is only ever taken from another variant.
    """
    found = _compared(given)
    if given.baseline is None or found is None:
        raise BadInput(f"suite {given.suite}: a promotion needs a baseline to be better than", param="baseline")
    alpha = alpha_at_look(given.settings.alpha, look)
    verdict, reasons = _promotion_verdict(given, found, alpha)
    return PromotionDecision(
        suite=given.suite,
        promote=verdict == "pass",
        verdict=verdict,
        reasons=tuple(reasons),
        candidate=given.candidate.variant,
        baseline=given.baseline.variant,
        **_figures(given, found),
        p_value=found.p_gain,
        look=look,
        alpha_look=alpha,
        alpha_left=alpha_left(given.settings.alpha, look),
    )


def promotion_evidence(given: GateInput, look: int) -> PromotionEvidence:
    """The decision with all it follows from."""
    return PromotionEvidence(given=given, look=look, decision=decide_promotion(given, look))


def _promotion_verdict(given: GateInput, found: Comparison, alpha: float) -> tuple[Verdict, list[str]]:
    rules: tuple[tuple[Verdict, Iterator[str]], ...] = (
        ("could_not_run", _obstacles(given)),
        ("fail", _promotion_failures(given)),
        ("inconclusive", _promotion_doubts(given, found, alpha)),
    )
    for verdict, rule in rules:
        reasons = list(rule)
        if reasons:
            return verdict, reasons
    gain = _amount(given, -found.without.loss)
    return "pass", [f"{_in_words(found)}, a gain of {gain}, p = {found.p_gain:.2g} ≤ {alpha:.2g}"]


def _promotion_failures(given: GateInput) -> Iterator[str]:
    yield from _missed(given)
    yield from _must_pass_broken(given)


def _promotion_doubts(given: GateInput, found: Comparison, alpha: float) -> Iterator[str]:
    settings, gain = given.settings, found.gain
    paired = found.without.pairs.paired
    if paired < settings.min_cases:
        yield f"{paired} cases paired with the baseline, fewer than min_cases {settings.min_cases}"
    if gain < settings.margin - _ROUNDING:
        bound = f"the margin of {_amount(given, settings.margin)}"
        yield f"{_in_words(found)}: a gain of {_amount(given, gain)} is below {bound}{_counted(found)}"
    if found.p_gain > alpha:
        told = f"the gain is not shown, p = {found.p_gain:.2g} > {alpha:.2g} at this look"
        yield f"{_in_words(found)}: {told}{_counted(found)}"
    elif (certain := _p_gain_without_baseline_errors(given)) > alpha:
        yield f"the gain rests on cases on which the baseline errored; without them p = {certain:.2g} > {alpha:.2g}"
    from suites.flaky import flaky_doubts

    yield from flaky_doubts(given, found.quarantined, found.every.pairs.paired, settings.alpha)
    yield from judging_doubts(given)
    if any(given.candidate.outcomes.get(i, "skipped") == "skipped" for i in given.must_pass):
        yield "not every must_pass case was asked"


def _p_gain_without_baseline_errors(given: GateInput) -> float:
    """An outage of the baseline during its run is no merit of the candidate."""
    if given.baseline is None or "errored" not in given.baseline.outcomes.values():
        return 0.0
    from suites.paired import paired_ids, paired_test

    outcomes = given.baseline.outcomes
    asked = [i for i in paired_ids(given.candidate, given.baseline) if outcomes[i] != "errored"]
    return paired_test(given, given.baseline, asked).p_gain


def read_evidence(data: Any) -> GateEvidence | PromotionEvidence:
    """Stored evidence, from plain data; raises BadInput where it is none."""
    try:
        adapter: TypeAdapter[GateEvidence | PromotionEvidence] = TypeAdapter(Evidence)
        return adapter.validate_python(data)
    except ValueError as error:
        raise BadInput(f"this is no evidence of a gate or a promotion: {error}") from error


def recompute(evidence: GateEvidence | PromotionEvidence) -> GateDecision | PromotionDecision:
    """The decision anew from what it follows from: equal to `evidence.decision`, or that was tampered with."""
    if isinstance(evidence, PromotionEvidence):
        return decide_promotion(evidence.given, evidence.look)
    return decide(evidence.given, evidence.others)
