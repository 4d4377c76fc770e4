import re

import pytest

from prompts.formats.picoschema import json_schema


def obj(properties, required=(), others=False):
    found = {"type": "object", "properties": properties, "additionalProperties": others}
    return found | ({"required": list(required)} if required else {})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("string", {"type": "string"}),
        ("string, a name, in full", {"type": "string", "description": "a name, in full"}),
        ("any", {}),
        ({"a": "integer"}, obj({"a": {"type": "integer"}}, ["a"])),
        ({"a?": "integer, how many"}, obj({"a": {"type": ["integer", "null"], "description": "how many"}})),
        ({"a(array, all of them)": "string"},
         obj({"a": {"type": "array", "items": {"type": "string"}, "description": "all of them"}}, ["a"])),
        ({"a?(array)": {"b": "boolean"}},
         obj({"a": {"type": ["array", "null"], "items": obj({"b": {"type": "boolean"}}, ["b"])}})),
        ({"a(object, inner)": {"b": "any"}}, obj({"a": {**obj({"b": {}}, ["b"]), "description": "inner"}}, ["a"])),
        ({"a(enum)": ["x", "y"]}, obj({"a": {"enum": ["x", "y"]}}, ["a"])),
        ({"a?(enum, which)": ["x"]}, obj({"a": {"enum": ["x", None], "description": "which"}})),
        ({"a": "null", "(*)": "number"}, obj({"a": {"type": "null"}}, ["a"], {"type": "number"})),
        ({"type": "array", "items": {"type": "string"}}, {"type": "array", "items": {"type": "string"}}),
        ({"properties": {"a": {"type": "string"}}}, {"type": "object", "properties": {"a": {"type": "string"}}}),
    ],
)  # fmt: skip
def test_each_short_form_is_its_json_schema(given, expected):
    assert json_schema(given) == expected


@pytest.mark.parametrize(("given", "reason"), [("Recipe", "'Recipe' is no type"), ({"a(map)": "string"}, "(map) is not array"),
                                               ({"a": 3}, "not int"), ({"a(enum)": "x"}, "(enum) is not array")])  # fmt: skip
def test_what_cannot_be_known_from_the_file_is_refused(given, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        json_schema(given)
