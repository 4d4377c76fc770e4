"""JSON Schemas of strangers, applied to values of strangers: nothing is fetched, and nothing goes on without end.

Patterns run under `regex` with a timeout (`re` cannot be stopped), references stay within the schema and are counted,
and so is every keyword that is applied.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any

PATTERN_TIMEOUT_S = 1.0  # all patterns on one value together
MAX_PATTERN_CHARACTERS = 10_000
MAX_UNROLLED_CHARACTERS = 2_000_000  # `regex` writes counted repeats out
MAX_SCHEMA_DEPTH = 64
MAX_SUBSCHEMAS = 5_000
MAX_REFERENCES = 10_000  # followed for one value
MAX_CHECKS = 500_000  # keywords applied to one value and its parts, one of many words or schemas for each of them
MAX_REMEMBERED_CHARACTERS = 4_000  # of a schema whose check is remembered
_COUNTED = re.compile(r"\{\s*([0-9]+)")


@dataclass(slots=True)
class _Left:
    """What may still be done for one value."""

    references: int = MAX_REFERENCES
    checks: int = MAX_CHECKS
    patterns_s: float = PATTERN_TIMEOUT_S


_left: ContextVar[_Left] = ContextVar("left")


def check_schema(schema: Any) -> None:
    """Raise ValueError, saying why, where `schema` is no JSON Schema (draft 2020-12)."""
    try:
        text = json.dumps(schema)
    except (TypeError, ValueError, RecursionError):
        text = ""
    _check_known(text) if 0 < len(text) < MAX_REMEMBERED_CHARACTERS else _check_against_draft(schema)


@lru_cache(maxsize=1024)
def _check_known(schema: str) -> None:
    """Variables of many prompts are described alike: each description is checked once."""
    _check_against_draft(json.loads(schema))


def _check_against_draft(schema: Any) -> None:
    from jsonschema import Draft202012Validator, exceptions  # slow to import: only where a schema is more than text

    _refuse_size(schema)
    try:
        Draft202012Validator.check_schema(schema)
    except exceptions.SchemaError as error:
        raise ValueError(error.message[:200]) from error
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


class Schema:
    """One compiled schema.

    Raises ValueError on construction where it is none, or asks for what is not open to strangers.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        from referencing import Registry

        _refuse_words(schema, 0)
        check_schema(schema)
        self._validator = _bounded_validator()(schema, registry=Registry())  # an empty registry: nothing is fetched

    def check(self, value: Any) -> None:
        """Raise ValueError, saying why, where `value` does not satisfy the schema."""
        token = _left.set(_Left())
        try:
            error = next(self._validator.iter_errors(value), None)
        except RecursionError as failure:
            raise ValueError("the schema's references go in a circle, or the value nests too deeply") from failure
        except Exception as failure:  # a reference to nowhere, a pattern that was stopped, a value of no JSON type
            reason = f"{type(failure).__name__}: {str(failure)[:200]}"
            raise ValueError(f"the schema could not be applied: {reason}") from failure
        finally:
            _left.reset(token)
        if error is not None:
            raise ValueError(str(error.message)[:300])


@lru_cache(maxsize=1)
def _bounded_validator() -> Any:
    from jsonschema import Draft202012Validator, validators

    words: dict[str, Any] = {**Draft202012Validator.VALIDATORS}
    words |= {"pattern": _pattern, "$ref": _ref, "uniqueItems": _unique_items}
    words = {word: _counted(function) for word, function in words.items()}
    return validators.extend(Draft202012Validator, words)  # type: ignore[no-untyped-call]  # jsonschema's stubs leave it bare


def _counted(function: Any) -> Any:
    """The keyword `function`, counting each of the words, values or schemas that it goes through."""

    @wraps(function)
    def counted(validator: Any, argument: Any, instance: Any, schema: Any) -> Any:
        left = _left.get()
        left.checks -= 1 + (len(argument) if isinstance(argument, list | dict) else 0)
        if left.checks < 0:
            raise ValueError(f"more than {MAX_CHECKS:,} checks are made: give a smaller value, or a simpler schema")
        return function(validator, argument, instance, schema)

    return counted


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Any]:
    import regex  # type: ignore[import-untyped, unused-ignore]  # its stubs come with the extra `dev`
    from jsonschema import ValidationError

    if not isinstance(instance, str):
        return
    left, started = _left.get(), time.perf_counter()
    found = regex.search(pattern, instance, timeout=max(left.patterns_s, 0.001))
    left.patterns_s -= time.perf_counter() - started
    if found is None:
        yield ValidationError(f"{instance[:60]!r} does not match {pattern[:60]!r}")


def _ref(validator: Any, reference: str, instance: Any, _schema: Any) -> Iterator[Any]:
    left = _left.get()
    left.references -= 1
    if left.references < 0:
        raise ValueError(f"more than {MAX_REFERENCES:,} references are followed")
    yield from validator._validate_reference(ref=reference, instance=instance)


def _unique_items(_validator: Any, wanted: Any, instance: Any, _schema: Any) -> Iterator[Any]:
    """In one pass; jsonschema's own compares every item of a list of objects with every other."""
    from jsonschema import ValidationError

    if not wanted or not isinstance(instance, list):
        return
    if len({json.dumps(item, sort_keys=True) for item in instance}) < len(instance):
        yield ValidationError("has items that are not unique")


def _refuse_size(schema: Any) -> None:
    """Every schema within another is checked against the draft: some thousands take a second."""
    waiting, found = [schema], 0
    while waiting:
        node = waiting.pop()
        found += isinstance(node, Mapping)
        waiting += node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
        if found > MAX_SUBSCHEMAS:
            raise ValueError(f"it holds more than {MAX_SUBSCHEMAS:,} schemas")


def _refuse_words(node: Any, depth: int) -> None:
    if depth > MAX_SCHEMA_DEPTH:
        raise ValueError(f"it nests deeper than {MAX_SCHEMA_DEPTH} levels")
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    for child in children:
        _refuse_words(child, depth + 1)
    if not isinstance(node, Mapping):
        return
    if isinstance(node.get("$ref"), str) and not node["$ref"].startswith("#"):
        raise ValueError(f"$ref {node['$ref'][:80]!r} leaves the schema: only references within it (#…) are followed")
    for word in ("patternProperties", "$dynamicRef"):
        if word in node:
            raise ValueError(f"{word!r} is not supported here")
    if isinstance(node.get("pattern"), str):
        _refuse_pattern(node["pattern"])


def _refuse_pattern(pattern: str) -> None:
    import regex  # type: ignore[import-untyped, unused-ignore]  # its stubs come with the extra `dev`

    unrolled = len(pattern) * math.prod(int(count[:9]) or 1 for count in _COUNTED.findall(pattern))
    if len(pattern) > MAX_PATTERN_CHARACTERS or unrolled > MAX_UNROLLED_CHARACTERS:
        raise ValueError(f"the pattern {pattern[:60]!r} is too long, or repeats too often")
    try:
        regex.compile(pattern)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern[:60]!r} is no regular expression: {error}") from error
