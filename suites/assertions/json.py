"""Assertions on JSON: the whole answer (`is-json`) or some part of it (`contains-json`), with a schema or without.

Schemas come from strangers: they reach no network and no file (`$ref` only within the schema), and their patterns
are stopped after a second.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from suites.assertions.patterns import check_pattern, search
from suites.assertions.spec import (
    Assertion,
    AssertionErrored,
    AssertionSpec,
    Family,
    Outcome,
    Output,
    outcome,
    refuse,
    shorten,
)
from suites.assertions.text import no_threshold

MAX_CANDIDATES = 200  # openings tried in one answer: a text of ten thousand braces must not take minutes
MAX_SCHEMA_DEPTH = 64
_NO_VALUE = object()


def _is_json(output: Output, spec: AssertionSpec) -> Outcome:
    value = _read(output.text)
    if value is _NO_VALUE:
        return outcome(False, "JSON", output.text)
    problem = _problem(value, spec.value)
    return outcome(not problem, _expectation("JSON", spec.value, problem), output.text)


def _contains_json(output: Output, spec: AssertionSpec) -> Outcome:
    problem = "no JSON object or list in it"
    for value in _candidates(output.text):
        problem = _problem(value, spec.value)
        if not problem:
            break
    return outcome(not problem, _expectation("JSON within", spec.value, problem), output.text)


def _expectation(kind: str, schema: Any, problem: str) -> str:
    text = kind if schema is None else f"{kind} that satisfies the schema"
    return f"{text} ({problem})" if problem else text


def _read(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return _NO_VALUE


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _candidates(text: str) -> Iterator[Any]:
    """Objects and lists within `text`, outermost first."""
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    position = tried = 0
    while tried < MAX_CANDIDATES:
        starts = [start for start in (text.find("{", position), text.find("[", position)) if start >= 0]
        if not starts:
            return
        tried += 1
        position = min(starts)
        try:
            value, position = decoder.raw_decode(text, position)
            yield value
        except (ValueError, RecursionError):
            position += 1


def _problem(value: Any, schema: Any) -> str:
    """The first fault of `value` by `schema`; "" where it satisfies it, or where there is no schema."""
    if schema is None:
        return ""
    try:
        error = next(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value), None)
    except AssertionErrored:
        raise
    except Exception as error:
        raise AssertionErrored(f"the schema could not be applied: {shorten(str(error))}") from error
    return "" if error is None else f"{error.json_path}: {error.message[:160]}"


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    from jsonschema import Draft202012Validator, validators
    from referencing import Registry

    bounded = validators.extend(Draft202012Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]  # jsonschema's stubs leave it bare
    return bounded(json.loads(schema), registry=Registry())  # an empty registry: nothing is fetched


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(instance, str) and not search(pattern, instance):
        yield ValidationError(f"{shorten(instance)} does not match {shorten(pattern)}")


def _check(spec: AssertionSpec) -> None:
    no_threshold(spec)
    if spec.value is None:
        return
    if not isinstance(spec.value, dict):
        refuse(f"`{spec.type}` takes a JSON Schema", "write the schema as keys and values, or leave `value` out")
    _check_schema(spec.value)


def _check_schema(schema: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator, SchemaError

    _check_words(schema, schema, 0)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        refuse(f"not a JSON Schema: {error.json_path}: {error.message[:160]}", "mend the schema (draft 2020-12)")


def _check_words(schema: Any, node: Any, depth: int) -> None:
    """Refuse what would reach outside the schema, or run a pattern that cannot be stopped."""
    if depth > MAX_SCHEMA_DEPTH:
        refuse("the schema nests too deeply", f"keep it below {MAX_SCHEMA_DEPTH} levels")
    if isinstance(node, list):
        for item in node:
            _check_words(schema, item, depth + 1)
    if not isinstance(node, dict):
        return
    for word in ("$ref", "$dynamicRef"):
        if isinstance(node.get(word), str):
            _check_reference(schema, word, node[word])
    if isinstance(node.get("patternProperties"), dict):
        refuse("`patternProperties` is not supported", "name the properties, or use `propertyNames` with a `pattern`")
    if isinstance(node.get("pattern"), str):
        check_pattern(node["pattern"])
    for value in node.values():
        _check_words(schema, value, depth + 1)


def _check_reference(schema: Any, word: str, target: str) -> None:
    if not target.startswith("#"):
        refuse(f"`{word}: {target[:80]}` leaves the schema", "put the definition below `$defs`, refer by `#/$defs/…`")
    node = schema
    for step in target[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, dict) or name not in node:
            refuse(f"`{word}: {target[:80]}` leads to nothing", "check the names on the way, from the schema's top")
        node = node[name]


FAMILY: Family = {"is-json": Assertion(_is_json, _check), "contains-json": Assertion(_contains_json, _check)}
