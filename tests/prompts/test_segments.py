"""What a client fills by itself is, to the character, what the server renders."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prompts.errors import BadInput, RenderError
from prompts.prompt import CompiledPrompt, PromptContent, compile_prompt, conversation
from prompts.segments import local_messages, segments
from prompts.template import MAX_OUTPUT_CHARACTERS, Template
from turnout import BadVariables
from turnout.template import conversation as client_conversation
from turnout.template import read_template

STRING = {"type": "string"}


def compiled(*contents: Any, variables: dict[str, Any] | None = None, **more: Any) -> CompiledPrompt:
    messages = [m if isinstance(m, dict) else {"role": "user", "content": m} for m in contents]
    declared = {"a": STRING, "b": STRING} if variables is None else variables
    return compile_prompt(
        PromptContent.model_validate({"model": "m", "messages": messages, "variables": declared, **more})
    )


def filled(prompt: CompiledPrompt, values: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """What the client makes of the description of `prompt`."""
    content = prompt.content
    template = read_template(
        {
            "name": "n", "version": 1, "digest": prompt.digest, "model": "m", "parameters": {},
            "variables": content.variables, "local": True, "messages": local_messages(prompt),
            "placeholders": {n: p.model_dump(mode="json", by_alias=True) for n, p in content.placeholders.items()},
            "max_characters": MAX_OUTPUT_CHARACTERS,
        }
    )  # fmt: skip
    return template.fill(template.check(values, more.get("placeholders", {}), more.get("messages", [])))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", []),
        ("plain", [{"text": "plain"}]),
        ("{{ a }}", [{"variable": "a"}]),
        (
            "x {{a}} y {{ b }}\n",
            [{"text": "x "}, {"variable": "a"}, {"text": " y "}, {"variable": "b"}, {"text": "\n"}],
        ),
        ("x  {{- a -}}  y", [{"text": "x"}, {"variable": "a"}, {"text": "y"}]),
        ("{# note #}{{ a }}{% raw %}{{ a }}{% endraw %}", [{"variable": "a"}, {"text": "{{ a }}"}]),
        ("a\r\nb", [{"text": "a\nb"}]),
    ],
)
def test_text_and_substitutions_are_given_in_order(source: str, expected: list[dict[str, str]]) -> None:
    assert segments(Template(source)) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ a | upper }}", "{{ a.b }}", "{{ a ~ b }}", "{{ 7 }}", "{% if a %}x{% endif %}",
        "{% set c = a %}{{ c }}", "{% for x in a %}{{ x }}{% endfor %}", "{{ a[0] }}", "{{ a if b else '' }}",
    ],
)  # fmt: skip
def test_anything_else_is_left_to_the_server(source: str) -> None:
    assert local_messages(compiled("{{ b }}", source)) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer"},
        {},
        {"type": ["string", "null"]},
        {"type": "string", "pattern": "x"},
        {"type": "string", "default": 5},
        {"type": "string", "default": None},
    ],
)
def test_a_variable_that_is_more_than_a_plain_string_is_left_to_the_server(schema: dict[str, Any]) -> None:
    assert local_messages(compiled("{{ a }}", variables={"a": schema})) is None


def test_content_parts_are_left_to_the_server() -> None:
    assert local_messages(compiled({"role": "user", "content": [{"type": "text", "text": "{{ a }}"}]})) is None


def test_a_variable_may_have_the_name_of_one_of_jinjas_own() -> None:
    prompt = compiled("{{ range }}", variables={"range": STRING})

    assert local_messages(prompt) == [{"role": "user", "content": [{"variable": "range"}]}]


def test_a_spelt_out_brace_is_text() -> None:
    prompt = compiled("a {{ '{#' }} b")

    assert local_messages(prompt) == [{"role": "user", "content": [{"text": "a "}, {"text": "{#"}, {"text": " b"}]}]


def test_examples_come_rendered_and_placeholders_as_slots() -> None:
    prompt = compiled(
        {"role": "system", "content": "Hello."},
        {"placeholder": "history"},
        {"role": "user", "content": "Q: {{ a }}"},
        variables={"a": STRING},
        placeholders={"history": {"maxMessages": 3}},
        examples=[{"vars": {"a": "{{ a }}"}, "expected": {"answer": 1}}],
    )

    assert local_messages(prompt) == [
        {"role": "system", "content": [{"text": "Hello."}]},
        {"role": "user", "content": [{"text": "Q: {{ a }}"}]},
        {"role": "assistant", "content": [{"text": '{"answer": 1}'}]},
        {"placeholder": "history"},
        {"role": "user", "content": [{"text": "Q: "}, {"variable": "a"}]},
    ]


PIECES = st.sampled_from(["{{ a }}", "{{b}}", "{{- a }}", "{{ b -}}", "{# c #}", "\n", "\r\n", " ", "é", "{", "}}"])
SOURCES = st.lists(PIECES | st.text(st.characters(exclude_characters="{%#}", exclude_categories=["Cs"]))).map("".join)
VALUES = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["{{ b }}", "{% raw %}", "<|im_end|>"])


@given(st.lists(SOURCES, min_size=1, max_size=3), VALUES, VALUES)
def test_a_client_fills_in_what_the_server_renders(sources: list[str], a: str, b: str) -> None:
    try:
        prompt = compiled(*sources, variables={"a": STRING, "b": {**STRING, "default": b}})
    except RenderError:
        return  # `{` and `}}` may meet to be no template
    assert local_messages(prompt) is not None

    assert filled(prompt, {"a": a}) == [message.as_dict() for message in prompt.render({"a": a})]


ROLES = st.sampled_from(["user", "assistant", "tool", "system", "developer", "other"])
CONTENTS = (
    VALUES | st.none() | st.integers() | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": VALUES}))
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": ROLES, "content": CONTENTS}, optional={"name": VALUES}), max_size=3)
SCHEMAS = st.fixed_dictionaries(
    {"type": st.just("string")},
    optional={"minLength": st.integers(0, 3), "maxLength": st.integers(0, 3), "default": VALUES,
              "enum": st.lists(VALUES, min_size=1), "description": VALUES},
)  # fmt: skip
GIVEN = st.dictionaries(st.sampled_from("abc"), VALUES | st.integers() | st.none())


@example({"type": "string", "default": ""}, {"b": ""}, [], {"h": [{"role": "user", "content": None}] * 3})
@example({"type": "string", "default": ""}, {"b": ""}, [], {"h": ["", "", ""]})
@given(SCHEMAS, GIVEN, MESSAGES, st.dictionaries(st.sampled_from(["h", "i"]), MESSAGES))
def test_a_client_refuses_what_the_server_refuses_and_names_the_same_field(
    schema: dict[str, Any], values: dict[str, Any], messages: list[Any], placeholders: dict[str, Any]
) -> None:
    prompt = compiled("{{ a }}{{ b }}", {"placeholder": "h"}, variables={"a": schema, "b": STRING},
                      placeholders={"h": {"maxMessages": 2}})  # fmt: skip
    try:
        there: Any = [message.as_dict() for message in prompt.render(values, messages, placeholders)]
    except Exception as error:  # noqa: BLE001 - whatever the server refuses with
        there = getattr(error, "param", None)
    try:
        here: Any = filled(prompt, values, messages=messages, placeholders=placeholders)
    except BadVariables as error:
        here = error.param

    assert here == there


def test_what_is_too_long_for_the_server_is_too_long_here() -> None:
    prompt = compiled("{{ a }}{{ a }}", variables={"a": STRING})
    half = "x" * (MAX_OUTPUT_CHARACTERS // 2)

    assert filled(prompt, {"a": half}) == [message.as_dict() for message in prompt.render({"a": half})]
    with pytest.raises(BadVariables):
        filled(prompt, {"a": half + "x"})
    with pytest.raises(RenderError):
        prompt.render({"a": half + "x"})


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user"},
        {"role": "assistant", "tool_calls": []},
        {"role": "tool", "content": "x"},
        {"role": "user", "content": "x", "evil": 1},
    ],
)
def test_a_message_that_the_service_refuses_is_refused_by_the_client_for_the_same_field(
    message: dict[str, Any],
) -> None:
    with pytest.raises(BadInput) as refused:
        conversation([message])
    with pytest.raises(BadVariables) as by_client:
        client_conversation([message], "messages")
    assert by_client.value.param == refused.value.param
