import re

import pytest

from prompts.errors import BadFile
from prompts.formats.prompt_yml import load_prompt
from prompts.prompt import compile_prompt
from prompts.registry import nothing_registered, resolve_all

GITHUB = """\
name: Text Summarizer
description: Summarizes input text concisely
model: openai/gpt-4o-mini
modelParameters:
  temperature: 0.5
messages:
  - role: system
    content: You are a text summarizer. Your only job is to summarize text given to you.
  - role: user
    content: |
      Summarize the given text, beginning with "Summary -":
      <text>
      {{input}}
      </text>
testData:
  - input: |
      The quick brown fox jumped over the lazy dog.
    expected: Summary - A fox jumped over a lazy dog.
evaluators:
  - name: Output should start with 'Summary -'
    string:
      startsWith: 'Summary -'
  - name: Similarity
    uses: github/similarity
"""
OURS = """\
name: Ticket triage
description: Sends a ticket to a queue
model: smollm2-135m
modelParameters: {temperature: 0, max_tokens: 12, seed: 7}
variables:
  ticket: {type: string, maxLength: 4000}
messages:
  - {role: system, content: "Route the ticket. {% include 'support.tone' %}"}
  - {role: user, content: "{{ ticket }}"}
responseFormat: json_schema
jsonSchema: {type: object, properties: {queue: {type: string}}}
labels: [staging]
tags: [support]
"""
HEAD = "model: m\nmessages:\n  - {role: user, content: '{{ a }}'}\n"


def faults_of(text):
    with pytest.raises(BadFile) as raised:
        load_prompt(text, "p.yml", "p")
    return [str(fault) for fault in raised.value.faults]


def test_github_s_own_format_is_read_as_it_is():
    source = load_prompt(GITHUB, "p.yml", "summarizer")
    assert (source.title, source.model, source.content.parameters) == (
        "Text Summarizer",
        "openai/gpt-4o-mini",
        {"temperature": 0.5},
    )
    assert [message.role for message in source.messages] == ["system", "user"]
    assert (
        source.messages[1].content
        == 'Summarize the given text, beginning with "Summary -":\n<text>\n{{input}}\n</text>\n'
    )
    assert (source.variables, source.declared) == ({"input": {"type": "string"}}, False)


def test_github_s_structured_output_is_read_as_it_is():
    schema = '{"name": "animal", "strict": true, "schema": {"type": "object", "properties": {}}}'
    source = load_prompt(f"{HEAD}responseFormat: json_schema\njsonSchema: |-\n  {schema}\n", "p.yml", "p")
    assert source.content.output_schema == {
        "name": "animal",
        "strict": True,
        "schema": {"type": "object", "properties": {}},
    }


def test_our_superset_is_read():
    source = load_prompt(OURS, "p.yml", "support.ticket-triage")
    assert source.includes == ("support.tone",)
    assert source.variables == {"ticket": {"type": "string", "maxLength": 4000}}
    assert source.content.output_schema == {
        "name": "output",
        "strict": True,
        "schema": {"type": "object", "properties": {"queue": {"type": "string"}}},
    }
    assert (source.labels, source.tags, source.declared) == (("staging",), ("support",), True)
    assert source.fault("what", "messages", 1).line == 9


def test_unknown_keys_bad_values_duplicates_and_broken_templates_are_reported_together():
    assert faults_of(
        "nam: x\nmodel: m\nmodel: n\nmodelParameters: 7\nvariables:\n  1a: {type: string}\n  b: {type: text}\n"
        "  c: {type: string, default: 3}\nmessages:\n  - {role: bot, content: a}\n  - role: user\n    content: '{{ a'\n"
        "    contnt: b\nlabels: [latest, Prod]\n"
    ) == [
        "p.yml:1: unknown key 'nam' (did you mean 'name'?)",
        "p.yml:3: duplicate key 'model' (remove one; the first is at line 2)",
        "p.yml:4: modelParameters: expected keys and values, found 7 (write `key: value` lines, or {key: value})",
        "p.yml:6: variables.1a: '1a' is no name of a variable (write letters, digits and _, first a letter)",
        "p.yml:7: variables.b: type 'text' is none of JSON Schema's"
        " (known here: array, boolean, integer, null, number, object, string)",
        "p.yml:8: variables.c: its default does not satisfy its schema: 3 is not of type 'string'"
        " (mend the default, or the schema)",
        "p.yml:10: messages.0.role: expected one of system, developer, user, assistant or tool, found 'bot'"
        " (write system, developer, user, assistant or tool)",
        "p.yml:12: line 1: unexpected end of template, expected 'end of print statement'. (mend the template)",
        "p.yml:13: unknown key 'messages.1.contnt' (did you mean 'content'?)",
        "p.yml:14: labels.0: the label 'latest' moves by itself: it is always the newest version"
        " (write lower-case letters, digits, _, . and -, first a letter; `latest` is left out)",
        "p.yml:14: labels.1: 'Prod' is no label: a lower-case letter, then letters, digits, _ . -, at most 64 characters"
        " (write lower-case letters, digits, _, . and -, first a letter; `latest` is left out)",
    ]


def test_templates_and_variables_that_do_not_fit_are_reported_together():
    text = "model: m\nvariables:\n  a: {type: string}\nmessages:\n  - {role: user, content: '{{ a }}{{ b }}'}\n"
    assert faults_of(
        text + "  - {role: user, content: '{{ a.__class__ }}'}\n  - {role: user, content: '{% include x %}'}\n"
    ) == [
        "p.yml:5: the template uses 'b', which `variables` does not declare"
        " (declare it: `variables: {b: {type: string}}`)",
        "p.yml:6: line 1: '__class__' is not open to templates (mend the template)",
        "p.yml:7: line 1: write {% include 'name' %} with one quoted name (mend the template)",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "p.yml:1: expected keys and values here, found nothing"),
        ("- a", "p.yml:1: expected keys and values here, found ['a']"),
        ("model: m", "p.yml:1: 'messages' is missing (add `messages:`)"),
        ("messages: [{role: user, content: a}]", "p.yml:1: 'model' is missing (add `model:`)"),
        ("model: ''\nmessages: [{role: user, content: a}]", "p.yml:1: model: a text is needed"),
        ("model: m\nmessages: []", "p.yml:2: messages: expected at least 1 item"),
        ("model: m\nmessages: {role: user}", "p.yml:2: messages: expected a list"),
        ("model: m\nmessages:\n  - {role: user}", "p.yml:3: 'messages.0.content' is missing (add `content:`)"),
        ("model: m\nmessages:\n  - {role: user, content: 7}", "p.yml:3: messages.0.content: expected a text"),
        ("model: m\nmessages:\n  - {role: user, content: [{type: text}]}",
         "p.yml:3: messages.0.content.0: a part of type text needs its `text`"),
        ("model: m\nmessages:\n  - {role: user, content: []}",
         "p.yml:3: messages.0.content: a content of parts needs at least one"),
        ("model: m\nmessages:\n  - {role: user, content: [{type: image_url, image_url: u}]}",
         "p.yml:3: messages.0.content.0: a part of type image_url needs its address"),
        ("model: m\nmessages:\n  - {placeholder: h}",
         "p.yml:3: `placeholders` does not declare 'h' (declare it: `placeholders: {h: {}}`)"),
        ("model: m\nmessages:\n  - {placeholder: h, role: user}", "p.yml:3: 'messages.0.role' does not go with `placeholder`"),
        (HEAD + "placeholders: {h: {}}\n",
         "p.yml:4: placeholder 'h' is never used (add `- placeholder: h` to `messages`, or remove it)"),
        (HEAD + "placeholders: {h: {default: [{role: system, content: x}]}}\n",
         "p.yml:4: placeholders.h.default: default[0]: role 'system' may not follow a prompt"),
        (HEAD + "examples: [{vars: {a: x}}]\n", "p.yml:4: 'examples.0.expected' is missing (add `expected:`)"),
        (HEAD + "tools: [{type: function}]\n", "p.yml:4: tools.0: no tool ("),
        (HEAD + "tools: [{type: function, function: {name: f, parameters: {type: 7}}}]\n",
         "p.yml:4: tools.0: parameters of 'f' are no JSON Schema: 7 is"),
        (HEAD + "modelParameters: {maxTokens: 1, max_tokens: 2}\n",
         "p.yml:4: modelParameters.maxTokens and max_tokens are the same parameter (remove one of the two)"),
        (HEAD + "toolChoice: sometimes\n", "p.yml:4: toolChoice: no choice of a tool"),
        (HEAD + "variables:\n  a: {}\n  b: {}\n", "p.yml:6: variable 'b' is never used (use it or remove it)"),
        (HEAD + "variables:\n  a: {$ref: 'file:///etc/passwd'}\n", "p.yml:5: variables.a: no JSON Schema: $ref"),
        (HEAD + "variables:\n  a: 7\n", "p.yml:5: variables.a: expected keys and values"),
        (HEAD + "variables:\n  _a: {}\n  a: {}\n", "p.yml:5: variables._a: '_a' is no name of a variable"),
        (HEAD + "responseFormat: json_schema\n", "p.yml:4: responseFormat and jsonSchema go together"),
        (HEAD + "jsonSchema: {}\n", "p.yml:1: responseFormat and jsonSchema go together"),
        (HEAD + "responseFormat: yaml\n", "p.yml:4: responseFormat: expected one of text, json_object or json_schema"),
        (HEAD + "responseFormat: json_schema\njsonSchema: '{'\n", "p.yml:5: jsonSchema is not JSON"),
        (HEAD + "responseFormat: json_schema\njsonSchema: '[1]'\n", "p.yml:5: jsonSchema is no JSON object"),
        (HEAD + "responseFormat: json_schema\njsonSchema: {type: 7}\n", "p.yml:5: jsonSchema is no JSON Schema: 7 is"),
        (HEAD + "responseFormat: json_schema\njsonSchema: {schema: 7}\n", "p.yml:5: jsonSchema is no JSON object"),
        (HEAD + f"responseFormat: json_schema\njsonSchema: '{'[' * 100_000}'\n", "p.yml:5: jsonSchema is not JSON"),
        (HEAD + "modelparameters: {}\n", "p.yml:4: unknown key 'modelparameters' (did you mean 'modelParameters'?)"),
        (HEAD + "x: !!python/name:os.system\n", "p.yml:4: YAML tag"),
    ],
)  # fmt: skip
def test_a_bad_file_is_told_where_and_how(text, fault):
    assert any(found.startswith(fault) for found in faults_of(text)), faults_of(text)


def test_variables_of_an_include_are_not_called_unused():
    text = "model: m\nvariables: {tone: {type: string}}\nmessages: [{role: user, content: \"{% include 'x' %}\"}]"
    assert load_prompt(text, "p.yml", "p").variables == {"tone": {"type": "string"}}


def test_an_infinite_parameter_is_text_and_has_a_digest():
    assert load_prompt(HEAD + "modelParameters: {top_k: 1e999}", "p.yml", "p").content.parameters == {"top_k": "1e999"}


def test_a_closed_set_of_variables_may_be_empty():
    assert load_prompt("model: m\nvariables: {}\nmessages: [{role: user, content: a}]", "p.yml", "p").variables == {}


SUPERSET = """\
model: m
notes: "Worse with long tickets."
variables: {question: {type: string}, picture: {type: string, default: "https://example.com/a.png"}}
placeholders: {history: {default: [], maxMessages: 2}}
messages:
  - {role: system, content: Look closely.}
  - {placeholder: history}
  - role: user
    content:
      - {type: text, text: "Q: {{ question }}"}
      - {type: image_url, image_url: {url: "{{ picture }}", detail: low}}
examples:
  - {vars: {question: "1+1"}, expected: {answer: 2}}
tools:
  - {type: function, function: {name: look, parameters: {type: object, properties: {}}}}
toolChoice: auto
"""


def test_the_superset_becomes_messages_parts_examples_and_tools():
    source = load_prompt(SUPERSET, "p.yml", "p")
    content = resolve_all({"p": source}, nothing_registered)["p"]
    history = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    shown = [
        message.as_dict() for message in compile_prompt(content).render({"question": "2+2"}, (), {"history": history})
    ]

    def asked(question):
        image = {"url": "https://example.com/a.png", "detail": "low"}
        return [{"type": "text", "text": f"Q: {question}"}, {"type": "image_url", "image_url": image}]

    assert source.notes == "Worse with long tickets."
    assert shown == [
        {"role": "system", "content": "Look closely."},
        {"role": "user", "content": asked("1+1")},
        {"role": "assistant", "content": '{"answer": 2}'},
        *history,
        {"role": "user", "content": asked("2+2")},
    ]
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    assert content.request_parameters() == {"tools": [tool], "tool_choice": "auto"}


def test_github_s_parameters_are_asked_for_in_openai_s_words():
    source = load_prompt(HEAD + "modelParameters: {maxTokens: 5, topP: 0.5, temperature: 0}", "p.yml", "p")
    assert source.content.parameters == {"max_tokens": 5, "top_p": 0.5, "temperature": 0}


@pytest.mark.parametrize(
    ("examples", "fault"),
    [
        ("{vars: {a: x, b: y}, expected: z}", "p.yml:4: examples.0: unexpected variable 'b': the prompt declares a"),
        ("{vars: {}, expected: z}", "p.yml:4: examples.0: missing variable 'a': give it in `variables`"),
        ("{vars: {a: 7}, expected: z}", "p.yml:4: examples.0: variable 'a': expected a string, found int"),
    ],
)
def test_an_example_is_checked_as_a_request_is(examples, fault):
    source = load_prompt(HEAD + f"examples: [{examples}]", "p.yml", "p")
    with pytest.raises(BadFile, match=re.escape(fault)):
        resolve_all({"p": source}, nothing_registered)


def test_a_bad_role_hides_no_other_fault_of_its_file():
    text = (
        "model:\nvariables: {unused: {type: string}, lang: {type: string}}\nmodelParameters: {temperature: hot}\n"
        "messages:\n  - {role: usr, content: '{{ other }} {{ lang }}'}\n"
        "responseFormat: json_schema\njsonSchema: {type: 7}\n"
    )
    assert [fault.partition(" (")[0] for fault in faults_of(text)] == [
        "p.yml:1: model: expected a text, found nothing",
        "p.yml:2: variable 'unused' is never used",
        "p.yml:3: modelParameters.temperature: 'hot' is not a number from 0 to 2",
        "p.yml:5: messages.0.role: expected one of system, developer, user, assistant or tool, found 'usr'",
        "p.yml:5: the template uses 'other', which `variables` does not declare",
        "p.yml:7: jsonSchema is no JSON Schema: 7 is not valid under any of the given schemas",
    ]


def test_what_cannot_be_read_is_not_called_unused_or_undeclared():
    text = (
        "model: m\nvariables: {a: {type: string}}\nplaceholders: {past: {max: 1}}\n"
        "messages:\n  - {placeholder: past}\n  - {role: user, content: 7}\n"
    )
    assert [fault.partition(": ")[0] for fault in faults_of(text)] == ["p.yml:3", "p.yml:6"]


def test_a_value_that_is_empty_is_told_with_its_fix():
    assert faults_of("model:\nmessages: [{role: user, content: x}]\n") == [
        "p.yml:1: model: expected a text, found nothing (write its value after the colon)"
    ]
