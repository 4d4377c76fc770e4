"""One answer to one case: every assertion, the weighted score, and what it comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from suites.assertions import (
    ASSERT_SET,
    AssertionErrored,
    AssertionSpec,
    AssertionWaits,
    Outcome,
    Scene,
    assess,
    transformed,
    version_of,
)
from suites.case import Case

Status = Literal["passed", "failed", "errored", "skipped"]


@dataclass(frozen=True, slots=True)
class Judged:
    """What one assertion of a case came to; an errored one has no score, nor has a skipped one, which waits for people.

    `parts` are the members of an `assert-set`, or what a script reports beside its own outcome.

    `version` is that of the assertion's type: it counts changes of what it says.
    """

    type: str
    metric: str | None
    weight: float
    status: Status
    score: float | None
    reason: str
    version: int = 1
    parts: tuple[Judged, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        data = {name: getattr(self, name) for name in _FIELDS}
        return {**data, "parts": [part.as_dict() for part in self.parts]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Judged:
        """The outcome that `as_dict` was taken from."""
        return cls(**{**data, "parts": tuple(cls.from_dict(part) for part in data.get("parts", ()))})

    def walk(self) -> Iterator[Judged]:
        """This outcome and all within it."""
        yield self
        for part in self.parts:
            yield from part.walk()


_FIELDS = tuple(field.name for field in fields(Judged))


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a case came to: `score` is the weighted mean of its assertions', None where one of them errored."""

    status: Status
    score: float | None
    outcomes: tuple[Judged, ...] = ()
    error: str = ""


async def judge(case: Case, scene: Scene) -> Judgement:
    """Judge the answer of `scene` by all assertions of `case`.

    An assertion that cannot be judged makes the case errored: it is neither a failure nor absent. One that waits for
    people, and has a weight, makes it skipped. Without a threshold every assertion with a weight must hold; with one the
    weighted score must reach it.
    """
    if case.options.transform is not None:
        try:
            scene = await transformed(scene, case.options.transform)
        except AssertionErrored as error:
            return Judgement("errored", None, tuple(_errored(spec, str(error)) for spec in case.asserts), str(error))
    outcomes = tuple([await _judge_one(scene, spec) for spec in case.filled_asserts()])
    errors = [outcome.reason for outcome in outcomes if outcome.status == "errored"]
    if errors:
        return Judgement("errored", None, outcomes, errors[0])
    waiting = _waiting(outcomes)
    if waiting:
        return Judgement("skipped", None, outcomes, waiting[0])
    status, score = _weighed(outcomes, case.threshold)
    return Judgement(status, score, outcomes)


def _waiting(outcomes: Sequence[Judged]) -> list[str]:
    """What those say that wait for people and whose score is needed."""
    return [outcome.reason for outcome in outcomes if outcome.status == "skipped" and outcome.weight > 0]


async def _judge_one(scene: Scene, spec: AssertionSpec) -> Judged:
    if spec.type == ASSERT_SET:
        return await _judge_set(scene, spec)
    try:
        found = await assess(scene, spec)
    except AssertionErrored as error:
        return _errored(spec, str(error))
    except AssertionWaits as error:
        return replace(_errored(spec, str(error)), status="skipped")
    return _reported(spec, found, spec.metric, spec.weight)


def _errored(spec: AssertionSpec, reason: str) -> Judged:
    return Judged(spec.type, spec.metric, spec.weight, "errored", None, reason, version_of(spec.type))


def _reported(spec: AssertionSpec, found: Outcome, metric: str | None, weight: float) -> Judged:
    """An outcome, with all that a script reports within it."""
    status: Status = "passed" if found.passed else "failed"
    parts = tuple(_reported(spec, part, part.metric, 1.0) for part in found.parts) if found.parts else ()
    return Judged(spec.type, metric, weight, status, found.score, found.reason, version_of(spec.type), parts)


async def _judge_set(scene: Scene, spec: AssertionSpec) -> Judged:
    parts = tuple([await _judge_one(scene, part) for part in spec.asserts])
    judged = Judged(spec.type, spec.metric, spec.weight, "errored", None, "", version_of(spec.type), parts)
    errors = [part.reason for part in parts if part.status == "errored"]
    if errors:
        return replace(judged, reason=errors[0])
    waiting = _waiting(parts)
    if waiting:
        return replace(judged, status="skipped", reason=waiting[0])
    status, score = _weighed(parts, spec.threshold)
    missed = [f"{part.type}: {part.reason}" for part in parts if part.status == "failed"]
    reason = f"{len(parts) - len(missed)} of {len(parts)} hold" + ("; " + "; ".join(missed) if missed else "")
    return replace(judged, status=status, score=score, reason=reason)


def _weighed(outcomes: Sequence[Judged], threshold: float | None) -> tuple[Status, float]:
    """Whether these outcomes are a pass together, and their weighted score."""
    score = _weighted_score(outcomes)
    if threshold is not None:
        passed = score >= threshold - 1e-9  # a score of three tenths must reach a threshold of 0.3
    else:
        passed = all(outcome.status == "passed" or outcome.weight == 0 for outcome in outcomes)
    return "passed" if passed else "failed", score


def _weighted_score(outcomes: Sequence[Judged]) -> float:
    weight = sum(outcome.weight for outcome in outcomes)
    if weight == 0:
        return 1.0
    return sum(outcome.weight * (outcome.score or 0.0) for outcome in outcomes) / weight
