"""One answer to one case: every assertion, the weighted score, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from suites.assertions import AssertionErrored, AssertionSpec, Outcome, Output, evaluate
from suites.case import Case

Status = Literal["passed", "failed", "errored", "skipped"]


@dataclass(frozen=True, slots=True)
class Judged:
    """What one assertion of a case came to; an errored one has no score."""

    type: str
    metric: str | None
    weight: float
    status: Status
    score: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a case came to: `score` is the weighted mean of its assertions', None where one of them errored."""

    status: Status
    score: float | None
    outcomes: tuple[Judged, ...] = ()
    error: str = ""


def judge(case: Case, output: Output) -> Judgement:
    """Judge `output` by all assertions of `case`.

    An assertion that cannot be judged makes the case errored: it is neither a failure nor absent. Without a threshold
    every assertion with a weight must hold; with one the weighted score must reach it.
    """
    outcomes = tuple(_judge_one(output, spec) for spec in case.filled_asserts())
    errors = [outcome.reason for outcome in outcomes if outcome.status == "errored"]
    if errors:
        return Judgement("errored", None, outcomes, errors[0])
    score = _weighted_score(outcomes)
    if case.threshold is not None:
        passed = score >= case.threshold - 1e-9  # a score of three tenths must reach a threshold of 0.3
    else:
        passed = all(outcome.status == "passed" or outcome.weight == 0 for outcome in outcomes)
    return Judgement("passed" if passed else "failed", score, outcomes)


def _judge_one(output: Output, spec: AssertionSpec) -> Judged:
    try:
        found: Outcome = evaluate(output, spec)
    except AssertionErrored as error:
        return Judged(spec.type, spec.metric, spec.weight, "errored", None, str(error))
    return Judged(
        spec.type, spec.metric, spec.weight, "passed" if found.passed else "failed", found.score, found.reason
    )


def _weighted_score(outcomes: tuple[Judged, ...]) -> float:
    weight = sum(outcome.weight for outcome in outcomes)
    if weight == 0:
        return 1.0
    return sum(outcome.weight * (outcome.score or 0.0) for outcome in outcomes) / weight
