"""All that is wrong with a prompt is told in one run: no fault hides another, and none is guessed from what is lost."""

from __future__ import annotations

import pytest

from tests.service.cli.projects import CONFIG, Project


def told(project: Project, text: str, **others: str) -> list[str]:
    """What a check tells of the prompt `a`, beside others."""
    project.write("turnout.yaml", CONFIG)
    for name, other in {"a": text, **others}.items():
        project.write(f"prompts/{name}.prompt.yml", other)
    faults = project.json("check", "prompts/a.prompt.yml", exit_code=2)["faults"]
    return [f"{fault['line']} {fault['level']} {fault['message']}" for fault in faults]


PROMPT = """\
model: modle-a
variables: {x: {type: string, minLength: 1}, z: {type: string}}
labels: [production]
modelParameters: {temperture: 1}
messages:
  - {role: system, content: "Be kind. {% include 'gone' %}"}
  - {role: user, content: "{{ x }} and {{ y }}"}
"""
UNUSED = "2 warning variable 'z' is never used, unless by gone, which cannot be included"
UNDECLARED = "7 error the template uses 'y', which `variables` does not declare"
OTHERS = [
    "1 warning turnout.yaml has no model 'modle-a'",
    "3 warning the label 'production' is protected: a push is refused unless this version has passed its gate",
    "4 warning modelParameters.temperture is no parameter of OpenAI's protocol",
    "6 error include 'gone': no such prompt",
]


def test_an_undeclared_name_an_unknown_include_and_an_unused_variable_are_told_in_one_run(workspace: Project) -> None:
    assert told(workspace, PROMPT) == sorted([*OTHERS, UNUSED, UNDECLARED])


def test_an_unknown_include_hides_no_other_finding(workspace: Project) -> None:
    assert told(workspace, PROMPT.replace(" and {{ y }}", "")) == sorted([*OTHERS, UNUSED])


def test_every_include_that_cannot_be_taken_is_told_at_each_of_its_messages(workspace: Project) -> None:
    text = """\
model: model-a
variables: {x: {type: string}}
messages:
  - {role: system, content: "{% include 'a' %}{% include 'two' %}{% include 'tone' %}"}
  - {role: user, content: "Hello. {% include 'two' %}{% include 'gone' %}"}
"""
    two = "model: model-a\nmessages: [{role: system, content: x}, {role: user, content: y}]\n"
    tone = "model: model-a\nmessages: [{role: system, content: Be kind.}]\n"
    assert told(workspace, text, two=two, tone=tone) == [
        "2 warning variable 'x' is never used, unless by a, two, gone, which cannot be included",
        "4 error include 'a' goes in a circle: a → a",
        "4 error include 'two' has 2 messages; a prompt that is included has one",
        "5 error include 'gone': no such prompt",
        "5 error include 'two' has 2 messages; a prompt that is included has one",
    ]


def test_a_fault_of_a_key_hides_no_bad_include_and_no_unused_variable(workspace: Project) -> None:
    tone = "model: model-a\nmessages: [{role: system, content: 'Be kind.'}]\n"
    text = "model: model-a\nvariables: {x: {}}\nmesages: []\nmessages: [{role: user, content: \"Hi {% include 'tone' %}\"}]\n"
    assert told(workspace, text, tone=tone) == [
        "2 error variable 'x' is never used, nor by what is included",
        "3 error unknown key 'mesages'",
    ]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        # what stands in a message that cannot be read may use anything, and may be empty or not
        ("model: model-a\nvariables: {x: {type: string}}\nmessages:\n  - {role: system, content: \"{% include 'tone' %}\"}\n"
         "  - {role: user, content: '{% if %}'}\n",
         ["5 error line 1: Expected an expression, got 'end of statement block'"]),
        # whose schema it is that allows the empty text is not known, nor which model is meant
        ("variables: {x: 5}\nmessages: [{role: user, content: '{{ x }}'}]\n",
         ["1 error 'model' is missing", "1 error variables.x: expected keys and values, found 5"]),
        # nor what the examples have to give
        ("model: model-a\nvariables: {x: {type: string}}\nmessages: [{role: user, content: 'Now {{ x }} {{ y }}'}]\n"
         "examples: [{vars: {x: a}, expected: b}]\n",
         ["3 error the template uses 'y', which `variables` does not declare"]),
        ("model: model-a\nmessages: [{placeholder: h}, {role: user, content: Hi}]\nmodelParameters: {max_tokens: x}\n",
         ["2 error `placeholders` does not declare 'h'",
          "3 error modelParameters.max_tokens: 'x' is not a whole number, 1 or more"]),
        ("- a\n", ["1 error expected keys and values here, found ['a']"]),
        ("a: [\n", ["2 error not valid YAML: did not find expected node content"]),
    ],
)  # fmt: skip
def test_what_is_lost_gives_no_findings(workspace: Project, text: str, faults: list[str]) -> None:
    tone = "model: model-a\nmessages: [{role: system, content: 'Be kind.'}]\n"
    assert told(workspace, text, tone=tone) == faults


def test_a_prompt_that_is_too_large_is_not_looked_at_any_further(workspace: Project) -> None:
    workspace.write("turnout.yaml", CONFIG + "registry: {max_prompt_bytes: 1024}\n")
    workspace.write("prompts/a.prompt.yml", PROMPT + "#" * 1024)
    [fault] = workspace.json("check", exit_code=2)["faults"]
    assert "a prompt may have 1,024" in fault["message"]


def test_a_fault_of_one_placeholder_hides_no_other_that_is_not_declared(workspace: Project) -> None:
    text = """\
model: model-a
placeholders: {history: {bad: 1}, my-list: {}}
messages: [{placeholder: gone}, {placeholder: my-list}, {role: usr, content: hello}]
"""
    assert told(workspace, text) == [
        "2 error placeholder 'history' is never used",
        "2 error placeholders.my-list: 'my-list' is no name of a variable",
        "2 error unknown key 'placeholders.history.bad'",
        "3 error `placeholders` does not declare 'gone'",
        "3 error messages.2.role: expected one of system, developer, user, assistant or tool, found 'usr'",
    ]


def test_placeholders_that_cannot_be_read_are_not_told_to_be_missing(workspace: Project) -> None:
    text = "model: model-a\nplaceholders: [history]\nmessages: [{placeholder: history}, {role: user, content: hello}]\n"
    assert told(workspace, text) == ["2 error placeholders: expected keys and values, found ['history']"]
