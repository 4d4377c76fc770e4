"""Whether a rollout goes a step on, back, or waits: pure, from counts to a verdict. What is stored recomputes to the same.

A unit is a person (by what keeps them on a variant), counted by its first outcome in a step, or one request of nobody in
particular. The tests are those of `suites.eprocess`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from prompts.errors import BadInput
from suites.eprocess import broken_split, harm, no_harm

Verdict = Literal["promote", "roll_back", "pause", "go_on"]
PROMOTE_AT = 20.0
SPLIT_AT = 1000.0
STARVED = 1e-6  # of a gap between units of one arm: how likely chance may make one as long
MOST_UNITS = 200_000  # of one step: more are not counted, so that a step's memory is bounded

_Whole = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rules(_Part):
    """What a rollout is judged by, fixed when it begins.

    `margin` is by how much the candidate's share of bad outcomes may exceed the incumbent's (0.02: two points). An
    answer that takes longer than `latency_budget_ms` is bad; None for no budget. A step is left with at least
    `min_units` of each variant and `min_step_s` seconds, which is also the time that a request has to be counted before the
    sample ratio is judged by it. A step in which nothing comes for `silence_s` waits. Feedback
    counts under these metrics: a score below one half is bad, and so is a correction.
    """

    margin: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    latency_budget_ms: Annotated[float, Field(gt=0)] | None = None
    min_units: Annotated[int, Field(ge=1, le=MOST_UNITS // 10)] = 100
    min_step_s: Annotated[float, Field(ge=0, le=30 * 86_400)] = 60.0
    silence_s: Annotated[float, Field(gt=0, le=30 * 86_400)] = 600.0
    feedback_metrics: Annotated[tuple[str, ...], Field(max_length=20)] = ("rating",)


class Tally(_Part):
    """Units of one variant by their outcome."""

    good: _Whole = 0
    bad: _Whole = 0

    @property
    def units(self) -> int:
        return self.good + self.bad


class Arm(Tally):
    """All of them, and how many units of the other variant came since the last one."""

    others_since: _Whole = 0


class StepInput(_Part):
    """All that a verdict on one step follows from.

    `share` is the candidate's, in percent. Units are `settled` when they came so long ago that the slowest answer so far
    would be there: only then is what fast variants have, and slow ones not yet, fair to compare. `split` are the units of
    the candidate and of the incumbent that came at least `min_step_s` ago, too. `bad_blocks` are bad outcomes in the order
    in which they were written, as counts of (candidate, incumbent), `suites.eprocess.block_size` a block. `paused` is why a
    person holds the rollout; `is_split_broken` whether the sample ratio was found broken before.
    """

    candidate: str
    incumbent: str
    step: _Whole
    steps: tuple[int, ...]
    share: Annotated[float, Field(gt=0, lt=100)]
    rules: Rules
    candidate_units: Arm
    incumbent_units: Arm
    candidate_settled: Tally
    incumbent_settled: Tally
    split: tuple[_Whole, _Whole]
    bad_blocks: tuple[tuple[_Whole, _Whole], ...] = ()
    seconds: Annotated[float, Field(ge=0)] = 0.0
    silent_s: Annotated[float, Field(ge=0)] = 0.0
    paused: str | None = None
    is_split_broken: bool = False


class StepDecision(_Part):
    """The verdict, why in words, and the three e-values with what each must reach."""

    verdict: Verdict
    reason: str
    e_promote: float
    promote_at: float
    e_roll_back: float
    roll_back_at: float
    e_split: float
    split_at: float
    is_split_broken: bool


def decide_step(given: StepInput) -> StepDecision:
    """Harm comes first: traffic goes back whatever else is the matter. Whatever is in doubt only ever stops a promotion."""
    share, new, old = given.share / 100, given.candidate_settled, given.incumbent_settled
    e_split = broken_split(*given.split, share)
    is_broken = given.is_split_broken or (e_split >= SPLIT_AT and _starved(given) is None)
    figures = {
        "e_promote": no_harm((new.good, new.bad), (old.good, old.bad), share, given.rules.margin),
        "promote_at": PROMOTE_AT,
        "e_roll_back": harm(given.bad_blocks, _share_seen(given) if is_broken else share),
        "roll_back_at": PROMOTE_AT * max(1, len(given.steps) - 1),
        "e_split": e_split,
        "split_at": SPLIT_AT,
    }
    verdict, reason = _verdict(given, figures, is_broken)
    return StepDecision(verdict=verdict, reason=reason, is_split_broken=is_broken, **figures)


def _share_seen(given: StepInput) -> float:
    """Where the split is broken, a candidate that gets more than its share is not blamed for that."""
    return min(max(given.share / 100, given.split[0] / max(1, sum(given.split))), 0.999)


def _verdict(given: StepInput, figures: dict[str, float], is_broken: bool) -> tuple[Verdict, str]:
    if figures["e_roll_back"] >= figures["roll_back_at"]:
        return "roll_back", f"clear harm: {_rates(given)}"
    if given.paused is not None:
        return "pause", given.paused
    if is_broken:
        return "pause", f"sample ratio: {_ratio(given)}; look for requests that are lost or asked twice, then resume"
    if doubt := _doubt(given):
        return "pause", doubt
    if lacking := _lacking(given):
        return "go_on", lacking
    if figures["e_promote"] >= figures["promote_at"]:
        return "promote", f"no worse by {given.rules.margin:g}: {_rates(given)}"
    return "go_on", f"the evidence does not decide yet: {_rates(given)}"


def _doubt(given: StepInput) -> str | None:
    if given.silent_s >= given.rules.silence_s:
        return f"silence: nothing was asked for {given.silent_s:.0f} s"
    if given.candidate_units.units + given.incumbent_units.units >= MOST_UNITS:
        return f"{MOST_UNITS} units did not decide: promote or abort by hand"
    return _starved(given)


def _starved(given: StepInput) -> str | None:
    """Of two variants one that has had no outcome for so long that it may be hanging; outcomes that come end it."""
    candidate, incumbent, share = given.candidate_units, given.incumbent_units, given.share / 100
    if (1 - share) ** candidate.others_since < STARVED:
        return f"starved: {candidate.others_since} outcomes of the incumbent since the candidate's last"
    if share**incumbent.others_since < STARVED:
        return f"starved: {incumbent.others_since} outcomes of the candidate since the incumbent's last"
    return None


def _lacking(given: StepInput) -> str | None:
    least = min(given.candidate_settled.units, given.incumbent_settled.units)
    if least < given.rules.min_units:
        return f"{least} of {given.rules.min_units} units a variant"
    if given.seconds < given.rules.min_step_s:
        return f"{given.seconds:.0f} of {given.rules.min_step_s:g} seconds"
    return None


def _rates(given: StepInput) -> str:
    arms = (("the candidate", given.candidate_units), ("the incumbent", given.incumbent_units))
    return ", ".join(f"{arm.bad} of {arm.units} bad with {name}" for name, arm in arms)


def _ratio(given: StepInput) -> str:
    return f"{given.split[0]} of {sum(given.split)} units are the candidate's, whose share is {given.share:g}%"


class Attempt(_Part):
    """One request to the candidate after it has got all the traffic: `status` as the request log has it."""

    status: str
    error: str | None = None


class VerificationInput(_Part):
    """What came of asking. `unasked` is why it could not be asked at all: nobody knows variables that it takes."""

    candidate: str
    attempts: tuple[Attempt, ...] = ()
    unasked: str | None = None


class VerificationDecision(_Part):
    verdict: Literal["verified", "unverified", "roll_back"]
    reason: str


def decide_verification(given: VerificationInput) -> VerificationDecision:
    """One answer is enough; a candidate that answers nothing loses the traffic, one that could not be asked keeps it."""
    if any(attempt.status == "ok" for attempt in given.attempts):
        return VerificationDecision(verdict="verified", reason="the candidate answered a request of ours")
    if not given.attempts:
        return VerificationDecision(verdict="unverified", reason=f"not asked: {given.unasked}")
    told = given.attempts[-1].error or given.attempts[-1].status
    return VerificationDecision(
        verdict="roll_back", reason=f"after the promotion {len(given.attempts)} requests of ours failed: {told}"
    )


def recompute_rollout(content: Mapping[str, Any]) -> StepDecision | VerificationDecision:
    """The decision of stored evidence anew; raises BadInput where its input cannot be read."""
    try:
        if content["about"] == "verification":
            return decide_verification(VerificationInput.model_validate(content["given"]))
        return decide_step(StepInput.model_validate(content["given"]))
    except (KeyError, TypeError, ArithmeticError, ValueError) as error:  # pydantic's is a ValueError
        raise BadInput(f"no rollout's input: {error}") from error
