"""Assertions that compare the answers to one case: `select-best`, by a judge, and `max-score`, by the other assertions.

They say nothing of one answer alone. So they wait until all answers are in: `suites.comparison` decides them then.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from suites import judges
from suites.assertions.judged import SELECT_BEST, Bench, bench_of, check_text
from suites.assertions.rubric import mark_of
from suites.assertions.spec import (
    AssertionSpec,
    AssertionWaits,
    Family,
    Outcome,
    Scene,
    SceneAssertion,
    refuse,
    shorten,
)

MAX_SCORE = "max-score"
METHODS = ("average", "sum")


# ------------------------------------------------------------------------------------ select-best


class Choice(NamedTuple):
    """Which of several texts a judge chose: its number, from 0, and `votes`, the number and the reason of each vote."""

    best: int
    votes: tuple[tuple[int, str], ...]
    signature: str

    def share(self, number: int) -> float:
        """The share of votes for one text."""
        return sum(chosen == number for chosen, _ in self.votes) / len(self.votes)

    @property
    def reason(self) -> str:
        """Why it was chosen, in the judge's words; how many votes, where they disagree."""
        agreeing = [why for chosen, why in self.votes if chosen == self.best]
        told = "" if len(agreeing) == len(self.votes) else f"{len(agreeing)} of {len(self.votes)} votes"
        return "; ".join(part for part in (told, agreeing[0]) if part)


async def choose(scene: Scene, spec: AssertionSpec, texts: Sequence[str], *, turned: bool) -> Choice:
    """The best of two or more texts that differ, by most votes; where several have as many, by the earliest of these votes.

    Each vote sees the texts in another order, so that their places say nothing; with `turned` also each case and repeat,
    so that a judge who prefers a place prefers no variant. Raises AssertionErrored where the judge gives no verdict.
    """
    bench = await bench_of(scene, spec)
    start = _turn_of(scene) if turned else 0
    asked = (_vote(bench, texts, start, vote) for vote in range(bench.aids.votes))
    found = await asyncio.gather(*asked, return_exceptions=True)
    for vote in found:
        if isinstance(vote, BaseException):
            raise vote
    votes = tuple(vote for vote in found if isinstance(vote, tuple))
    best, _ = Counter(chosen for chosen, _ in votes).most_common(1)[0]  # of equal counts the one that was met first
    return Choice(best, votes, bench.signature)


async def _vote(bench: Bench, texts: Sequence[str], start: int, vote: int) -> tuple[int, str]:
    """The number of the text that one vote chooses, and why."""
    first = (start + vote) % len(texts)
    order = [*range(first, len(texts)), *range(first)]
    outputs = _marked([texts[number] for number in order])
    values = dict.fromkeys(("output", "answer", "completion"), "") | {"outputs": outputs}
    place, reason = await bench.ask(values, lambda said: judges.read_number(said, "best", len(order)), vote)
    return order[place - 1], reason


def _turn_of(scene: Scene) -> int:
    """A number that is the same for the same case and repeat, and even over them."""
    return int.from_bytes(hashlib.sha256(f"{scene.case_id} {scene.repeat}".encode()).digest()[:8], "big")


def _marked(texts: Sequence[str]) -> str:
    """Answers apart from each other by a line that none of them can hold."""
    mark = mark_of(*texts)
    return "\n".join(f"{mark} answer {number}\n{text}" for number, text in enumerate(texts, 1))


# ------------------------------------------------------------------------------------ max-score


class Scoring(NamedTuple):
    """How `max-score` adds up scores: promptfoo's options. `weights` are by type of assertion, 1 where a type has none."""

    method: Literal["average", "sum"] = "average"
    weights: Mapping[str, float] | None = None
    threshold: float | None = None

    @classmethod
    def of(cls, spec: AssertionSpec) -> Scoring:
        return cls(**(spec.value or {}))

    def total(self, scores: Sequence[tuple[str, float]]) -> float:
        """The sum of score times weight over types and scores; with `average` divided by the sum of weights, 0 for 0."""
        weights = [float((self.weights or {}).get(kind, 1.0)) for kind, _ in scores]
        total = math.fsum(weight * score for weight, (_, score) in zip(weights, scores, strict=True))
        if self.method == "sum":
            return total
        return total / math.fsum(weights) if any(weights) else 0.0


def _check_max_score(spec: AssertionSpec) -> None:
    given = spec.value if spec.value is not None else {}
    if not isinstance(given, dict):
        refuse(f"`{spec.type}` cannot use {shorten(given)}", "write `value: {method: average}`, or leave it out")
    for name in given:
        if name not in ("method", "weights", "threshold"):
            refuse(f"`{spec.type}` has no setting {str(name)[:40]!r}", "known here: method, weights, threshold")
    if given.get("method", METHODS[0]) not in METHODS:
        refuse(f"`{spec.type}`: method cannot be {shorten(given['method'])}", f"write one of {', '.join(METHODS)}")
    _check_weights(spec, given.get("weights", {}))
    if "threshold" in given and not _is_amount(given["threshold"]):
        refuse(f"`{spec.type}`: threshold cannot be {shorten(given['threshold'])}", "write a number from 0")
    if spec.threshold is not None:
        refuse(f"`{spec.type}`: its threshold stands in its value", f"write `value: {{threshold: {spec.threshold:g}}}`")


def _check_weights(spec: AssertionSpec, weights: Any) -> None:
    if not isinstance(weights, dict) or not all(isinstance(kind, str) for kind in weights):
        refuse(f"`{spec.type}`: weights cannot be {shorten(weights)}", "write `weights: {equals: 2}`, a number by type")
    for kind, weight in weights.items():
        if not _is_amount(weight):
            refuse(f"`{spec.type}`: the weight of {kind[:40]!r} cannot be {shorten(weight)}", "write a number from 0")


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


# ------------------------------------------------------------------------------------ both


async def _wait(_scene: Scene, spec: AssertionSpec) -> Outcome:
    raise AssertionWaits(f"`{spec.type}` compares all answers to the case: it is decided when they are in")


FAMILY: Family = {
    SELECT_BEST: SceneAssertion(
        _wait, check_text, takes=frozenset({"provider", "rubric_prompt"}), version=3, can_be_negated=False
    ),
    MAX_SCORE: SceneAssertion(_wait, _check_max_score, takes=frozenset(), can_be_negated=False),
}
COMPARED = frozenset(FAMILY)
