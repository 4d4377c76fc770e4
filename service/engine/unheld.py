"""What llguidance takes of a JSON Schema without holding an answer to it, or at any cost: refused by name.

An answer that misses its schema, or that nobody can wait for, would be the alternative.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

MOST_PATTERN = 16_384  # characters: llguidance takes a second for the worst of them, and for longer ones its square
_MOST_INTEGER = 2**63 - 1  # bounds are read as doubles, and greater ones cut to this
_LOWER, _UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
# Where a schema holds others: one, a list of them, or some by names. A `$ref` leads to one of these of the same document.
_ONE = ("items", "additionalProperties", "additionalItems", "contains", "not", "if", "then", "else", "propertyNames")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems", "items")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


def unheld(schema: Any) -> str | None:
    """Why an answer could miss `schema` though it was guided by it, or would take too long; None where none can."""
    return next((why for one in _schemas(schema) for why in _faults(one)), None)


def _schemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """`schema` and all within it, each once: no `$ref` is followed. Data, as of `const`, is none."""
    left = [schema]
    while left:
        one = left.pop()
        if not isinstance(one, dict):
            continue
        yield one
        left += [one.get(name) for name in _ONE]
        left += [each for name in _LISTS if isinstance(held := one.get(name), list) for each in held]
        left += [each for name in _NAMED if isinstance(held := one.get(name), dict) for each in held.values()]


def _faults(schema: Mapping[str, Any]) -> Iterator[str]:
    if "x-guidance" in schema:
        yield "x-guidance, by which llguidance may leave parts of a schema out, is not taken"
    named = schema.get("patternProperties")
    for pattern in (schema.get("pattern"), *(named if isinstance(named, dict) else ())):
        if isinstance(pattern, str) and len(pattern) > MOST_PATTERN:
            yield f"a pattern has {len(pattern):,} characters, allowed are {MOST_PATTERN:,}"
    bounds = {name: schema[name] for name in (*_LOWER, *_UPPER) if _is_number(schema.get(name))}
    types = schema.get("type")
    if types == "integer" or (isinstance(types, list) and "integer" in types):
        yield from _inexact(bounds)
    if types != "integer":
        yield from _open_ends(bounds)
    named, least = schema.get("properties"), schema.get("minProperties")
    of_any_name = (least if _is_number(least) else 0) - (len(named) if isinstance(named, dict) else 0)
    if of_any_name > 1:
        yield f"minProperties {least} asks for {of_any_name} properties of any name, which could be the same one twice"


def _inexact(bounds: Mapping[str, float]) -> Iterator[str]:
    """Bounds of integers that would be others: an answer could pass them, and some of the lowest end the process."""
    for name, bound in bounds.items():
        if not abs(bound) <= _MOST_INTEGER:  # nor is NaN
            yield f"{name} {bound} of an integer is beyond 64 bits"
        elif min(int(float(bound)), _MOST_INTEGER) != int(bound):
            yield f"{name} {bound} of an integer is no double: it would be rounded to {float(bound):.0f}"


def _open_ends(bounds: Mapping[str, float]) -> Iterator[str]:
    """Whole numbers that are excluded, and given nevertheless where the other bound is less than 1 away."""
    for name, others, towards in (("exclusiveMinimum", _UPPER, 1), ("exclusiveMaximum", _LOWER, -1)):
        end = bounds.get(name)
        if end is None or end % 1 != 0:
            continue
        for other in others:
            if other in bounds and 0 < (bounds[other] - end) * towards < 1:
                yield f"{name} {end} beside {other} {bounds[other]} does not keep {end} out"


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
