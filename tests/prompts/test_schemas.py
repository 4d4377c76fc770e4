"""Schemas that are told apart from jsonschema's own answer without asking it."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator, exceptions

from prompts.schemas import Schema, check_schema

WORDS = [
    ("type", ["string", "text", 7, ["string"], None]),
    ("enum", [["a"], [], "a"]),
    ("required", [["a", "b"], ["a", "a"], ["a", 1], "a"]),
    ("properties", [{"a": {"type": "string"}}, {"a": {"type": "text"}}, {"a": True}, {"a": 7}, []]),
    ("items", [{"minLength": 1}, {"minLength": -1}, False, "a"]),
    ("additionalProperties", [False, {"type": "null"}, {"pattern": "["}, 0]),
    ("minLength", [0, 1.0, True, -1, "1"]),
    ("maxItems", [3, None]),
    ("minimum", [0, -1.5, True, "0"]),
    ("pattern", ["^a+$", "[", 7]),
    ("title", ["t", 7]),
    ("examples", [["a"], "a"]),
    ("default", [None, {}]),
    ("unknown-word", [1]),
    ("$ref", ["#/$defs/a"]),
]


@pytest.mark.parametrize(("word", "value"), [(word, value) for word, values in WORDS for value in values])
def test_a_schema_is_taken_and_refused_as_the_draft_has_it(word: str, value: Any) -> None:
    for schema in ({word: value}, {"properties": {"x": {word: value}}}):
        try:
            Draft202012Validator.check_schema(schema)
        except exceptions.SchemaError:
            with pytest.raises(ValueError, match=r"."):
                check_schema(schema)
        else:
            check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"type": "string", "minLength": 2, "maxLength": 3}, "ab", True),
        ({"type": "string", "minLength": 2}, "a", False),
        ({"type": "string", "maxLength": 3}, "abcd", False),
        ({"type": "string", "enum": ["a", "b"]}, "b", True),
        ({"type": "string", "enum": ["a", "b"]}, "c", False),
        ({"type": "string", "pattern": "^a$"}, "b", False),
        ({"type": "string"}, 7, False),
    ],
)
def test_a_text_is_held_to_its_schema(schema: dict[str, Any], value: Any, fits: bool) -> None:
    assert Draft202012Validator(schema).is_valid(value) is fits
    if fits:
        Schema(schema).check(value)
    else:
        with pytest.raises(ValueError, match=r"."):
            Schema(schema).check(value)
