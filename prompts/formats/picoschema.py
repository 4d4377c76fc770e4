"""Picoschema, Dotprompt's short form of JSON Schema: https://google.github.io/dotprompt/reference/picoschema/"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCALARS = ("string", "number", "integer", "boolean", "null", "any")
WILDCARD = "(*)"


def json_schema(value: Any) -> dict[str, Any]:
    """The JSON Schema that `value` means: Picoschema, or a JSON Schema as it stands.

    Raises ValueError for a schema that is named in code, and for anything that is no schema.
    """
    if isinstance(value, Mapping):
        if value.get("type") in (*SCALARS, "object", "array"):
            return dict(value)
        if isinstance(value.get("properties"), Mapping):
            return {"type": "object", **value}
        return _object(value)
    return _scalar(value)


def _any(value: Any) -> dict[str, Any]:
    return _object(value) if isinstance(value, Mapping) else _scalar(value)


def _scalar(value: Any) -> dict[str, Any]:
    if not isinstance(value, str):
        raise ValueError(f"a schema is a type's name or keys and values, not {type(value).__name__}")
    kind, description = _described(value)
    if kind not in SCALARS:
        raise ValueError(f"{kind!r} is no type; a schema that is named in code is not in the file")
    return ({} if kind == "any" else {"type": kind}) | description


def _described(text: str) -> tuple[str, dict[str, Any]]:
    kind, comma, description = text.partition(",")
    return kind.strip(), {"description": description.strip()} if comma and description.strip() else {}


def _object(value: Mapping[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    others: Any = False
    for key, inner in value.items():
        if key == WILDCARD:
            others = _any(inner)
            continue
        name, _, info = str(key).partition("(")
        name, optional = name.strip().removesuffix("?"), name.strip().endswith("?")
        if not optional:
            required.append(name)
        made = _typed(info.strip().removesuffix(")"), inner) if info else _any(inner)
        properties[name] = _nullable(made) if optional else made
    found = {"type": "object", "properties": properties, "additionalProperties": others}
    return found | ({"required": required} if required else {})


def _typed(info: str, inner: Any) -> dict[str, Any]:
    """What stands in parentheses after a name: array, object or enum, and a description."""
    kind, description = _described(info)
    if kind == "array":
        return {"type": "array", "items": _any(inner)} | description
    if kind == "object":
        return _any(inner) | description
    if kind == "enum" and isinstance(inner, list):
        return {"enum": list(inner)} | description
    raise ValueError(f"({info}) is not array, object or enum")


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """What is optional may also be null, as Dotprompt has it."""
    if isinstance(schema.get("type"), str):
        return schema | {"type": [schema["type"], "null"]}
    if "enum" in schema and None not in schema["enum"]:
        return schema | {"enum": [*schema["enum"], None]}
    return schema
