"""Assertions on how long an answer is: in words, in characters."""

from __future__ import annotations

from typing import Any

from suites.assertions.spec import Assertion, AssertionSpec, Family, Outcome, Output, refuse
from suites.assertions.text import no_threshold

_BOUNDS = ("min", "max")


def _word_count(output: Output, spec: AssertionSpec) -> Outcome:
    return _within(len(output.text.split()), spec.value, "words")


def _character_count(output: Output, spec: AssertionSpec) -> Outcome:
    return _within(len(output.text), spec.value, "characters")


def _within(count: int, value: Any, unit: str) -> Outcome:
    low, high = _bounds(value)
    passed = low <= count <= high
    verb = "as expected" if passed else "expected"
    return Outcome(passed, float(passed), f"{verb}: {_range(low, high)} {unit}; got {count:,}")


def _range(low: float, high: float) -> str:
    if low == high:
        return f"exactly {low:,g}"
    if high == float("inf"):
        return f"at least {low:,g}"
    return f"at most {high:,g}" if low == 0 else f"{low:,g} to {high:,g}"


def _bounds(value: Any) -> tuple[float, float]:
    if isinstance(value, dict):
        return float(value.get("min", 0)), float(value.get("max", "inf"))
    return float(value), float(value)


def _check(spec: AssertionSpec) -> None:
    no_threshold(spec)
    given = [spec.value[name] for name in spec.value] if isinstance(spec.value, dict) else [spec.value]
    strange = isinstance(spec.value, dict) and (not spec.value or set(spec.value) - set(_BOUNDS))
    if strange or not all(map(_is_count, given)):
        refuse(f"`{spec.type}` needs a count", "write `value: 50`, or `value: {min: 20, max: 50}` with either or both")
    low, high = _bounds(spec.value)
    if low > high:
        refuse(f"`{spec.type}` has a min of {low:g} above its max of {high:g}", "swap them")


def _is_count(value: Any) -> bool:
    """A whole number from 0; as text too, which is how a filled `{{ variable }}` comes."""
    if isinstance(value, str):
        return value.strip().isdecimal()
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and value == int(value)


FAMILY: Family = {"word-count": Assertion(_word_count, _check), "character-count": Assertion(_character_count, _check)}
