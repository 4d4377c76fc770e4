"""The verdict: pure functions from the outcomes of two runs to pass, fail, inconclusive or could not run.

With b broken, c mended and n paired cases, in this order: could not run (too many errored cases); fail (a threshold
missed, a `must_pass` case broken, or (b − c)/n > margin with adjusted p_reg = P(Bin(b+c, ½) ≥ b) ≤ α); inconclusive
(n < min_cases, or the loss without the significance); pass. A promotion asks for a gain that is shown at its look's α.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from prompts.errors import BadInput
from suites.statistics import alpha_at_look, alpha_left, cases_to_decide, holm, mcnemar_p, wilson_interval
from suites.verdicts import (
    GateDecision,
    GateEvidence,
    GateInput,
    Pairs,
    PromotionDecision,
    PromotionEvidence,
    Side,
    ThresholdRow,
    Verdict,
)

Evidence = Annotated[GateEvidence | PromotionEvidence, Field(discriminator="kind")]
_ROUNDING = 1e-12  # (b − c)/n and the margin are decimal fractions: 2 of 100 is not above 0.02


def decide_all(inputs: Sequence[GateInput]) -> list[GateEvidence]:
    """The verdicts of one gate over several suites, their p-values adjusted together (Holm).

    Raises BadInput where one of them has neither baseline nor thresholds.
    """
    raw = [raw_p_value(given) for given in inputs]
    evidence = []
    for index, given in enumerate(inputs):
        others = tuple(p for other, p in enumerate(raw) if other != index and p is not None)
        evidence.append(GateEvidence(given=given, others=others, decision=decide(given, others)))
    return evidence


def raw_p_value(given: GateInput) -> float | None:
    """p_reg of one suite before adjustment; None without a baseline, which keeps it out of the family."""
    if given.baseline is None:
        return None
    pairs = pair(given.candidate, given.baseline)
    return mcnemar_p(len(pairs.broken), len(pairs.mended))


def decide(given: GateInput, others: Sequence[float] = ()) -> GateDecision:
    """The verdict on one suite; `others` are the raw p-values of the gate's other suites."""
    if given.baseline is None and not given.thresholds.given():
        raise BadInput(
            f"suite {given.suite}: nothing to decide by: give it `thresholds`, or the gate a baseline", param="baseline"
        )
    pairs = pair(given.candidate, given.baseline)
    p_value = _adjusted(raw_p_value(given), others)
    needed = _cases_needed(given, pairs, len(others) + 1)
    verdict, reasons = _verdict(given, pairs, p_value, needed)
    return GateDecision(
        suite=given.suite,
        verdict=verdict,
        reasons=tuple(reasons),
        candidate=given.candidate.variant,
        baseline=given.baseline.variant if given.baseline else None,
        **_rates(given),
        paired=pairs.paired,
        newly_broken=pairs.broken,
        newly_mended=pairs.mended,
        p_value=p_value,
        cases_needed=needed if verdict == "inconclusive" else None,
    )


def pair(candidate: Side, baseline: Side | None) -> Pairs:
    """Pair the sides by case id. Sorted by it, so that evidence says the same however it was stored."""
    before = baseline.outcomes if baseline else {}
    both = [
        case_id
        for case_id, status in sorted(candidate.outcomes.items())
        if status != "skipped" and before.get(case_id, "skipped") != "skipped"
    ]
    now = candidate.outcomes
    return Pairs(
        paired=len(both),
        broken=tuple(i for i in both if before[i] == "passed" and now[i] != "passed"),
        mended=tuple(i for i in both if before[i] != "passed" and now[i] == "passed"),
    )


def threshold_rows(given: GateInput) -> tuple[ThresholdRow, ...]:
    """Each threshold with the candidate's point estimate."""
    side = given.candidate
    rows = []
    for name, bound in given.thresholds.given().items():
        value: float | None = getattr(side, name)
        met = None if value is None else (value >= bound if name == "pass_rate" else value <= bound)
        rows.append(ThresholdRow(name=name, bound=bound, value=value, met=met))
    return tuple(rows)


def _adjusted(raw: float | None, others: Sequence[float]) -> float | None:
    return None if raw is None else holm([raw, *others])[0]


def _rates(given: GateInput) -> dict[str, Any]:
    side = given.candidate
    return {
        "pass_rate": side.pass_rate,
        "ci95": wilson_interval(side.count("passed"), side.judged) if side.judged else None,
        "baseline_pass_rate": given.baseline.pass_rate if given.baseline else None,
        "thresholds": threshold_rows(given),
    }


def _verdict(given: GateInput, pairs: Pairs, p_value: float | None, needed: int | None) -> tuple[Verdict, list[str]]:
    rules: tuple[tuple[Verdict, Iterator[str]], ...] = (
        ("could_not_run", _obstacles(given)),
        ("fail", _failures(given, pairs, p_value)),
        ("inconclusive", _doubts(given, pairs, p_value, needed)),
    )
    for verdict, reasons in rules:
        found = list(reasons)
        if found:
            return verdict, found
    return "pass", [_passed_in_words(given, pairs, p_value)]


def _obstacles(given: GateInput) -> Iterator[str]:
    """Why a side's run cannot be judged."""
    for role, side in (("candidate", given.candidate), ("baseline", given.baseline)):
        if side is None:
            continue
        errored, allowed = side.count("errored"), given.settings.max_error_share
        if side.stopped:
            yield f"the {role}'s run stopped early: {side.stopped}"
        if not side.judged:
            yield f"the {role} has no judged case"
        elif errored / side.judged > allowed + _ROUNDING:
            share = f"{errored} of {side.judged} cases errored ({errored / side.judged:.1%})"
            yield f"the {role}: {share}, more than the {allowed:.1%} allowed"
    for row in threshold_rows(given):
        if row.met is None and given.candidate.judged:
            yield f"{row.name} is unknown, and its threshold is {row.bound:g}"


def _failures(given: GateInput, pairs: Pairs, p_value: float | None) -> Iterator[str]:
    yield from _missed(given)
    yield from _must_pass_broken(given)
    margin, alpha = given.settings.margin, given.settings.alpha
    if p_value is not None and pairs.loss > margin + _ROUNDING and p_value <= alpha:
        yield (
            f"regression: {_counts(pairs)}, a loss of {pairs.loss:.1%} (margin {margin:.1%}),"
            f" p = {p_value:.2g} ≤ {alpha:g}"
        )


def _missed(given: GateInput) -> Iterator[str]:
    for row in threshold_rows(given):
        if row.met is False:
            sign = "<" if row.name == "pass_rate" else ">"
            yield f"{row.name} {row.value:.6g} {sign} {row.bound:g}"


def _must_pass_broken(given: GateInput) -> Iterator[str]:
    """A `must_pass` case fails where the baseline passed it, or has not been asked it."""
    before = given.baseline.outcomes if given.baseline else {}
    for case_id in given.must_pass:
        status = given.candidate.outcomes.get(case_id, "skipped")
        if status in ("failed", "errored") and before.get(case_id, "skipped") in ("passed", "skipped"):
            yield f"must_pass case {case_id} {status}"


def _doubts(given: GateInput, pairs: Pairs, p_value: float | None, needed: int | None) -> Iterator[str]:
    settings = given.settings
    cases = pairs.paired if given.baseline else given.candidate.judged
    more = f"; about {needed} cases would decide" if needed else ""
    if cases < settings.min_cases:
        what = "paired with the baseline" if given.baseline else "judged"
        yield f"{cases} cases {what}, fewer than min_cases {settings.min_cases}{more}"
    if p_value is not None and pairs.loss > settings.margin + _ROUNDING:
        yield (
            f"{_counts(pairs)}, a loss of {pairs.loss:.1%} (margin {settings.margin:.1%}),"
            f" but p = {p_value:.2g} > {settings.alpha:g}{more}"
        )
    skipped = [i for i in given.must_pass if given.candidate.outcomes.get(i, "skipped") == "skipped"]
    if skipped:
        yield f"{len(skipped)} must_pass cases were not asked, the first {skipped[0]}"


def _cases_needed(given: GateInput, pairs: Pairs, suites: int) -> int | None:
    """Cases that would show the loss that was seen, at the α that Holm leaves the smallest p-value of `suites`."""
    settings = given.settings
    lost = pairs.loss > settings.margin + _ROUNDING
    alpha = settings.alpha / suites
    needed = cases_to_decide(len(pairs.broken), len(pairs.mended), pairs.paired, alpha) if lost else None
    if needed is not None:
        return max(needed, settings.min_cases, pairs.paired + 1)
    cases = pairs.paired if given.baseline else given.candidate.judged
    return settings.min_cases if cases < settings.min_cases else None


def _counts(pairs: Pairs) -> str:
    return f"{len(pairs.broken)} broken and {len(pairs.mended)} mended of {pairs.paired} paired cases"


def _passed_in_words(given: GateInput, pairs: Pairs, p_value: float | None) -> str:
    side = given.candidate
    text = f"{side.count('passed')} of {side.judged} cases passed"
    if given.thresholds.given():
        text += ", thresholds met"
    if p_value is not None:
        text += f"; {_counts(pairs)}, p = {p_value:.2g}"
    return text


def decide_promotion(given: GateInput, look: int) -> PromotionDecision:
    """Whether the candidate takes the baseline's traffic, at the `look`-th look at this held-out set.

    Raises BadInput without a baseline: traffic is only ever taken from another variant.
    """
    if given.baseline is None:
        raise BadInput(f"suite {given.suite}: a promotion needs a baseline to be better than", param="baseline")
    pairs = pair(given.candidate, given.baseline)
    alpha, p_value = alpha_at_look(given.settings.alpha, look), _gain_p(pairs)
    verdict, reasons = _promotion_verdict(given, pairs, alpha)
    return PromotionDecision(
        suite=given.suite,
        promote=verdict == "pass",
        verdict=verdict,
        reasons=tuple(reasons),
        candidate=given.candidate.variant,
        baseline=given.baseline.variant,
        **_rates(given),
        paired=pairs.paired,
        newly_broken=pairs.broken,
        newly_mended=pairs.mended,
        p_value=p_value,
        look=look,
        alpha_look=alpha,
        alpha_left=alpha_left(given.settings.alpha, look),
    )


def promotion_evidence(given: GateInput, look: int) -> PromotionEvidence:
    """The decision with all it follows from."""
    return PromotionEvidence(given=given, look=look, decision=decide_promotion(given, look))


def _gain_p(pairs: Pairs) -> float:
    return mcnemar_p(len(pairs.mended), len(pairs.broken))


def _promotion_verdict(given: GateInput, pairs: Pairs, alpha: float) -> tuple[Verdict, list[str]]:
    rules: tuple[tuple[Verdict, Iterator[str]], ...] = (
        ("could_not_run", _obstacles(given)),
        ("fail", _promotion_failures(given)),
        ("inconclusive", _promotion_doubts(given, pairs, alpha)),
    )
    for verdict, reasons in rules:
        found = list(reasons)
        if found:
            return verdict, found
    return "pass", [f"{_counts(pairs)}, a gain of {-pairs.loss:.1%}, p = {_gain_p(pairs):.2g} ≤ {alpha:.2g}"]


def _promotion_failures(given: GateInput) -> Iterator[str]:
    yield from _missed(given)
    yield from _must_pass_broken(given)


def _promotion_doubts(given: GateInput, pairs: Pairs, alpha: float) -> Iterator[str]:
    settings, p_value = given.settings, _gain_p(pairs)
    if pairs.paired < settings.min_cases:
        yield f"{pairs.paired} cases paired with the baseline, fewer than min_cases {settings.min_cases}"
    if -pairs.loss < settings.margin - _ROUNDING:
        yield f"{_counts(pairs)}: a gain of {-pairs.loss:.1%} is below the margin of {settings.margin:.1%}"
    if p_value > alpha:
        yield f"{_counts(pairs)}: the gain is not shown, p = {p_value:.2g} > {alpha:.2g} at this look"
    elif (certain := _gain_p(_without_baseline_errors(given, pairs))) > alpha:
        yield f"the gain rests on cases on which the baseline errored; without them p = {certain:.2g} > {alpha:.2g}"
    if any(given.candidate.outcomes.get(i, "skipped") == "skipped" for i in given.must_pass):
        yield "not every must_pass case was asked"


def _without_baseline_errors(given: GateInput, pairs: Pairs) -> Pairs:
    """An outage of the baseline during its run is no merit of the candidate."""
    before = given.baseline.outcomes if given.baseline else {}
    return pairs.model_copy(update={"mended": tuple(i for i in pairs.mended if before[i] != "errored")})


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
