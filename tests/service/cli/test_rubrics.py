"""Rubrics that lie in the working tree are tested as they are on disk, pinned, and pushed by nobody."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service.cli.projects import Project

CONFIG = """\
models:
  model-a: {engine: fake, default: "Billing will help."}
  judge:
    engine: fake
    answers:
      "be kind": '{"pass": true, "score": 1, "reason": "kind"}'
      "be strict": '{"pass": false, "score": 0, "reason": "not strict"}'
      "broken": 'no JSON at all'
"""
PROMPT = "model: model-a\nvariables: {ticket: {type: string}}\nmessages: [{role: user, content: '{{ ticket }}'}]\n"
RUBRIC = """\
model: judge
variables: {output: {type: string}}
messages:
  - {role: system, content: "{% include 'judges.manner' %}"}
  - {role: user, content: "{% include 'judges.manner' %}: {{ output }}"}
"""
MANNER = "model: judge\nmessages: [{role: system, content: be kind}]\n"
SUITE = """\
prompt: triage
thresholds: {pass_rate: 0.9}
judge: {model: judge}
tests:
  - {vars: {ticket: "first"}, assert: [{type: llm-rubric, value: Helps, rubricPrompt: judges.tone}]}
  - {vars: {ticket: "second"}, assert: [{type: llm-rubric, value: Helps, rubricPrompt: judges.tone}]}
"""
FILE = "suites/triage.suite.yml"


@pytest.fixture
def project(workspace: Project) -> Project:
    workspace.write("turnout.yaml", CONFIG)
    workspace.write("prompts/triage.prompt.yml", PROMPT)
    workspace.write("prompts/judges/tone.prompt.yml", RUBRIC)
    workspace.write("prompts/judges/manner.prompt.yml", MANNER)
    workspace.write(FILE, SUITE)
    return workspace


def pinned(project: Project, answer: dict[str, Any]) -> Any:
    record = project.json("evidence", answer["suites"][0]["evidence_id"], "--local", "--verify")
    assert record["verified"]
    return record["content"]["given"]["rubrics"]


def test_a_rubric_of_the_working_tree_needs_no_push_and_the_evidence_names_its_version(project: Project) -> None:
    passed = project.json("gate", FILE, "--local")
    project.write("prompts/judges/manner.prompt.yml", MANNER.replace("kind", "strict"))
    failed = project.json("gate", FILE, "--local", exit_code=1)

    assert (passed["verdict"], pinned(project, passed)) == ("pass", {"judges.tone": "judges.tone@1"})
    assert (failed["verdict"], pinned(project, failed)) == ("fail", {"judges.tone": "judges.tone@2"})


def test_a_run_says_which_version_judged_and_a_draft_is_nobodys_latest(project: Project) -> None:
    project.json("push", "--local")
    project.write("prompts/judges/manner.prompt.yml", MANNER.replace("kind", "strict"))
    of_the_tree = project.json("run", FILE, "--local", exit_code=1)
    of_the_registry = project.json("run", "triage", "--prompt", "triage@1", "--local")

    assert (of_the_tree["rubrics"], of_the_tree["passed"]) == ({"judges.tone": "judges.tone@2"}, 0)
    assert (of_the_registry["rubrics"], of_the_registry["passed"]) == ({"judges.tone": "judges.tone@1"}, 2)


def test_a_version_that_the_suite_names_itself_stays(project: Project) -> None:
    project.json("push", "--local")
    project.write("prompts/judges/manner.prompt.yml", MANNER.replace("kind", "strict"))
    project.write(FILE, SUITE.replace("judges.tone}", "judges.tone@1}"))

    assert project.json("run", FILE, "--local")["rubrics"] == {"judges.tone@1": "judges.tone@1"}


def test_a_rubric_that_is_nowhere_is_told_with_what_to_do(project: Project) -> None:
    project.write(FILE, SUITE.replace("judges.tone", "judges.other"))
    code, _, err = project.run("run", FILE, "--local")

    assert code == 2
    assert "no prompt 'judges.other'" in err
    assert "rubricPrompt" in err


def test_a_rubric_with_a_fault_is_told_with_its_line(project: Project) -> None:
    project.write("prompts/judges/tone.prompt.yml", RUBRIC + "mesages: []\n")
    code, _, err = project.run("run", FILE, "--local")

    assert code == 2
    assert "prompts/judges/tone.prompt.yml:6" in err


def test_errors_that_repeat_are_told_once_with_their_number(project: Project) -> None:
    project.write("prompts/judges/manner.prompt.yml", MANNER.replace("be kind", "broken"))
    project.write("labels.jsonl", '{"vars": {"ticket": "first"}, "output": "Yes.", "label": "pass"}\n' * 7)
    code, _, err = project.run("judge", "calibrate", FILE, "--labels", "labels.jsonl", "--local")

    assert code == 4
    assert "7 of 7 judgements are missing (100.0%), more than the 2.0% allowed: 7 × " in err
    assert err.count("judges.tone") <= 1


def test_labels_that_no_assertion_is_about_are_told_in_one_line(project: Project) -> None:
    project.write("labels.jsonl", '{"output": "Yes.", "label": "pass", "metric": "tone"}\n' * 9)
    code, _, err = project.run("judge", "calibrate", FILE, "--labels", "labels.jsonl", "--local")

    assert code == 2
    told = "labels:1: no assertion of the suite judges this answer under the metric 'tone', nor those of 8 more labels"
    assert told + " (2, 3, 4, 5, 6, …)" in err


def test_few_errors_are_told_beside_the_figures(project: Project) -> None:
    """The suite tolerates them; each is said once."""
    project.write(FILE, SUITE.replace("judge: {model: judge}", "judge: {model: judge}\ngate: {max_error_share: 0.9}"))
    rows = '{"vars": {"ticket": "first"}, "output": "%s", "label": "pass"}\n'
    project.write("prompts/judges/manner.prompt.yml", MANNER.replace("be kind", "as"))
    project.write("labels.jsonl", rows % "be kind" + rows % "broken" * 3)
    code, _, err = project.run("judge", "calibrate", FILE, "--labels", "labels.jsonl", "--local")

    assert code == 0
    assert err.count("no judgement: 3 × ") == 1
