import json

import pytest

from prompts.errors import BadFile
from prompts.formats.openai_playground import read_openai
from tests.prompts.formats.importing import foreign, places, rendered

FUNCTION = {"name": "look_up", "description": "Looks", "parameters": {"type": "object", "properties": {}}}
REQUEST = {
    "model": "gpt-4o",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Be {{tone}}."}]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "{{q}} {%"}, {"type": "image_url", "image_url": {"url": "{{u}}"}}],
        },
        {"role": "assistant", "content": None, "tool_calls": []},
    ],
    "temperature": 1,
    "max_tokens": 256,
    "n": 2,
    "stream": False,
    "user": "ann",
    "tools": [{"type": "function", "function": FUNCTION}, {"type": "file_search"}],
    "tool_choice": "auto",
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "r", "strict": True, "schema": {"type": "object"}},
    },
}
RESPONSES = {
    "model": "gpt-4o",
    "instructions": "Be brief.",
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "Weather in {{city}}?"}]},
              {"type": "function_call", "name": "x"}],
    "text": {"format": {"type": "json_schema", "name": "w", "schema": {"type": "object"}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "max_output_tokens": 99,
    "tools": [{"type": "function", **FUNCTION, "strict": True}],
    "variables": {"city": "Paris", "spare": "x"},
}  # fmt: skip


def read(data, name="o"):
    return read_openai(foreign(json.dumps(data), "o.json", name))


def test_a_chat_request_is_read_whole():
    found = read(REQUEST)
    keys = found.prompts["o"]
    assert {key: keys[key] for key in keys.keys() - {"messages"}} == {
        "model": "gpt-4o",
        "modelParameters": {"temperature": 1, "max_tokens": 256},
        "tools": [{"type": "function", "function": FUNCTION}],
        "toolChoice": "auto",
        "responseFormat": "json_schema",
        "jsonSchema": {"name": "r", "strict": True, "schema": {"type": "object"}},
    }
    assert rendered(keys, {"tone": "kind", "q": "Q", "u": "https://i"}) == [
        ("system", "Be kind."),
        ("user", ({"type": "text", "text": "Q {%"}, {"type": "image_url", "image_url": {"url": "https://i"}})),
    ]
    assert places(found) == ["messages.2.tool_calls", "messages.2", "n", "user", "tools.1"]


def test_a_responses_request_is_read_whole():
    found = read(RESPONSES)
    keys = found.prompts["o"]
    assert {key: keys[key] for key in keys.keys() - {"messages"}} == {
        "model": "gpt-4o",
        "modelParameters": {"max_tokens": 99, "verbosity": "low", "reasoning_effort": "low"},
        "tools": [{"type": "function", "function": {**FUNCTION, "strict": True}}],
        "responseFormat": "json_schema",
        "jsonSchema": {"name": "w", "schema": {"type": "object"}},
        "variables": {"city": {"type": "string", "examples": ["Paris"]}},
    }
    assert rendered(keys, {"city": "Rome"}) == [("system", "Be brief."), ("user", "Weather in Rome?")]
    assert places(found) == ["input.1", "reasoning.summary", "variables.spare"]


def test_a_stored_prompt_is_read_from_within_and_called_by_its_name():
    found = read(
        {
            "id": "pmpt_1",
            "version": "2",
            "prompt": {"name": "My Prompt", "messages": [{"role": "user", "content": "x"}]},
        }
    )
    assert list(found.prompts) == ["my-prompt"]


def test_an_input_that_is_text_is_the_user_s():
    assert read({"input": "Hi {{name}}"}).prompts["o"]["messages"] == [{"role": "user", "content": "Hi {{ name }}"}]


@pytest.mark.parametrize("data", [[], {"model": "m"}, {"messages": []}, 3])
def test_what_holds_no_messages_is_refused(data):
    with pytest.raises(BadFile, match="give one with `messages`, or with `input`"):
        read(data)
