"""OpenAI Evals as suites: answers are judged as there."""

from __future__ import annotations

import json

import pytest

from prompts.errors import BadFile
from suites.foreign.converted import KnownModel
from suites.foreign.openai_evals import convert_evals, is_registry
from tests.suites.foreign.converting import foreign, loaded, outcomes, wanted, why

CLASSES = {"Match": "basic.match", "Includes": "basic.includes", "FuzzyMatch": "basic.fuzzy_match",
           "JsonMatch": "basic.json_match", "ModelBasedClassify": "modelgraded.classify", "Bluff": "bluff.eval"}  # fmt: skip
POSSIBLE = """\
possible:
  prompt: 'Is "{completion}" a fit answer to {input}? {{literally}}'
  choice_strings: [Good, Fair, Bad]
  choice_scores: {Good: 2, Fair: 1, Bad: 0}
  input_outputs: {input: completion}
"""


def registry(kind, samples, files=None, **arguments):
    lines = "\n".join(json.dumps(sample) for sample in samples)
    arguments = {"samples_jsonl": "c/s.jsonl", **arguments}
    entry = {"class": f"evals.elsuite.{CLASSES[kind]}:{kind}", "args": arguments}
    entries = {"cities": {"id": "cities.dev.v0", "description": "Cities"}, "cities.dev.v0": entry}
    return foreign(json.dumps(entries), {"../data/c/s.jsonl": lines, **(files or {})}, "evals/cities.yaml")


def only(kind, samples, files=None, **arguments):
    given = {"known": {"grader": KnownModel("grader")}}
    [each] = convert_evals(registry(kind, samples, files, **arguments), wanted(**given)).suites
    return each


def chat(question, system="Be short"):
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def test_what_all_samples_share_is_the_prompt_and_what_differs_its_variables():
    samples = [{"input": chat("France?"), "ideal": "Paris"}, {"input": chat("Italy?"), "ideal": ["Rome", "Roma"]}]
    each = only("Match", samples)
    assert each.name == "cities-dev-v0"
    assert each.prompt["messages"] == [
        {"role": "system", "content": "Be short"},
        {"role": "user", "content": "{{ input }}"},
    ]
    assert each.prompt["modelParameters"] == {"temperature": 0}
    assert each.suite["tests"][0] == {
        "vars": {"input": "France?"},
        "assert": [{"type": "starts-with", "value": "Paris"}],
    }
    assert each.suite["description"] == "Cities"
    varied = only("Match", [{"input": chat("a", "S1"), "ideal": "x"}, {"input": chat("b", "{{S2}}"), "ideal": "x"}])
    assert [case["vars"] for case in varied.suite["tests"]] == [
        {"system_1": "S1", "input": "a"},
        {"system_1": "{{S2}}", "input": "b"},
    ]


def test_a_text_of_all_samples_that_looks_like_a_template_stands_for_itself():
    source, _ = loaded(only("Match", [{"input": chat("a", "Use {{x}} {% y"), "ideal": "x"}]))
    assert source.content.messages[0].content == "{% raw %}Use {{x}} {% y{% endraw %}"


def test_a_separator_of_lines_in_a_sample_is_text():
    lines = "\n".join(json.dumps({"input": chat(f"{n}\u2028?"), "ideal": "x"}, ensure_ascii=False) for n in (1, 2))
    each = only("Match", [], {"../data/c/s.jsonl": f"{lines}\r\n"})
    assert [case["vars"] for case in each.suite["tests"]] == [{"input": "1\u2028?"}, {"input": "2\u2028?"}]


JUDGED = [
    ("Match", "Paris", "Paris.", "passed"),
    ("Match", "Paris", " Paris", "failed"),
    ("Match", ["a.b", "c"], "cd", "passed"),
    ("Match", ["a.b", "c"], "axb", "failed"),
    ("Match", "", "anything", "passed"),
    ("Includes", "Paris", "in Paris", "passed"),
    ("Includes", "Paris", "in paris", "failed"),
    ("Includes", ["Rome", "Roma"], "a Roma b", "passed"),
    ("FuzzyMatch", "The Eiffel-Tower!", "it is eiffeltower", "passed"),
    ("FuzzyMatch", "an  apple", "Apple", "passed"),
    ("FuzzyMatch", ["pear", "plum"], "an apple", "failed"),
    ("FuzzyMatch", "pear", "...", "failed"),
    ("FuzzyMatch", "the", "?", "passed"),
    ("JsonMatch", '{"a": [1, {"b": 2.0}]}', ' {"a": [1.0, {"b": 2}]}', "passed"),
    ("JsonMatch", '{"a": 1}', '{"a": 1, "b": null}', "failed"),
    ("JsonMatch", ["[1]", "[2]"], "[2]", "passed"),
    ("JsonMatch", "null", "null", "failed"),
    ("JsonMatch", "[1]", "no JSON", "failed"),
    ("JsonMatch", "[1]", '{"0": 1}', "failed"),
]


@pytest.mark.parametrize(("kind", "ideal", "answer", "expected"), JUDGED)
def test_answers_are_judged_as_the_class_judges_them(kind, ideal, answer, expected):
    assert outcomes(only(kind, [{"input": "q", "ideal": ideal}]), answer) == [expected]


def test_case_is_ignored_where_the_registry_says_so():
    each = only("Includes", [{"input": "q", "ideal": "Paris"}], ignore_case=True)
    assert outcomes(each, "in PARIS") == ["passed"]


def test_examples_stand_before_the_last_message():
    shots = "\n".join(
        json.dumps({"sample": [{"role": "system", "content": text, "name": "example_user"}]}) for text in "abc"
    )
    files, few = {"../data/c/few.jsonl": shots}, {"num_few_shot": 2, "few_shot_jsonl": "c/few.jsonl"}
    each = only("Match", [{"input": chat("q"), "ideal": "x"}], files, **few)
    assert [message["content"] for message in each.prompt["messages"]] == ["Be short", "a", "b", "{{ input }}"]


def test_conversations_of_other_shapes_are_prompts_of_their_own():
    samples = [{"input": chat("a"), "ideal": "x"}, {"input": "b", "ideal": "x"}, {"input": 5, "ideal": "x"}]
    found = convert_evals(registry("Match", samples), wanted())
    assert [(each.name, each.suite["prompt"]) for each in found.suites] == [
        ("cities-dev-v0", "cities-dev-v0"),
        ("cities-dev-v0-2", "cities-dev-v0-2"),
    ]
    assert why(found) == {"sample": "its `input` is no text and no chat: 5"}


def test_known_specifications_are_our_own_types():
    sample = {"input": "q", "ideal": "Paris", "criteria": "names a city"}
    known = {
        name: f"{name}:\n  prompt: x\n  choice_strings: AB\n  input_outputs: {{input: completion}}\n"
        for name in ("fact", "closedqa")
    }
    fact = only("ModelBasedClassify", [sample], {"../modelgraded/fact.yaml": known["fact"]}, modelgraded_spec="fact")
    assert fact.suite["tests"][0]["assert"] == [{"type": "factuality", "value": "Paris", "provider": "grader"}]
    closed = only(
        "ModelBasedClassify", [sample], {"../modelgraded/closedqa.yaml": known["closedqa"]}, modelgraded_spec="closedqa"
    )
    assert closed.suite["tests"][0]["assert"] == [
        {"type": "model-graded-closedqa", "value": "names a city", "provider": "grader"}
    ]


def test_other_specifications_with_scores_ask_their_own_prompt():
    files = {"../modelgraded/possible.yaml": POSSIBLE}
    each = only("ModelBasedClassify", [{"input": "2+2?", "ideal": "4"}], files, modelgraded_spec="possible")
    [spec] = each.suite["tests"][0]["assert"]
    assert spec["type"] == "llm-rubric"
    assert "{{ output }}" in spec["rubricPrompt"]
    assert "2+2?{% endraw %}" not in spec["rubricPrompt"]
    assert "2+2?? {literally}" in spec["rubricPrompt"]
    assert '{"Good": 1.0, "Fair": 0.5, "Bad": 0.0}' in spec["rubricPrompt"]
    loaded(each)


@pytest.mark.parametrize(
    ("kind", "files", "arguments", "said"),
    [
        ("Bluff", {}, {}, "this class is code"),
        ("Match", {"../data/c/s.jsonl": None}, {}, "not in the registry"),
        ("Match", {"../data/c/s.jsonl": "version https://git-lfs.github.com/spec/v1\n"}, {}, "Git LFS"),
        ("Match", {}, {"samples_jsonl": None}, "names no samples"),
        ("ModelBasedClassify", {"../modelgraded/m.yaml": "m: {input_outputs: {a: completion1, b: completion2}}"},
         {"modelgraded_spec": "m"}, "compares several"),
        ("ModelBasedClassify", {"../modelgraded/possible.yaml": POSSIBLE},
         {"modelgraded_spec": "possible", "metaeval": True}, "evaluates the judge"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_suite_says_why(kind, files, arguments, said):
    with pytest.raises(BadFile, match=said):
        convert_evals(registry(kind, [{"input": "q", "ideal": "x"}], files, **arguments), wanted())


def test_choices_without_scores_and_ideals_that_are_none_set_the_case_aside():
    counting = "m:\n  prompt: x {completion}\n  choice_strings: [A, B]\n  input_outputs: {input: completion}\n"
    each = only("ModelBasedClassify", [{"input": "q"}], {"../modelgraded/m.yaml": counting}, modelgraded_spec="m")
    assert each.suite["tests"] == [
        {"vars": {"input": "q"}, "skip": "m counts choices without a score: no answer passes or fails"}
    ]
    assert outcomes(only("Match", [{"input": "q", "ideal": 5}]), "x") == ["skipped"]


def test_a_registry_is_known_by_its_classes():
    assert is_registry("a: {class: evals.elsuite.basic.match:Match}", "a.yaml")
    assert not is_registry("prompts: [a]", "a.yaml")
