import pytest

from prompts.errors import BadFile
from prompts.formats.prompty import read_prompty
from tests.prompts.formats.importing import foreign, places, rendered

FIRST = """\
---
name: Support
description: Answers a customer
authors: [Ann]
tags: [support]
model:
  api: chat
  configuration:
    type: azure_openai
    azure_deployment: gpt-4o
    api_key: not-to-be-shown
  parameters:
    max_tokens: 128
    temperature: 0.2
    response_format: {type: json_object}
    stream: true
inputs:
  question: {type: string}
  customer: {type: object}
  tone: {type: string, default: kind}
  spare: {type: string}
sample:
  question: Where is it?
  customer: {name: Ann}
---
system:
Be {{ tone }} to {{ customer.name }}.
{% for item in history %}
{{ item.role }}:
{{ item.content }}
{% endfor %}

# user:
{{ question }}
![photo]({{ photo }})
"""
SECOND = """\
---
name: weather
model:
  id: gpt-4o
  provider: openai
  connection: {kind: key, apiKey: "${env:KEY}"}
  options: {temperature: 0.5, maxOutputTokens: 64, topK: 4, additionalProperties: {seed: 7}}
inputs:
  - {name: city, kind: string, description: where, required: false}
  - {name: talk, kind: thread}
  - {name: photo, kind: image}
  - {name: units, kind: string, enumValues: [C, F], default: C}
outputs:
  - {name: degrees, kind: integer}
tools:
  - name: forecast
    kind: function
    description: Looks it up
    parameters: [{name: city, kind: string}, {name: days, kind: integer, required: false}]
  - {name: files, kind: mcp}
template: {format: {kind: jinja2}, parser: {kind: prompty}}
---
Be brief.

{{talk}}

user[name="Ann"]:
Weather in {{city}} ({{units}})? {{photo}}
"""


def read(text, **more):
    return read_prompty(foreign(text, "a.prompty", **more))


def test_a_file_of_the_first_version_is_read_whole():
    keys = read(FIRST).prompts["a"]
    assert {key: keys[key] for key in keys.keys() - {"messages", "variables"}} == {
        "name": "Support",
        "description": "Answers a customer",
        "tags": ["support"],
        "model": "gpt-4o",
        "modelParameters": {"max_tokens": 128, "temperature": 0.2},
        "responseFormat": "json_object",
        "placeholders": {"history": {"default": []}},
    }
    assert keys["variables"] == {
        "question": {"type": "string", "examples": ["Where is it?"]},
        "customer": {"type": "object", "examples": [{"name": "Ann"}]},
        "tone": {"type": "string", "default": "kind"},
        "photo": {"type": "string"},
    }
    assert rendered(keys, {"question": "Q?", "customer": {"name": "Bo"}, "photo": "https://p"}) == [
        ("system", "Be kind to Bo."),
        ("user", ({"type": "text", "text": "Q?"}, {"type": "image_url", "image_url": {"url": "https://p"}})),
    ]


def test_what_a_prompt_file_has_no_place_for_is_listed_and_no_secret_is_shown():
    found = read(FIRST)
    assert places(found) == [
        "authors",
        "inputs.spare",
        "model.configuration.type",
        "model.configuration.api_key",
        "model.parameters.stream",
    ]
    assert "not-to-be-shown" not in "\n".join(map(str, found.left_out))


def test_a_file_of_the_second_version_is_read_whole():
    found = read(SECOND)
    keys = found.prompts["a"]
    assert keys["model"] == "gpt-4o"
    assert keys["modelParameters"] == {"temperature": 0.5, "max_tokens": 64, "top_k": 4, "seed": 7}
    assert keys["jsonSchema"]["schema"] == {
        "type": "object",
        "properties": {"degrees": {"type": "integer"}},
        "required": ["degrees"],
        "additionalProperties": False,
    }
    assert keys["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "forecast",
                "description": "Looks it up",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                    "required": ["city"],
                    "additionalProperties": False,
                },
            },
        }
    ]
    talk = [{"role": "user", "content": "before"}]
    assert rendered(keys, {"photo": "data:image/png;base64,AA=="}, placeholders={"talk": talk}) == [
        ("system", "Be brief."),
        ("user", "before"),
        ("user", ({"type": "text", "text": "Weather in  (C)?"},
                  {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}})),
    ]  # fmt: skip
    assert sorted(places(found)) == ["27", "model.connection", "model.provider", "tools.1"]


def test_variables_and_what_is_left_out_stand_in_the_order_of_the_file():
    names = [f"v{number}" for number in range(20, 0, -1)]
    head = "".join(f"  {name}: x\n" for name in names)
    unused = "".join(f"  u{number}: {{type: string}}\n" for number in range(20, 0, -1))
    text = "".join(f"{{{{ {name} }}}}" for name in sorted(names))
    found = read(f"---\ninputs:\n{unused}sample:\n{head}---\nuser:\n{text}\n")
    assert list(found.prompts["a"]["variables"]) == names
    assert places(found) == [f"inputs.u{number}" for number in range(20, 0, -1)]


def test_a_sample_in_a_file_beside_is_read_and_one_that_is_not_there_is_listed():
    text = "---\nsample: ${file:s.json}\n---\nuser:\n{{ q }}"
    found = read(text, beside={"s.json": '{"q": "hello"}'}.get)
    assert (found.prompts["a"]["variables"], found.left_out) == ({"q": {"examples": ["hello"], "type": "string"}}, ())
    assert places(read(text)) == ["sample"]


def test_a_declared_type_that_the_sample_or_the_template_contradicts_is_opened_and_listed():
    head = "---\ninputs:\n  a: {type: object}\n  b: {type: object}\nsample: {a: text}\n---\n"
    text = head + "{{ a }}{% for x in b %}{{ x }}{% endfor %}"
    found = read(text)
    assert (found.prompts["a"]["variables"], places(found)) == (
        {"a": {"examples": ["text"]}, "b": {}},
        ["inputs.a", "inputs.b"],
    )


@pytest.mark.parametrize("template", ["mustache", "{format: mustache, parser: prompty}", "{type: mustache}"])
def test_a_mustache_body_is_read(template):
    text = f"---\ntemplate: {template}\nsample: {{items: [a, b]}}\n---\nuser:\n{{{{#items}}}}{{{{.}}}};{{{{/items}}}}"
    assert rendered(read(text).prompts["a"], {"items": ["x", "y"]}) == [("user", "x;y;")]


def test_jinja2_stays_as_its_author_wrote_it():
    body = "{% raw %}{{ no }}{% endraw %} {{ name | upper }} {# note #}"
    assert read(f"user:\n{body}\n").prompts["a"]["messages"] == [{"role": "user", "content": body}]


def test_an_image_in_a_file_and_a_tool_s_message_are_listed():
    found = read("user:\nSee ![x](photo.png)\n\ntool:\nresult\n")
    assert [note.what for note in found.left_out] == ["image photo.png", "tool message"]
    assert found.prompts["a"]["messages"] == [{"role": "user", "content": [{"type": "text", "text": "See"}]}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\nname: x\n---\n", "a.prompty:4: the body is empty"),
        ("system:\n{% if a %}\nuser:\nx\n{% endif %}", "a.prompty:3: the role 'user' stands inside of a block"),
        ("user:\n{% import 'os' as os %}", "a.prompty:2: the template is refused: line 1: {% import %}"),
        ("user:\n{{ x | random }}", "No filter named 'random'"),
        ("---\ntemplate: liquid\n---\nuser:\nx", "the template language 'liquid' is not read"),
    ],
)
def test_what_has_no_meaning_as_messages_is_refused_with_its_line(text, message):
    with pytest.raises(BadFile) as raised:
        read(text)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "declared",
    [
        "inputSchema:\n  properties:\n    - {name: q, kind: string}\n    - {name: n, kind: integer, default: 3}\n",
        "inputSchema:\n  properties:\n    q: {kind: string}\n    n: {kind: integer, default: 3}\n  required: [q, n]\n",
        "inputs:\n  - q: {type: string}\n  - n: {type: integer, default: 3}\n",
    ],
)
def test_inputs_of_version_2_keep_their_types_and_defaults(declared):
    found = read_prompty(
        foreign(f"---\nmodel: {{id: gpt-4o}}\n{declared}---\nuser:\n{{{{ q }}}} {{{{ n }}}}\n", "a.prompty")
    )

    assert found.prompts["a"]["variables"] == {"q": {"type": "string"}, "n": {"type": "integer", "default": 3}}
    assert places(found) == []
