"""Every assertion that a model decides, from the file to the figures, as an author meets them."""

from __future__ import annotations

import json

import pytest

from tests.service.cli.projects import Project

SAID = {  # by a piece of what each rubric asks for
    '"label"': {"reason": "kind words", "label": "polite"},
    '"category"': {"reason": "the same facts", "category": "C"},
    '"steps"': {"steps": ["read", "judge"]},
    '"relevant"': {"relevant": [1]},
    '"question"': {"question": "Where is my refund?"},
    '"statements"': {"statements": ["sent", "on Monday"], "supported": [True, False]},
    '"supported"': {"supported": [True, True]},
    '"verdict"': {"reason": "it does", "verdict": "Y"},
    '"score"': {"reason": "well said", "score": 9, "pass": True},
}
CONFIG = {
    "models": {
        "bot": {"engine": "fake", "default": "Your refund was sent."},
        "judge": {"engine": "fake", "answers": {part: json.dumps(said) for part, said in SAID.items()}},
    }
}
PROMPT = """\
model: bot
variables: {query: {type: string}, context: {type: [string, array]}}
messages: [{role: user, content: "{{ query }} {{ context }}"}]
"""
SUITE = """\
prompt: support
judge: {model: judge, embeddings: judge}
defaultTest: {vars: {query: "Where is my refund?", context: ["Sent on Monday.", "We are closed on Sunday."]}}
tests:
"""
TYPES = {
    "classifier": "value: polite, config: {labels: [polite, rude]}",
    "g-eval": "value: Is coherent",
    "factuality": "value: The refund was sent",
    "model-graded-closedqa": "value: Says where the refund is",
    "answer-relevance": "",
    "context-faithfulness": "",
    "context-recall": "value: The refund was sent on Monday",
    "context-relevance": "",
}


@pytest.fixture
def graded(workspace: Project) -> Project:
    project = workspace
    project.write("turnout.yaml", json.dumps(CONFIG))
    project.write("prompts/support.prompt.yml", PROMPT)
    cases = [f"  - {{assert: [{{type: {kind}, metric: {kind}, {rest}}}]}}\n" for kind, rest in TYPES.items()]
    project.write("suites/support.suite.yml", SUITE + "".join(cases))
    return project


def test_each_type_asks_its_judge_and_scores_what_it_said(graded: Project) -> None:
    result = graded.json("run", "suites/support.suite.yml", "--local")
    assert (result["total"], result["passed"]) == (8, 8)
    scores = {name: round(metric["score"], 3) for name, metric in result["metrics"].items()}
    assert scores == {
        "answer-relevance": 1.0,
        "classifier": 1.0,
        "context-faithfulness": 1.0,
        "context-recall": 0.5,
        "context-relevance": 0.5,
        "factuality": 1.0,
        "g-eval": 0.9,
        "model-graded-closedqa": 1.0,
    }


def test_a_judge_that_says_nothing_readable_errs_each_of_them(graded: Project) -> None:
    mute = {**CONFIG["models"], "judge": {"engine": "fake", "default": "I cannot say."}}
    graded.write("turnout.yaml", json.dumps({"models": mute}))
    result = graded.json("run", "suites/support.suite.yml", "--local", exit_code=4)
    assert (result["errored"], result["failed"], result["passed"]) == (8, 0, 0)
