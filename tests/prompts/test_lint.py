import pytest

from prompts.errors import Fault
from prompts.formats.prompt_yml import load_prompt
from prompts.lint import allows_empty, lint_prompt
from prompts.prompt import MessageTemplate
from prompts.registry import nothing_registered, resolve


def found(text, **siblings):
    """(rule, level, line) of what is found in a prompt, beside those it includes."""
    source = load_prompt(text, "p.yml", "p")
    others = {name: load_prompt(other, f"{name}.yml", name) for name, other in siblings.items()}
    content = resolve(source, {**others, "p": source}, nothing_registered)
    return [(fault.rule, fault.level, fault.line) for fault in lint_prompt(source, content)]


def prompt(template, schema="{type: string}", name="a"):
    return f"model: m\nvariables:\n  {name}: {schema}\nmessages:\n  - role: user\n    content: {template!r}\n"


EMPTY = [("empty-message", "warning", 6)]


@pytest.mark.parametrize(
    ("template", "schema"),
    [
        ("{{ a }}", "{type: string}"),
        ("  {{ a }} ", "{type: string, maxLength: 10}"),
        ("{{ a }}", "{type: string, default: x}"),
        ("{{ a }}", "{type: string, enum: ['', x]}"),
        ("{{ a }}", "{type: [string, 'null']}"),
        ("{{ a|trim|upper }}", "{type: string}"),
        ("{% if a %}Hello {{ a }}{% endif %}", "{type: string}"),
        ("{% if a == 'x' %}yes{% elif a == 'y' %}no{% endif %}", "{type: string, minLength: 1}"),
        ("{% if a %}{{ a }}{% else %} {% endif %}", "{type: string}"),
        ("{% for x in a %}- {{ x }}{% endfor %}", "{type: array}"),
        ("{% set b = a %}{{ a }}", "{type: string}"),
        ("{{ a.b }}", "{type: object, properties: {b: {type: string}}}"),
        ("{{ a['b'] }}", "{type: object, properties: {b: {type: string}}}"),
    ],
)
def test_a_message_of_nothing_but_variables_that_may_be_empty_is_found(template, schema):
    assert found(prompt(template, schema)) == EMPTY


@pytest.mark.parametrize(
    ("template", "schema"),
    [
        ("Ticket: {{ a }}", "{type: string}"),
        ("{{ a }}", "{type: string, minLength: 1}"),
        ("{{ a }}", "{type: string, enum: [x, y]}"),
        ("{{ a }}", "{type: string, const: x}"),
        ("{{ a }}", "{type: string, pattern: '^x'}"),
        ("{{ a }}", "{type: integer}"),
        ("{{ a }}", "{}"),
        ("{{ a|tojson }}", "{type: string}"),
        ("{{ a|default('x', true) }}", "{type: string}"),
        ("{% if a %}{{ a }}{% else %}nothing{% endif %}", "{type: string}"),
        ("{% if a %}{{ a }}{% endif %}", "{type: string, minLength: 1}"),
        ("{% for x in a %}- {{ x }}{% endfor %}", "{type: array, minItems: 1}"),
        ("{% for x in a %}- {{ x }}{% else %}none{% endfor %}", "{type: array}"),
        ("{{ a.b }}", "{type: object}"),
    ],
)
def test_a_message_that_always_says_something_is_not(template, schema):
    assert found(prompt(template, schema)) == []


def test_the_fix_names_the_variables_that_may_be_empty():
    source = load_prompt(prompt("{{ a }}"), "p.yml", "p")
    [fault] = lint_prompt(source, source.content)
    assert str(fault) == (
        "p.yml:6: warning: the user message may be empty: nothing but variables makes its text"
        " (give a `minLength: 1`, or write some text beside)"
    )


def test_a_message_with_an_image_is_never_empty_and_one_of_empty_texts_is():
    image = "model: m\nmessages:\n  - role: user\n    content:\n      - {type: text, text: '{{ a }}'}\n"
    assert found(image) == [("empty-message", "warning", 4)]
    assert found(image + "      - {type: image_url, image_url: {url: 'https://x.example/{{ a }}'}}\n") == []


def test_what_is_included_counts_as_text_of_the_message():
    assert (
        found(prompt("{% include 'tone' %}{{ a }}"), tone="model: m\nmessages: [{role: user, content: Be kind.}]") == []
    )
    assert (
        found(prompt("{% include 'tone' %}{{ a }}"), tone="model: m\nmessages: [{role: user, content: '{{ a }}'}]")
        == EMPTY
    )


def test_a_variable_that_neither_the_prompt_nor_its_includes_use_is_an_error():
    text = prompt("x {% include 'tone' %}")
    unused = [("unused-variable", "error", 3)]
    assert found(text, tone="model: m\nmessages: [{role: user, content: Be kind.}]") == unused
    assert found(text, tone="model: m\nmessages: [{role: user, content: 'Be {{ a }}.'}]") == []


def test_what_an_include_that_could_not_be_taken_may_hold_is_not_guessed():
    source = load_prompt(prompt("{% include 'gone' %}{% include 'lost' %}"), "p.yml", "p")
    blank = source.content.model_copy(update={"messages": (MessageTemplate(role="user", content=""),)})
    assert [str(fault) for fault in lint_prompt(source, blank, unread=("gone", "lost"))] == [
        "p.yml:3: warning: variable 'a' is never used, unless by gone, lost, which cannot be included"
        " (use it or remove it)"
    ]


@pytest.mark.parametrize("schema", [{"anyOf": [{"minLength": 1}]}, {"type": "string", "$ref": "#/x"}, {"const": ""}])
def test_a_schema_whose_parts_would_tell_is_not_said_to_allow_the_empty_text(schema):
    assert allows_empty(schema) is False


def test_a_warning_says_so_and_sorts_with_the_errors_of_its_line():
    warning = Fault("a.yml", 3, "may be", "mend it", "warning", "some-rule")
    assert str(warning) == "a.yml:3: warning: may be (mend it)"
    assert sorted([warning, Fault("a.yml", 2, "x")])[0].line == 2
