import pytest

from prompts.errors import BadFile
from prompts.formats.dotprompt import read_dotprompt
from prompts.formats.imported import Partial
from tests.prompts.formats.importing import foreign, loaded, places, rendered

FULL = """\
# Copyright of somebody
---
model: googleai/gemini-2.0-flash
name: triage
config:
  temperature: 0.2
  maxOutputTokens: 100
  stopSequences: [END]
  safetySettings: []
input:
  schema:
    ticket: string, what the customer wrote
    tone?: string
    tags(array, labels so far): string
    unused?: number
  default:
    tone: kind
output:
  format: json
  schema:
    queue(enum): [billing, other]
    why?: string
tools: [lookup]
metadata: {owner: me}
my.extension: 1
---
{{role "system"}}Be {{tone}}.
{{history}}
{{role "user"}}{{#each tags}}{{this}} {{/each}}{{ticket}}
"""


def read(text, **more):
    return read_dotprompt(foreign(text, "triage.prompt", "triage", **more))


def refused(text, **more):
    with pytest.raises(BadFile) as raised:
        read(text, **more)
    return str(raised.value)


def test_a_whole_file_is_read_into_the_keys_of_a_prompt_file():
    assert read(FULL).prompts == {
        "triage": {
            "name": "triage",
            "model": "googleai/gemini-2.0-flash",
            "modelParameters": {"temperature": 0.2, "max_tokens": 100, "stop": ["END"]},
            "responseFormat": "json_schema",
            "jsonSchema": {
                "name": "output",
                "schema": {
                    "type": "object",
                    "properties": {"queue": {"enum": ["billing", "other"]}, "why": {"type": ["string", "null"]}},
                    "additionalProperties": False,
                    "required": ["queue"],
                },
            },
            "messages": [
                {"role": "system", "content": "Be {{ tone }}.\n"},
                {"placeholder": "history"},
                {"role": "user", "content": "{% for tag in tags %}{{ tag }} {% endfor %}{{ ticket }}"},
            ],
            "placeholders": {"history": {"default": []}},
            "variables": {
                "ticket": {"type": "string", "description": "what the customer wrote"},
                "tone": {"type": "string", "default": "kind"},
                "tags": {"type": "array", "items": {"type": "string"}, "description": "labels so far"},
            },
        }
    }


def test_what_has_no_place_in_a_prompt_file_is_listed():
    assert places(read(FULL)) == ["metadata", "my.extension", "config.safetySettings", "tools.0", "variable unused"]


def test_the_file_that_is_written_renders_the_same_messages():
    keys = read(FULL).prompts["triage"]
    assert rendered(
        keys, {"ticket": "T", "tags": ["a", "b"]}, placeholders={"history": [{"role": "user", "content": "H"}]}
    ) == [
        ("system", "Be kind.\n"),
        ("user", "H"),
        ("user", "a b T"),
    ]
    assert [role for role, _ in rendered(keys, {"ticket": "T", "tags": []})] == ["system", "user"]


def test_text_before_any_role_is_the_user_s_and_stays_to_the_byte_without_front_matter():
    assert read("Hello {{name}}\n").prompts == {"triage": {"messages": [{"role": "user", "content": "Hello {{ name }}\n"}],
                                                          "variables": {"name": {"type": "string"}}}}  # fmt: skip


def test_an_image_is_a_part():
    keys = read("{{role 'user'}}Look: {{media url=photo contentType='image/png'}} what is it?").prompts["triage"]
    assert rendered(keys, {"photo": "https://a.b/c.png"}) == [
        (
            "user",
            (
                {"type": "text", "text": "Look: "},
                {"type": "image_url", "image_url": {"url": "https://a.b/c.png"}},
                {"type": "text", "text": " what is it?"},
            ),
        )
    ]


def test_media_that_is_no_image_or_not_always_there_is_listed():
    found = read("x {{media url=v contentType='video/mp4'}}{{#if p}}{{media url=p}}{{/if}}")
    assert [note.what for note in found.left_out] == ["media video/mp4", "media"]
    assert found.prompts["triage"]["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "x "}, {"type": "text", "text": "{% if p %}{% endif %}"}]}
    ]


def test_a_loop_over_messages_is_a_placeholder():
    keys = read("{{#if past}}{{#each past}}{{role this.role}}{{this.content}}{{/each}}{{/if}}\nNow {{q}}").prompts[
        "triage"
    ]
    assert keys["messages"] == [{"placeholder": "past"}, {"role": "user", "content": "\nNow {{ q }}"}]
    assert keys["variables"] == {"q": {"type": "string"}}


def test_roles_as_blocks_are_messages():
    keys = read('{{#role "system"}}\nS\n{{/role}}\n{{#role "model"}}M{{/role}}').prompts["triage"]
    assert [(m["role"], m["content"]) for m in keys["messages"]] == [("system", "S\n"), ("assistant", "M")]


def test_a_partial_is_an_include_and_one_with_roles_stands_in_its_place():
    partials = {
        "tone": Partial("Be kind.", "imported.tone"),
        "head": Partial('{{role "system"}}S {{who}}{{role "user"}}', "x"),
    }
    keys = read("{{> head who=who}}{{> tone}} {{q}}", partials=partials).prompts["triage"]
    assert keys["messages"] == [
        {"role": "system", "content": "S {{ who }}"},
        {"role": "user", "content": "{% include 'imported.tone' %} {{ q }}"},
    ]


def test_a_section_and_an_unknown_schema_are_listed():
    found = read("---\nmodel: m\noutput: {schema: Recipe}\n---\nA {{section 'x'}}B")
    assert places(found) == ["5", "output.schema"]
    assert found.prompts["triage"]["responseFormat"] == "json_object"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\nmodel: m\n---\n", "triage.prompt:4: the template is empty"),
        ("---\n- a\n---\nx", "the front matter is no keys and values"),
        ("---\na: [\n---\nx", "triage.prompt:3: not valid YAML"),
        ("---\nmodel: m\n---\n\nx\n{{#if a}}", "triage.prompt:6: {{#if a}} is never closed"),
        ("{{role 'robot'}}x", "the role is 'robot'"),
        ("{{role who}}x", "the role is 'a value'"),
        ("{{#if a}}{{role 'user'}}x{{/if}}", "{{role}} inside a block"),
        ("{{media x=1}}", "{{media}} without url"),
    ],
)
def test_what_has_no_meaning_as_messages_is_refused_with_its_line(text, message):
    assert message in refused(text)


def test_optional_inputs_without_a_default_may_be_left_out():
    schema = "{a?: string, b?(array): string, c?: integer, d?(enum): [x]}"
    text = "---\ninput:\n  schema: " + schema + "\n---\n{{a}}{{b}}{{c}}{{d}}"
    keys = read(text).prompts["triage"]
    assert {name: schema["default"] for name, schema in keys["variables"].items()} == {
        "a": "",
        "b": [],
        "c": None,
        "d": None,
    }
    assert rendered(keys) == [("user", "")]
    assert rendered(keys, {"a": "1", "b": ["2", "3"], "c": 4, "d": "x"}) == [("user", "12,34x")]


def test_what_is_read_loads():
    assert loaded(read(FULL).prompts["triage"]).includes == ()
