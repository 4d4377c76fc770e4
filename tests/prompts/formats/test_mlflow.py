import json

import pytest

from prompts.errors import BadFile
from prompts.formats.mlflow import read_mlflow
from tests.prompts.formats.importing import foreign, places, rendered

VERSION = {
    "name": "summary",
    "version": 2,
    "template": "Sum up {{ text }} in {{num.words}} words. {# kept #}",
    "commit_message": "first",
    "tags": {"author": "ann", "reviewed": "true"},
    "aliases": ["production", "champion"],
    "response_format": {"type": "object", "properties": {"summary": {"type": "string"}}},
    "model_config": {"provider": "openai", "model_name": "gpt-4o", "temperature": 0.1, "stop_sequences": ["."], "x": 1},
    "creation_timestamp": 1,
    "odd": True,
}


def read(data, path="m.json", **more):
    return read_mlflow(foreign(data if isinstance(data, str) else json.dumps(data), path, "m", **more))


def test_a_prompt_version_is_read_whole():
    found = read(VERSION)
    assert found.prompts == {
        "summary": {
            "name": "summary",
            "notes": "first",
            "tags": ["author:ann", "reviewed"],
            "labels": ["champion"],
            "model": "gpt-4o",
            "modelParameters": {"temperature": 0.1, "stop": ["."]},
            "responseFormat": "json_schema",
            "jsonSchema": {"name": "output", "schema": VERSION["response_format"]},
            "messages": [{"role": "user", "content": "Sum up {{ text }} in {{ num_words }} words. {{ '{#' }} kept #}"}],
        }
    }
    assert places(found) == ["summary.odd", "summary.model_config.provider", "summary.aliases", "summary.model_config.x",
                             "summary.template"]  # fmt: skip


def test_a_chat_template_is_its_messages():
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "{{q}} {%"}]
    assert rendered(read({**VERSION, "template": chat}).prompts["summary"], {"q": "Q"}) == [
        ("system", "S"),
        ("user", "Q {%"),
    ]


def test_a_template_with_statements_is_jinja2():
    keys = read({**VERSION, "template": "{% for i in items %}{{ i }};{% endfor %}"}).prompts["summary"]
    assert rendered(keys, {"items": ["a", "b"]}) == [("user", "a;b;")]


def test_what_the_rest_api_answers_holds_the_prompt_in_tags():
    tags = {"mlflow.prompt.is_prompt": "true", "mlflow.prompt.text": '[{"role": "user", "content": "{{q}}"}]',
            "_mlflow_prompt_type": "chat", "_mlflow_prompt_model_config": '{"model_name": "m", "max_tokens": 3}',
            "mlflow.linkedPrompts": "[]"}  # fmt: skip
    data = {
        "model_version": {
            "name": "q",
            "version": "1",
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
    }
    found = read(data)
    assert found.prompts["q"] == {"name": "q", "model": "m", "modelParameters": {"max_tokens": 3},
                                  "messages": [{"role": "user", "content": "{{ q }}"}]}  # fmt: skip
    assert places(found) == ["tags.mlflow.linkedPrompts"]


def test_a_file_store_s_version_is_read_with_its_tags_folder():
    files = {"tags/mlflow.prompt.text": "Hi {{name}}"}
    found = read("name: hi\nversion: 1\n", "prompts/hi/version-1/meta.yaml", beside=files.get)
    assert found.prompts == {"hi": {"name": "hi", "messages": [{"role": "user", "content": "Hi {{ name }}"}]}}


def test_of_several_versions_the_newest_is_taken_and_the_others_are_listed():
    found = read([{**VERSION, "version": 9, "template": "old"}, {**VERSION, "version": 10, "template": "new"}])
    assert found.prompts["summary"]["messages"][0]["content"] == "new"
    assert next(note.what for note in found.left_out) == "version 9"


@pytest.mark.parametrize(
    ("data", "message"),
    [({"name": "x"}, "no prompt of MLflow is in it"), ({**VERSION, "template": [{"role": "x"}]}, "holds no messages"),
     ({**VERSION, "template": "{% extends 'x' %}"}, "the template is refused")],
)  # fmt: skip
def test_what_holds_no_prompt_is_refused(data, message):
    with pytest.raises(BadFile, match=message):
        read(data)


@pytest.mark.parametrize(
    "aliases",
    [
        [{"alias": "champion", "version": "2"}, {"alias": "old", "version": 1}],
        {"champion": 2, "old": "1"},
    ],
)
def test_aliases_of_the_registered_model_are_labels_of_the_version_that_they_name(aliases):
    versions = [{"name": "q", "version": "2", "template": "hi"}, {"name": "q", "version": "1", "template": "hello"}]
    found = read({"registered_model": {"name": "q", "aliases": aliases}, "model_versions": versions})

    assert found.prompts["q"]["labels"] == ["champion"]
    assert [(note.what, note.why) for note in found.left_out] == [
        ("version 1", "only the newest version is imported"),
        ("old", "it names version 1, and only the newest is imported"),
    ]


def test_a_registered_model_is_read_with_its_latest_versions_and_what_stands_beside_is_listed():
    row = {"name": "q", "version": "2", "tags": [{"key": "mlflow.prompt.text", "value": "hi"}]}
    model = {"name": "q", "aliases": [{"alias": "best", "version": "2"}], "latest_versions": [row], "odd": 1}
    found = read({"registered_model": model})

    assert found.prompts == {
        "q": {"name": "q", "labels": ["best"], "messages": [{"role": "user", "content": "hi"}]},
    }
    assert places(found) == ["odd"]


def test_a_version_s_own_aliases_may_name_versions_too():
    own = {"name": "q", "version": 3, "template": "hi", "aliases": [{"alias": "best", "version": 3}, "plain"]}
    assert read(own).prompts["q"]["labels"] == ["plain", "best"]
