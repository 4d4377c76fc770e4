"""`similar`: how near an answer is in meaning to a text that is known to be right, by embeddings of both.

`similar` and `similar:cosine` compare directions, `similar:dot` takes the dot product, `similar:euclidean` the distance,
of which the threshold is the most. Of several texts the nearest counts.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

from prompts.errors import ModelError
from suites.assertions.similarity import check_share
from suites.assertions.spec import (
    AssertionErrored,
    AssertionSpec,
    Family,
    Outcome,
    Scene,
    SceneAssertion,
    refuse,
    shorten,
)
from suites.assertions.text import as_text

DEFAULT = 0.75
Vector = Sequence[float]


def cosine(one: Vector, other: Vector) -> float:
    """The cosine of the angle between two vectors; 0 where one of them has no direction.

    Raises AssertionErrored for vectors of different lengths, which come from different models.
    """
    length = math.sqrt(dot(one, one) * dot(other, other))
    return dot(one, other) / length if length else 0.0


def dot(one: Vector, other: Vector) -> float:
    """The sum of products; raises AssertionErrored as `cosine` does."""
    if len(one) != len(other):
        raise AssertionErrored(f"embeddings of {len(one)} and of {len(other)} numbers cannot be compared")
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def _distance(one: Vector, other: Vector) -> float:
    if len(one) != len(other):
        raise AssertionErrored(f"embeddings of {len(one)} and of {len(other)} numbers cannot be compared")
    return math.dist(one, other)


def _near(
    measure: Callable[[Vector, Vector], float], name: str
) -> Callable[[Scene, AssertionSpec], Awaitable[Outcome]]:
    """An evaluator that holds where the nearest text is near enough."""

    async def evaluate(scene: Scene, spec: AssertionSpec) -> Outcome:
        answer, *texts = await _embedded(scene, spec)
        found = max(measure(answer, text) for text in texts)
        least = DEFAULT if spec.threshold is None else spec.threshold
        passed = found >= least - 1e-9
        verb = "as expected" if passed else "expected"
        reason = f"{verb}: a {name} of at least {least:g} with {shorten(spec.value)}; got {found:.4f}"
        return Outcome(passed, min(1.0, max(0.0, found)), reason)

    return evaluate


async def _euclidean(scene: Scene, spec: AssertionSpec) -> Outcome:
    answer, *texts = await _embedded(scene, spec)
    found = min(_distance(answer, text) for text in texts)
    most = DEFAULT if spec.threshold is None else spec.threshold
    passed = found <= most + 1e-9
    verb = "as expected" if passed else "expected"
    reason = f"{verb}: a distance of at most {most:g} from {shorten(spec.value)}; got {found:.4f}"
    return Outcome(passed, 1 / (1 + found), reason)


async def _embedded(scene: Scene, spec: AssertionSpec) -> list[list[float]]:
    """The vectors of the answer and of each text."""
    if scene.aids is None:
        raise AssertionErrored(f"`{spec.type}` needs a model of embeddings, and none can be asked here")
    values = spec.value if isinstance(spec.value, list) else [spec.value]
    try:
        return await scene.aids.embed(spec.provider, [scene.output.text, *map(as_text, values)])
    except ModelError as error:
        raise AssertionErrored(f"no embeddings: {error}") from error


def _check(spec: AssertionSpec) -> None:
    values = spec.value if isinstance(spec.value, list) else [spec.value]
    if not values or any(value is None or isinstance(value, dict | list) for value in values):
        refuse(
            f"`{spec.type}` needs the text that is right",
            "write `value: text`, or a list of texts of which one may fit",
        )
    if not all(as_text(value).strip() for value in values):
        refuse(f"`{spec.type}` with an empty text has no meaning", "write the text that is right")


def _check_cosine(spec: AssertionSpec) -> None:
    _check(spec)
    check_share(spec)


_TAKES = frozenset({"transform", "provider"})
FAMILY: Family = {
    "similar": SceneAssertion(_near(cosine, "similarity"), _check_cosine, takes=_TAKES),
    "similar:cosine": SceneAssertion(_near(cosine, "similarity"), _check_cosine, takes=_TAKES),
    "similar:dot": SceneAssertion(_near(dot, "dot product"), _check, takes=_TAKES),
    "similar:euclidean": SceneAssertion(_euclidean, _check, takes=_TAKES),
}
EMBEDDED = frozenset(FAMILY)
