import json

import pytest

from prompts.errors import BadFile
from prompts.formats.promptfoo_prompts import read_promptfoo
from tests.prompts.formats.importing import foreign, places, rendered

CONFIG = """\
description: compares two
prompts:
  - 'Translate: {{text}}'
  - file://prompts/chat.json
  - {id: file://two.txt, label: Pair, config: {temperature: 0.1, foo: 1}}
  - file://make.py:create
  - exec:./make.sh
  - file://many/*.txt
  - file://gone.txt
  - 7
providers: [{id: 'openai:chat:gpt-4o', config: {max_tokens: 5}}]
tests: [{vars: {text: x}}]
"""
CHAT = '[{"role": "system", "content": "S {{who}}"}, {"role": "user", "content": "{{ q | dump }}"}]'


def read(text, path="p.txt", **more):
    return read_promptfoo(foreign(text, path, "p", **more))


def texts(imported):
    return {name: keys["messages"][0]["content"] for name, keys in imported.prompts.items()}


def test_a_text_file_holds_one_prompt_or_several_between_dashes():
    assert texts(read("Hi {{name}}\n")) == {"p": "Hi {{name}}"}
    assert texts(read("one\n---\ntwo\n\n---\n\n --- \nthree")) == {"p-1": "one", "p-2": "two", "p-3": "three"}


@pytest.mark.parametrize("path", ["p.md", "p.j2"])
def test_markdown_and_jinja2_files_are_one_prompt_whole(path):
    assert texts(read("# A\n---\n{{x}}", path)) == {"p": "# A\n---\n{{x}}"}


@pytest.mark.parametrize(
    ("path", "text"),
    [("p.json", CHAT), ("p.yaml", "- role: system\n  content: S {{who}}\n- {role: user, content: '{{ q | dump }}'}"),
     ("p.txt", CHAT), ("p.json", json.dumps({"messages": json.loads(CHAT)}))],
)  # fmt: skip
def test_a_list_of_messages_is_a_chat(path, text):
    keys = read(text, path).prompts["p"]
    assert rendered(keys, {"who": "W", "q": "Q"}) == [("system", "S W"), ("user", '"Q"')]


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
def test_a_separator_of_lines_in_a_prompt_is_text(name):
    assert len(texts(read("one\u2028more\r\ntwo\x85more\n", name))) == 2


def test_json_lines_are_a_prompt_each():
    found = read('[{"role": "user", "content": "a"}]\nplain {{x}}\n', "p.jsonl")
    assert texts(found) == {"p-1": "a", "p-2": "plain {{x}}"}


def test_csv_rows_are_called_by_their_labels():
    found = read('prompt,label,author\n"To French: {{t}}",French One,me\n"To German, {{t}}",,me\n', "p.csv")
    assert texts(found) == {"p.french-one": "To French: {{t}}", "p-2": "To German, {{t}}"}
    assert places(found) == ["column author"]
    assert texts(read("prompt\nfirst\nsecond", "p.csv")) == {"p-1": "first", "p-2": "second"}


@pytest.mark.parametrize(
    ("nunjucks", "expected"),
    [
        ("{{ a | dump }} {{ a | safe }}", "{{ a | tojson }} {{ a }}"),
        ("{% if a === 'x === y' && b !== 1 %}1{% elseif a || b %}2{% endif %}",
         "{% if a == 'x === y'  and  b != 1 %}1{% elif a  or  b %}2{% endif %}"),
        ("{% if items.length > 1 %}{{ items.length }}{% endif %}", "{% if items|length > 1 %}{{ items|length }}{% endif %}"),
        ("{% if a == null %}x{% endif %} null", "{% if a == none %}x{% endif %} null"),
        ("{% asyncEach i in list %}{{ i }}{% endeach %}", "{% for i in list %}{{ i }}{% endfor %}"),
    ],
)  # fmt: skip
def test_what_nunjucks_spells_differently_is_rewritten_within_tags_only(nunjucks, expected):
    assert texts(read(nunjucks)) == {"p": expected}


def test_variables_that_are_more_than_text_are_declared():
    keys = read("{% for i in items %}{{ i.name }}{% endfor %}{{ who }}").prompts["p"]
    assert keys["variables"] == {"items": {"type": "array"}, "who": {"type": "string"}}


def test_the_environment_is_listed():
    assert [note.what for note in read("{{ env.KEY }}").left_out] == ["env"]


def test_a_configuration_gives_its_prompts_and_its_one_model():
    files = {"prompts/chat.json": CHAT, "two.txt": "a\n---\nb"}
    found = read(CONFIG, "promptfooconfig.yaml", beside=files.get, prefix="x.")
    assert texts(found) == {
        "x.prompt-1": "Translate: {{text}}",
        "x.prompts.chat": "S {{who}}",
        "x.pair-1": "a",
        "x.pair-2": "b",
    }
    assert {keys["model"] for keys in found.prompts.values()} == {"gpt-4o"}
    assert found.prompts["x.prompt-1"]["modelParameters"] == {"max_tokens": 5}
    assert found.prompts["x.pair-1"]["modelParameters"] == {"temperature": 0.1}
    assert {place.removeprefix("x.") for place in places(found)} == {
        "tests", "description", "prompts.3", "prompts.4", "prompts.5", "prompts.6", "prompts.7", "pair-1.config.foo",
        "pair-2.config.foo"}  # fmt: skip
    assert "not imported by this version" in next(note.why for note in found.left_out if note.what.startswith("[{"))


def test_several_models_of_a_configuration_are_listed():
    found = read("prompts: [a]\nproviders: [openai:gpt-4o, openai:gpt-4o-mini]", "promptfooconfig.yaml")
    assert ("model" in found.prompts["prompt-1"], places(found)) == (False, ["providers"])


def test_prompts_made_by_code_are_listed():
    found = read("module.exports = () => 'x'", "p.js")
    assert (dict(found.prompts), [note.what for note in found.left_out]) == ({}, ["p.js"])


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("p.txt", " \n", "no prompt is in it"),
        ("p.txt", "{{ x | myFilter }}", "No filter named 'myFilter'"),
        ("p.json", '[{% for m in past %}{"role": "user"}{% endfor %}]', "the template makes the JSON of its messages"),
        ("p.yaml", "a: [", "not valid YAML"),
    ],
)
def test_what_has_no_meaning_as_messages_is_refused(path, text, message):
    with pytest.raises(BadFile) as raised:
        read(text, path)
    assert message in str(raised.value)


def test_what_a_template_asks_about_or_gives_a_default_may_be_left_out():
    text = "Hi{% if x %} {{ x }}{% endif %} {{ y }} {{ z | default('a') }}{{ w or '-' }}"
    keys = read_promptfoo(foreign(text, "p.txt", "p")).prompts["p"]

    assert keys["variables"] == {
        "w": {"type": "string", "default": ""},
        "x": {"type": "string", "default": ""},
        "y": {"type": "string"},
        "z": {"type": "string", "default": "a"},
    }
    assert rendered(keys, {"y": "Y"}) == [("user", "Hi Y a-")]
