"""Schemas of variables from what other tools declare of their inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import nodes

from prompts.formats.imported import Notes, shortened
from prompts.schemas import Schema

_EMPTY: dict[str, Any] = {"string": "", "array": [], "object": {}}
_LIMITS = {"enum", "const", "minLength", "pattern", "format", "minItems", "required", "minProperties"}
_KINDS = {
    "string": "string", "str": "string", "text": "string", "integer": "integer", "int": "integer",
    "number": "number", "float": "number", "double": "number", "boolean": "boolean", "bool": "boolean",
    "object": "object", "dict": "object", "array": "array", "list": "array", "any": "", "": "",
}  # fmt: skip


def kind_schema(kind: Any, notes: Notes, at: str) -> dict[str, Any]:
    """The schema of a type's name in whatever spelling; open, and noted, where it is none."""
    known = _KINDS.get(str(kind or "").lower())
    if known is None:
        notes.leave(at, shortened(kind), "no type of JSON: the variable may hold anything here")
    return {"type": known} if known else {}


def like(value: Any) -> dict[str, Any]:
    """The schema of values of the same kind; open where the kind is not plain data."""
    if isinstance(value, bool):
        return {"type": "boolean"}
    kinds = ((str, "string"), (int, "integer"), (float, "number"), (list, "array"), (dict, "object"))
    return next(({"type": name} for kind, name in kinds if isinstance(value, kind)), {})


def optional(schema: Mapping[str, Any]) -> dict[str, Any]:
    """`schema` for a variable that a request may leave out: a default that prints and tests as nothing does."""
    if "default" in schema:
        return dict(schema)
    declared = schema.get("type")
    kinds = [kind for kind in ([declared] if isinstance(declared, str) else declared or []) if kind != "null"]
    if len(kinds) == 1 and kinds[0] in _EMPTY and not _LIMITS & schema.keys():
        return {**schema, "type": kinds[0], "default": _EMPTY[kinds[0]]}
    result = {**schema, "default": None}
    if kinds:
        result["type"] = [*kinds, "null"]
    if "enum" in schema and None not in schema["enum"]:
        result["enum"] = [*schema["enum"], None]
    return result


def with_default(schema: Mapping[str, Any], value: Any, notes: Notes, at: str) -> dict[str, Any]:
    """`schema` with a default; one that the schema does not allow widens it, and is noted."""
    return _with(schema, "default", value, value, notes, at)


def with_sample(schema: Mapping[str, Any], value: Any, notes: Notes, at: str) -> dict[str, Any]:
    """`schema` with a value as its example; one that the schema does not allow widens it, and is noted."""
    return _with(schema, "examples", [value], value, notes, at)


def _with(schema: Mapping[str, Any], word: str, kept: Any, value: Any, notes: Notes, at: str) -> dict[str, Any]:
    if not _allows(schema, value):
        notes.leave(
            at, shortened(value), f"it is no {schema.get('type', 'value of the schema')}: any value is taken here"
        )
        schema = {key: schema[key] for key in schema.keys() & {"description", "title", "examples"}}
    return {**schema, word: kept}


def _allows(schema: Mapping[str, Any], value: Any) -> bool:
    try:
        Schema(schema).check(value)
    except ValueError:
        return False
    return True


def of_properties(schema: Mapping[str, Any], notes: Notes, at: str) -> dict[str, dict[str, Any]]:
    """A schema for each property of an object's schema; those that are not required may be left out of a request."""
    properties = schema.get("properties", {})
    shared = {word: schema[word] for word in ("$defs", "definitions") if word in schema}
    if schema.get("additionalProperties") not in (None, False):
        notes.leave(at, "other variables", "a prompt takes the variables that it declares, and no others")
    notes.rest(schema, {"type", "properties", "required", "additionalProperties", "$defs", "definitions", "description",
                        "$schema", "title"}, f"{at}.")  # fmt: skip
    required = schema.get("required") or ()
    made = {str(name): {**inner, **shared} for name, inner in properties.items() if isinstance(inner, Mapping)}
    return {name: inner if name in required else optional(inner) for name, inner in made.items()}


def valid(schemas: Mapping[str, dict[str, Any]], notes: Notes, at: str) -> dict[str, dict[str, Any]]:
    """The schemas that are JSON Schemas; others are noted and take any value."""
    found: dict[str, dict[str, Any]] = {}
    for name, schema in schemas.items():
        try:
            Schema(schema)
            found[name] = schema
        except ValueError as error:
            notes.leave(f"{at}.{name}", shortened(schema), f"no JSON Schema: {error}; any value is taken here")
            found[name] = {"default": schema["default"]} if "default" in schema else {}
    return found


def learnt_from_jinja(source: str) -> dict[str, dict[str, Any]]:
    """A schema for every name that looks like more than text in a Jinja2 template: what is looped over, what has items.

    Empty where the source is no template: that is told by whoever compiles it.
    """
    try:
        tree = jinja2.Environment(autoescape=False).parse(source)  # noqa: S701 - parsed only, for a model to read
    except (jinja2.TemplateError, RecursionError):
        return {}
    found: dict[str, dict[str, Any]] = {}
    holders = [item.node for item in tree.find_all(nodes.Getattr)] + [
        item.node for item in tree.find_all(nodes.Getitem)
    ]
    found |= {holder.name: {"type": "object"} for holder in holders if isinstance(holder, nodes.Name)}
    for loop in tree.find_all(nodes.For):
        if isinstance(loop.iter, nodes.Name):
            found[loop.iter.name] = {"type": "array"}
    return found


def inferred_from_jinja(names: Iterable[str], sources: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A schema for each of `names` by how Jinja2 templates use it; text, where nothing says more.

    What a template asks about (`{% if x %}`, `x or …`) or gives a default may be missing there, and has one here.
    """
    sources = list(sources)
    learnt = {name: schema for source in sources for name, schema in learnt_from_jinja(source).items()}
    missing = {name: value for source in sources for name, value in _may_be_missing(source).items()}
    found = {name: learnt.get(name, {"type": "string"}) for name in sorted(names)}
    for name in missing.keys() & found.keys():
        found[name] = {**like(missing[name]), "default": missing[name]} if missing[name] else optional(found[name])
    return found


def _may_be_missing(source: str) -> dict[str, Any]:
    """Names that a template does without, and the constant that stands for each: None where it is what nothing is."""
    try:
        tree = jinja2.Environment(autoescape=False).parse(source)  # noqa: S701 - parsed only, for a model to read
    except (jinja2.TemplateError, RecursionError):
        return {}
    tests: list[nodes.Node] = [node.test for node in tree.find_all(nodes.If)]
    tests += [node.test for node in tree.find_all(nodes.CondExpr)]
    tests += [node.left for node in tree.find_all(nodes.Or)]
    found: dict[str, Any] = {name: None for test in tests for name in _asked_about(test)}
    for given in tree.find_all(nodes.Filter):
        if given.name in ("default", "d") and isinstance(given.node, nodes.Name):
            constant = given.args[0] if given.args else None
            found[given.node.name] = constant.value if isinstance(constant, nodes.Const) else None
    return found


def _asked_about(test: nodes.Node | None) -> Iterator[str]:
    """Names that a condition asks no more of than whether they are there."""
    if isinstance(test, nodes.Name):
        yield test.name
    elif isinstance(test, nodes.Not):
        yield from _asked_about(test.node)
    elif isinstance(test, nodes.And | nodes.Or):
        yield from _asked_about(test.left)
        yield from _asked_about(test.right)
