"""Assertions by their type: a plain dict. `not-` before a type turns its outcome round."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from pydantic_core import PydanticCustomError

from suites.assertions import (
    budget,
    compared,
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
MOST_SUGGESTED = 3
_SCRIPT = "write it as `javascript`, or as a `python` file (see docs/assertions.md)"
NOT_HERE = {  # promptfoo's types that are not here, and what to write
    "webhook": _SCRIPT,
    "ruby": _SCRIPT,
    "moderation": "write `llm-rubric`, or `classifier` with `config: {labels: [safe, unsafe]}`",
    "guardrails": "write `finish-reason` with `value: content_filter`, or `is-refusal`",
    "pi": "write `llm-rubric` with a `threshold`",
    "conversation-relevance": "write `answer-relevance`, or `llm-rubric`",
    "search-rubric": "write `llm-rubric`; judges search nothing",
    "tool-call-f1-score": "write `tool-call-f1`",
    "is-valid-openai-tool-call": "write `is-valid-openai-tools-call`",
}
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
    **compared.FAMILY,
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
    return Outcome(not outcome.passed, 1.0 - outcome.score, reason, outcome.metric, outcome.parts)


def version_of(kind: str) -> int:
    """The version of a type of assertion: it counts changes of what it says."""
    return ASSERTIONS[kind.removeprefix(NOT)].version


def check_type(spec: AssertionSpec) -> Assertion | SceneAssertion:
    """The assertion that `spec` names; refuses an unknown one with those that were likely meant."""
    found = known_type(spec.type)
    unwanted = [name for name in sorted(OPTIONAL - found.takes) if getattr(spec, name)]
    if unwanted:
        written = ", ".join(f"`{AssertionSpec.model_fields[name].alias or name}`" for name in unwanted)
        refuse(f"`{spec.type}` takes no {written}", f"remove {written}")
    return found


def known_type(kind: str) -> Assertion | SceneAssertion:
    """The assertion of this type; refuses an unknown one with those that were likely meant."""
    found = ASSERTIONS.get(kind.removeprefix(NOT))
    if found is None:
        refuse(f"unknown assertion type {kind[:80]!r}", NOT_HERE.get(kind.removeprefix(NOT)) or near_types(kind))
    if kind.startswith(NOT) and not found.can_be_negated:
        refuse(f"`{kind.removeprefix(NOT)}` has no form with `{NOT}`", f"write `{kind.removeprefix(NOT)}`")
    return found


def near_types(word: str) -> str:
    """What to write for a word that is no type: the types that are like it, or all of them."""
    negated = [NOT + name for name, found in ASSERTIONS.items() if found.can_be_negated]
    known = negated if word.startswith("no") else list(ASSERTIONS)
    near = difflib.get_close_matches(word, known, n=MOST_SUGGESTED, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return "known: " + ", ".join(ASSERTIONS) + ", each also with not-"


def check(spec: AssertionSpec) -> None:
    """Refuse a spec that could not be judged: a value of the wrong kind, a broken pattern or schema, a missing extra."""
    check_type(spec).check(spec)
    check_transform(spec)


def problems(spec: AssertionSpec, *, is_filled: bool = True) -> Iterator[PydanticCustomError]:
    """Each thing that is wrong with this assertion, not with its members; `is_filled` where its value is final."""
    try:
        found = known_type(spec.type)
    except PydanticCustomError as error:
        yield error
        return
    steps = (check_type, check_transform, found.check) if is_filled else (check_type, check_transform)
    for step in steps:
        try:
            step(spec)
        except PydanticCustomError as error:
            yield error


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
    "known_type",
    "near_types",
    "problems",
    "transformed",
    "version_of",
    "walk",
]
