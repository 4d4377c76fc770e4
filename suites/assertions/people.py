"""`human`: what people said of an answer decides."""

from __future__ import annotations

from suites.assertions.similarity import check_share
from suites.assertions.spec import (
    AssertionErrored,
    AssertionSpec,
    AssertionWaits,
    Family,
    Outcome,
    Scene,
    SceneAssertion,
    refuse,
)

HUMAN = "human"
DEFAULT_THRESHOLD = 0.5


async def _human(scene: Scene, spec: AssertionSpec) -> Outcome:
    if scene.aids is None:
        raise AssertionErrored("`human` needs the ratings of a database, and there is none here")
    found = await scene.aids.ratings(spec.metric)
    if not found:
        raise AssertionWaits("nobody has rated this answer yet: turnout judge rate RUN CASE --score 0…1")
    score = sum(found) / len(found)
    least = DEFAULT_THRESHOLD if spec.threshold is None else spec.threshold
    passed = score >= least - 1e-9
    verb = "as expected" if passed else "expected"
    people = "1 person gave" if len(found) == 1 else f"{len(found)} people gave a mean of"
    return Outcome(passed, score, f"{verb}: a rating of at least {least:g}; {people} {score:.4g}")


def _check(spec: AssertionSpec) -> None:
    if spec.value is not None and not isinstance(spec.value, str):
        refuse(
            f"`{spec.type}`: its value is what people are asked", "write `value: Is the tone right?`, or leave it out"
        )
    check_share(spec)


FAMILY: Family = {HUMAN: SceneAssertion(_human, _check, takes=frozenset(), can_be_negated=False)}
