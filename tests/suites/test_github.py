import json

import pytest

from prompts.errors import BadFile
from prompts.formats.prompt_yml import load_prompt
from suites.case import Suite
from suites.github import github_keys, suite_of

HEAD = """\
name: Greeter
model: openai/gpt-4o-mini
messages:
  - {role: user, content: "Greet {{name}}"}
"""


def suite(text):
    return suite_of(load_prompt(HEAD + text, "p.prompt.yml", "hello.greeter"))


def test_rows_become_cases_and_evaluators_of_text_their_assertions():
    found = suite(
        "testData:\n  - {name: Ann, expected: Hello Ann}\n  - {name: B+, expected: Hello B+}\n"
        "evaluators:\n  - {name: same, string: {equals: '{{expected}}'}}\n  - {name: has, string: {contains: '{{ name }}!'}}\n"
        "  - {name: start, string: {startsWith: Hello}}\n  - {name: end, string: {endsWith: '{{name}}'}}\n"
    )
    assert found.left_out == ()
    assert found.suite.as_data() == {
        "prompt": "hello.greeter",
        "description": "Greeter",
        "tests": [
            {
                "vars": {"name": name},
                "assert": [
                    {"type": "equals", "value": f"Hello {name}", "metric": "same"},
                    {"type": "icontains", "value": f"{name}!", "metric": "has"},
                    {"type": "regex", "value": r"(?i)\AHello", "metric": "start"},
                    {"type": "regex", "value": rf"(?i){pattern}\Z", "metric": "end"},
                ],
            }
            for name, pattern in (("Ann", "Ann"), ("B+", r"B\+"))
        ],
    }


def test_an_evaluator_that_asks_a_model_is_left_out_and_said_to_be():
    found = suite(
        "testData:\n  - {name: Ann}\nevaluators:\n  - {name: like, uses: github/similarity}\n"
        "  - {name: rude, llm: {modelId: m, prompt: p, choices: []}}\n  - {name: has, string: {contains: Ann}}\n"
    )
    assert [(fault.line, fault.message) for fault in found.left_out] == [
        (8, "evaluator 'like' (github/similarity) asks a model and is no part of the suite"),
        (9, "evaluator 'rude' (llm) asks a model and is no part of the suite"),
    ]
    assert len(found.suite.tests) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("testData: [{name: Ann}]\n", "`testData` has no evaluator of text, and makes no suite"),
        ("evaluators: [{name: a, string: {contains: x}}]\n", "`evaluators` without `testData` test nothing"),
    ],
)
def test_half_of_a_suite_is_none(text, message):
    found = suite(text)
    assert found.suite is None
    assert [fault.message for fault in found.left_out] == [message]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("testData: [{name: Ann}]\nevaluators: [{name: a, string: {like: x}}]\n",
         "p.prompt.yml:6: evaluator 'a' tests nothing that is known"),
        ("testData:\n  - {name: Ann}\nevaluators: [{name: a, string: {equals: '{{expected}}'}}]\n",
         "p.prompt.yml:6: evaluator 'a' names {{expected}}, which row 1 of `testData` does not have (add `expected:` to the row)"),
        ("testData:\n  - {name: Ann}\n  - {name: Ann}\nevaluators: [{name: a, string: {equals: x}}]\n",
         "p.prompt.yml:7: the same variables and assertions as the case at p.prompt.yml:6"),
    ],
)  # fmt: skip
def test_a_bad_row_or_evaluator_is_told_at_its_line(text, fault):
    with pytest.raises(BadFile) as raised:
        suite(text)
    assert str(raised.value).startswith(fault)


def test_a_prompt_without_either_has_no_suite():
    assert suite("") == suite_of(load_prompt(HEAD, "p.prompt.yml", "hello.greeter"))
    assert suite("").suite is None


def test_a_suite_goes_back_into_github_s_words_and_comes_as_it_was():
    first = suite(
        "testData:\n  - {name: Ann, expected: Hello Ann}\n  - {name: B+, expected: Hello B+}\n"
        "evaluators:\n  - {name: same, string: {equals: '{{expected}}'}}\n  - {name: has, string: {contains: x.y}}\n"
        "  - {name: start, string: {startsWith: H.}}\n  - {name: end, string: {endsWith: '{{name}}'}}\n"
    ).suite
    made = github_keys(first)
    assert made.left_out == ()
    assert made.keys == {
        "testData": [
            {"name": "Ann", "expected": "Hello Ann", "expected_2": "Ann"},
            {"name": "B+", "expected": "Hello B+", "expected_2": "B+"},
        ],
        "evaluators": [
            {"name": "same", "string": {"equals": "{{expected}}"}},
            {"name": "has", "string": {"contains": "x.y"}},
            {"name": "start", "string": {"startsWith": "H."}},
            {"name": "end", "string": {"endsWith": "{{expected_2}}"}},
        ],
    }
    assert suite(json.dumps(made.keys)[1:-1].replace(', "evaluators"', '\n"evaluators"')).suite == first


def test_what_github_cannot_say_of_a_suite_is_listed():
    made = github_keys(Suite.from_data({
        "prompt": "p", "thresholds": {"pass_rate": 0.9},
        "tests": [
            {"vars": {"a": "1"}, "must_pass": True, "assert": [{"type": "equals", "value": "x"}, {"type": "is-json"}]},
            {"vars": {"a": "2"}, "assert": [{"type": "equals", "value": "x"}, {"type": "regex", "value": "x+"},
                                            {"type": "icontains", "value": "x"}]},
        ],
    }))  # fmt: skip
    assert made.keys["evaluators"] == [{"name": "equals", "string": {"equals": "x"}}]
    assert made.left_out == (
        "suite thresholds: GitHub has none",
        "tests.0.must_pass: GitHub has none",
        "tests.0.assert.1: GitHub has no evaluator like is-json",
        "tests.1.assert.1: GitHub has no evaluator like regex",
        "assertion 'contains' (contains): GitHub's evaluators judge every row, and not all have it",
    )
