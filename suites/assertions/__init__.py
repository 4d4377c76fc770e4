"""Assertions by their type: a plain dict. `not-` before a type turns its outcome round."""

from __future__ import annotations

import difflib
from dataclasses import replace

from suites.assertions import budget, json, text
from suites.assertions.spec import Assertion, AssertionErrored, AssertionSpec, Family, Outcome, Output, refuse

NOT = "not-"
ASSERTIONS: Family = {**text.FAMILY, **json.FAMILY, **budget.FAMILY}


def evaluate(output: Output, spec: AssertionSpec) -> Outcome:
    """Judge `output` by `spec`, whose values are already filled in.

    Raises AssertionErrored where that cannot be said, whatever went wrong inside: never a failed assertion.
    """
    try:
        outcome = ASSERTIONS[spec.type.removeprefix(NOT)].evaluate(output, spec)
    except AssertionErrored:
        raise
    except Exception as error:
        raise AssertionErrored(f"`{spec.type}` crashed: {type(error).__name__}: {error}") from error
    if not spec.type.startswith(NOT):
        return outcome
    return replace(
        outcome, passed=not outcome.passed, score=1.0 - outcome.score, reason=f"not wanted: {outcome.reason}"
    )


def check_type(spec: AssertionSpec) -> Assertion:
    """The assertion that `spec` names; refuses an unknown one with the one that was likely meant."""
    found = ASSERTIONS.get(spec.type.removeprefix(NOT))
    if found is None:
        refuse(f"unknown assertion type {spec.type[:80]!r}", _nearest(spec.type))
    return found


def _nearest(word: str) -> str:
    known = [*ASSERTIONS, *(NOT + name for name in ASSERTIONS)]
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(ASSERTIONS) + ", each also with not-"


def check(spec: AssertionSpec) -> None:
    """Refuse a spec that could not be judged: a value of the wrong kind, a broken pattern or schema."""
    check_type(spec).check(spec)


__all__ = [
    "ASSERTIONS",
    "NOT",
    "Assertion",
    "AssertionErrored",
    "AssertionSpec",
    "Outcome",
    "Output",
    "check",
    "check_type",
    "evaluate",
]
