"""One answer to one case: every assertion, the weighted score, and what it comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

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


class Judged(NamedTuple):
    """What one assertion of a case came to; an errored one has no score, nor has a skipped one.

    Skipped is one that waits: for people, or for the other answers that it is compared with.

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
        data = self._asdict()
        data["parts"] = [part.as_dict() for part in self.parts]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Judged:
        """The outcome that `as_dict` was taken from."""
        return cls(**{**data, "parts": tuple(cls.from_dict(part) for part in data.get("parts", ()))})

    def walk(self) -> Iterator[Judged]:
        """This outcome and all within it."""
        yield self
        for part in self.parts:
            yield from part.walk()


class Judgement(NamedTuple):
    """What a case came to: `score` is the weighted mean of its assertions', None where one of them errored."""

    status: Status
    score: float | None
    outcomes: tuple[Judged, ...] = ()
    error: str = ""


async def judge(case: Case, scene: Scene) -> Judgement:
    """Judge the answer of `scene` by all assertions of `case`.

    An assertion that cannot be judged makes the case errored: it is neither a failure nor absent. One that waits, and has
    a weight, makes it skipped. Without a threshold every assertion with a weight must hold; with one the
    weighted score must reach it.
    """
    if case.options.transform is not None:
        try:
            scene = await transformed(scene, case.options.transform)
        except AssertionErrored as error:
            return Judgement("errored", None, tuple(errored(spec, str(error)) for spec in case.asserts), str(error))
    return concluded(tuple([await _judge_one(scene, spec) for spec in case.filled_asserts()]), case.threshold)


def concluded(outcomes: tuple[Judged, ...], threshold: float | None) -> Judgement:
    """What a case comes to by the outcomes of its assertions."""
    errors = [outcome.reason for outcome in outcomes if outcome.status == "errored"]
    if errors:
        return Judgement("errored", None, outcomes, errors[0])
    if still := _waiting(outcomes):
        return Judgement("skipped", None, outcomes, still[0])
    status, score = _weighed(outcomes, threshold)
    return Judgement(status, score, outcomes)


def _waiting(outcomes: Sequence[Judged]) -> list[str]:
    """What those say that wait and whose score is needed."""
    return [outcome.reason for outcome in outcomes if outcome.status == "skipped" and outcome.weight > 0]


async def _judge_one(scene: Scene, spec: AssertionSpec) -> Judged:
    if spec.type == ASSERT_SET:
        return await _judge_set(scene, spec)
    try:
        found = await assess(scene, spec)
    except AssertionErrored as error:
        return errored(spec, str(error))
    except AssertionWaits as error:
        return waiting(spec, str(error))
    return reported(spec, found)


def errored(spec: AssertionSpec, reason: str) -> Judged:
    """What an assertion came to that could not be judged."""
    return Judged(spec.type, spec.metric, spec.weight, "errored", None, reason, version_of(spec.type))


def waiting(spec: AssertionSpec, reason: str) -> Judged:
    """What an assertion came to that is judged later."""
    return errored(spec, reason)._replace(status="skipped")


def reported(spec: AssertionSpec, found: Outcome) -> Judged:
    """What an assertion came to that was judged."""
    return _reported(spec, found, spec.metric, spec.weight)


def _reported(spec: AssertionSpec, found: Outcome, metric: str | None, weight: float) -> Judged:
    """An outcome, with all that a script reports within it."""
    status: Status = "passed" if found.passed else "failed"
    parts = tuple(_reported(spec, part, part.metric, 1.0) for part in found.parts) if found.parts else ()
    return Judged(spec.type, metric, weight, status, found.score, found.reason, version_of(spec.type), parts)


async def _judge_set(scene: Scene, spec: AssertionSpec) -> Judged:
    return set_of(spec, tuple([await _judge_one(scene, part) for part in spec.asserts]))


def set_of(spec: AssertionSpec, parts: tuple[Judged, ...]) -> Judged:
    """What an `assert-set` comes to by its members."""
    judged = Judged(spec.type, spec.metric, spec.weight, "errored", None, "", version_of(spec.type), parts)
    errors = [part.reason for part in parts if part.status == "errored"]
    if errors:
        return judged._replace(reason=errors[0])
    if still := _waiting(parts):
        return judged._replace(status="skipped", reason=still[0])
    status, score = _weighed(parts, spec.threshold)
    missed = [f"{part.type}: {part.reason}" for part in parts if part.status == "failed"]
    reason = f"{len(parts) - len(missed)} of {len(parts)} hold" + ("; " + "; ".join(missed) if missed else "")
    return judged._replace(status=status, score=score, reason=reason)


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
