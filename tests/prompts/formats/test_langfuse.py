import json

import pytest

from prompts.errors import BadFile
from prompts.formats.langfuse import read_langfuse
from tests.prompts.formats.importing import foreign, loaded, places, rendered

CHAT = {
    "name": "Support/Triage Bot",
    "type": "chat",
    "version": 3,
    "labels": ["production", "latest", "staging", "Tenant 1"],
    "tags": ["support"],
    "commitMessage": "shorter",
    "config": {"model": "gpt-4o", "temperature": 0.5, "supported_languages": ["en"], "json_schema": {"type": "object"}},
    "prompt": [
        {"role": "system", "content": "Be {{tone}}. {% not code %} {{not a name}}"},
        {"type": "placeholder", "name": "history"},
        {
            "type": "chatmessage",
            "role": "user",
            "content": "@@@langfusePrompt:name=shared/tone|label=production@@@ {{q}}",
        },
        {"role": "robot", "content": "x"},
    ],
    "createdAt": "2026-01-01",
    "custom": 1,
}


def read(data, **more):
    return read_langfuse(foreign(json.dumps(data), "l.json", "l", **more))


def test_a_chat_prompt_is_read_whole():
    found = read(CHAT)
    keys = found.prompts["support.triage-bot"]
    assert {key: keys[key] for key in keys.keys() - {"messages"}} == {
        "name": "Support/Triage Bot",
        "notes": "shorter",
        "tags": ["support"],
        "labels": ["staging", "tenant-1"],
        "model": "gpt-4o",
        "modelParameters": {"temperature": 0.5},
        "responseFormat": "json_schema",
        "jsonSchema": {"name": "output", "schema": {"type": "object"}},
        "placeholders": {"history": {"default": []}},
    }
    assert keys["messages"][2]["content"] == "{% include 'shared.tone' %} {{ q }}"
    assert loaded(keys).includes == ("shared.tone",)
    assert [place.removeprefix("Support/Triage Bot.") for place in places(found)] == [
        "Support/Triage Bot", "custom", "labels", "labels", "config.supported_languages", "prompt", "prompt.3.0"]  # fmt: skip


def test_only_variables_are_code_in_its_texts():
    keys = read({"name": "a", "prompt": "{{{n}}} {% x %} {{ not a name }} {# #} {{n}}{"}).prompts["a"]
    assert rendered(keys, {"n": "N"}) == [("user", "{N} {% x %} {{ not a name }} {# #} N{")]


def test_of_several_versions_the_newest_is_taken_and_the_others_are_listed():
    rows = [{"name": "a", "version": v, "prompt": f"v{v}"} for v in (1, 3, 2)] + [
        {"name": "b", "version": 1, "prompt": "b"}
    ]
    found = read({"data": rows})
    assert {name: keys["messages"][0]["content"] for name, keys in found.prompts.items()} == {"a": "v3", "b": "b"}
    assert [note.what for note in found.left_out] == ["version 1", "version 2"]


def test_an_include_of_another_label_or_version_is_listed():
    found = read({"name": "a", "prompt": "@@@langfusePrompt:name=b|version=2@@@"}, prefix="x.")
    assert found.prompts["x.a"]["messages"] == [{"role": "user", "content": "{% include 'x.b' %}"}]
    assert [note.what for note in found.left_out if note.what != "a"] == ["b: version=2"]


@pytest.mark.parametrize("data", [{"messages": []}, [], [1], {"data": []}])
def test_what_holds_no_prompt_is_refused(data):
    with pytest.raises(BadFile, match="no prompt of Langfuse is in it"):
        read(data)


def test_what_is_no_json_is_refused_with_its_line():
    with pytest.raises(BadFile, match=r"l\.json:2: not valid JSON"):
        read_langfuse(foreign("{\n]", "l.json"))
