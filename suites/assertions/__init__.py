"""Assertions by their type: a plain dict. `not-` before a type turns its outcome round."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace

from suites.assertions import (
    budget,
    counts,
    embedded,
    ending,
    javascript,
    json,
    judged,
    markup,
    people,
    perplexity,
    python,
    sets,
    similarity,
    sql,
    text,
    tools,
)
from suites.assertions.javascript import check_transform, transformed
from suites.assertions.sets import ASSERT_SET
from suites.assertions.spec import (
    OPTIONAL,
    Assertion,
    AssertionErrored,
    AssertionSpec,
    AssertionWaits,
    Family,
    Outcome,
    Output,
    Scene,
    SceneAssertion,
    refuse,
)

NOT = "not-"
ASSERTIONS: Family = {
    **text.FAMILY,
    **counts.FAMILY,
    **json.FAMILY,
    **markup.FAMILY,
    **sql.FAMILY,
    **similarity.FAMILY,
    **ending.FAMILY,
    **tools.FAMILY,
    **budget.FAMILY,
    **perplexity.FAMILY,
    **javascript.FAMILY,
    **python.FAMILY,
    **embedded.FAMILY,
    **judged.FAMILY,
    **people.FAMILY,
    **sets.FAMILY,
}


async def assess(scene: Scene, spec: AssertionSpec) -> Outcome:
    """Judge the answer of `scene` by `spec`, whose values are already filled in.

    Raises AssertionErrored where that cannot be said, whatever went wrong inside: never a failed assertion; and
    AssertionWaits where people have not said it yet.
    """
    assertion = ASSERTIONS[spec.type.removeprefix(NOT)]
    try:
        if spec.transform is not None:
            scene = await transformed(scene, spec.transform)
        if isinstance(assertion, SceneAssertion):
            outcome = await assertion.evaluate(scene, spec)
        else:
            outcome = assertion.evaluate(scene.output, spec)
    except (AssertionErrored, AssertionWaits):
        raise
    except Exception as error:
        raise AssertionErrored(f"`{spec.type}` crashed: {type(error).__name__}: {error}") from error
    return _turned_round(outcome) if spec.type.startswith(NOT) else outcome


def _turned_round(outcome: Outcome) -> Outcome:
    reason = f"not wanted: {outcome.reason}"
    return replace(outcome, passed=not outcome.passed, score=1.0 - outcome.score, reason=reason)


def version_of(kind: str) -> int:
    """The version of a type of assertion: it counts changes of what it says."""
    return ASSERTIONS[kind.removeprefix(NOT)].version


def check_type(spec: AssertionSpec) -> Assertion | SceneAssertion:
    """The assertion that `spec` names; refuses an unknown one with the one that was likely meant."""
    found = ASSERTIONS.get(spec.type.removeprefix(NOT))
    if found is None or (spec.type.startswith(NOT) and not found.can_be_negated):
        refuse(f"unknown assertion type {spec.type[:80]!r}", _nearest(spec.type))
    for name in sorted(OPTIONAL - found.takes):
        if getattr(spec, name):
            written = AssertionSpec.model_fields[name].alias or name
            refuse(f"`{spec.type}` takes no `{written}`", f"remove `{written}:`")
    return found


def _nearest(word: str) -> str:
    known = [*ASSERTIONS, *(NOT + name for name, found in ASSERTIONS.items() if found.can_be_negated)]
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(ASSERTIONS) + ", each also with not-"


def check(spec: AssertionSpec) -> None:
    """Refuse a spec that could not be judged: a value of the wrong kind, a broken pattern or schema, a missing extra."""
    check_type(spec).check(spec)
    check_transform(spec)


def walk(spec: AssertionSpec) -> Iterator[AssertionSpec]:
    """This assertion and, in an `assert-set`, all within it."""
    yield spec
    for part in spec.asserts:
        yield from walk(part)


__all__ = [
    "ASSERTIONS",
    "ASSERT_SET",
    "NOT",
    "Assertion",
    "AssertionErrored",
    "AssertionSpec",
    "AssertionWaits",
    "Outcome",
    "Output",
    "Scene",
    "SceneAssertion",
    "assess",
    "check",
    "check_transform",
    "check_type",
    "transformed",
    "version_of",
    "walk",
]
