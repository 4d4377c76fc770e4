"""JSON Schemas of strangers, applied to values of strangers: nothing is fetched, and nothing goes on without end.

Patterns run under `regex` with a timeout (`re` cannot be stopped), references stay within the schema and are counted,
and so is every keyword that is applied.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
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
    _refuse_size(schema)
    if _is_plain(schema, 0):
        return
    from jsonschema import Draft202012Validator, exceptions  # slow to import: only where a schema is more than plain

    try:
        Draft202012Validator.check_schema(schema)
    except exceptions.SchemaError as error:
        raise ValueError(error.message[:200]) from error
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


def _is_plain(schema: Any, depth: int) -> bool:
    """Whether a schema is certainly one: of everyday words alone, each with what the draft wants there."""
    if depth > MAX_SCHEMA_DEPTH or not isinstance(schema, dict):
        return isinstance(schema, bool)
    return all(_is_plain_word(word, value, depth) for word, value in schema.items())


def _is_plain_word(word: str, value: Any, depth: int) -> bool:
    if word in ("items", "additionalProperties"):
        return _is_plain(value, depth + 1)
    if word == "properties":
        return isinstance(value, dict) and all(_is_plain(inner, depth + 1) for inner in value.values())
    known = _PLAIN_WORDS.get(word)
    return known is not None and known(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value)


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and re.compile(value) is not None
    except (re.error, OverflowError, RecursionError):
        return False


def _is_anything(_: Any) -> bool:
    return True


_TYPES = frozenset({"string", "integer", "number", "boolean", "array", "object", "null"})
_PLAIN_WORDS: dict[str, Callable[[Any], bool]] = {
    "type": lambda value: isinstance(value, str) and value in _TYPES,
    "enum": lambda value: isinstance(value, list),
    "examples": lambda value: isinstance(value, list),
    "required": _are_names,
    "pattern": _is_pattern,
    **dict.fromkeys(("title", "description"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("default", "const"), _is_anything),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _is_count),
    **dict.fromkeys(("minimum", "maximum"), _is_number),
}
_TEXT_WORDS = frozenset({"type", "minLength", "maxLength", "enum", "title", "description", "default", "examples"})


def _is_plain_text(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether `value` certainly satisfies a schema that asks for a text of some length, or one of a few."""
    if schema.get("type") != "string" or not isinstance(value, str) or not schema.keys() <= _TEXT_WORDS:
        return False
    is_long_enough = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf)
    return is_long_enough and value in schema.get("enum", [value])


class Schema:
    """One compiled schema.

    Raises ValueError on construction where it is none, or asks for what is not open to strangers.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        _refuse_words(schema, 0)
        check_schema(schema)
        self._schema = schema

    @cached_property
    def _validator(self) -> Any:
        from referencing import Registry

        return _bounded_validator()(self._schema, registry=Registry())  # an empty registry: nothing is fetched

    def check(self, value: Any) -> None:
        """Raise ValueError, saying why, where `value` does not satisfy the schema."""
        if _is_plain_text(self._schema, value):
            return
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
