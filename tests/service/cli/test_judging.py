"""`turnout judge` as a user's shell runs it, on fake models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.service.cli.test_cli import Project

CONFIG = """\
models:
  model-a: {engine: fake, answers: {charged: "Billing will help.", password: "No."}, default: "No idea."}
  judge:
    engine: fake
    price: {input_per_mtok: 1, output_per_mtok: 1}
    answers:
      "Billing will help.": '{"pass": true, "score": 1, "reason": "helpful"}'
      "No": '{"pass": false, "score": 0, "reason": "curt"}'
"""
SUITE = """\
prompt: support.triage
thresholds: {pass_rate: 0.50}
judge: {model: judge, floor: {kappa: 0.6}}
tests:
  - {vars: {ticket: "I was charged twice"}, assert: [{type: llm-rubric, value: Helps}]}
  - {vars: {ticket: "I forgot my password"}, assert: [{type: llm-rubric, value: Helps}]}
"""
LABELS = [
    {"vars": {"ticket": "I was charged twice"}, "output": "Billing will help.", "label": "pass"},
    {"vars": {"ticket": "I forgot my password"}, "output": "No way.", "label": "fail"},
    {"vars": {"ticket": "else"}, "output": "No, never.", "label": 0.1},
]
FILE = "suites/support/triage.suite.yml"

pytestmark = pytest.mark.integration


@pytest.fixture
def project(tmp_path: Path) -> Project:
    found = Project(tmp_path)
    found.write("turnout.yaml", CONFIG)
    found.write(FILE, SUITE)
    found.write("labels.jsonl", "\n".join(map(json.dumps, LABELS)))
    return found


def test_a_gate_passes_once_the_judge_is_known_to_agree_with_people(project: Project) -> None:
    before = project.json("gate", FILE, "--local", exit_code=3)
    assert before["reasons"][0].endswith("turnout judge calibrate support.triage")

    found = project.json("judge", "calibrate", FILE, "--labels", "labels.jsonl", "--local")
    assert (found["graders"][0]["kappa"], found["graders"][0]["n"], found["floor"]) == (1.0, 3, {"kappa": 0.6})
    assert found["judges"]["cost_usd"] > 0

    assert project.json("gate", FILE, "--local")["verdict"] == "pass"
    told = project.turnout("judge", "calibrate", FILE, "--labels", "labels.jsonl", "--local")
    assert told.returncode == 0
    assert "1.000 (0.439 … 1.000)" in told.stdout


def test_the_labels_of_the_suite_itself_are_taken_and_a_judge_below_the_floor_exits_1(project: Project) -> None:
    project.write(
        "suites/support/labels.jsonl", json.dumps({**LABELS[0], "label": "fail"}) + "\n" + json.dumps(LABELS[1])
    )
    project.write(FILE, SUITE.replace("{kappa: 0.6}", "{kappa: 0.6}, calibration: file://labels.jsonl"))
    found = project.json("judge", "calibrate", FILE, "--local", exit_code=1)
    assert found["graders"][0]["below_floor"] == "kappa 0.000 over 2 labels is below the floor of 0.6"


def test_every_fault_of_a_file_of_labels_is_told_with_its_line(project: Project) -> None:
    rows = [json.dumps(LABELS[0]), "{", json.dumps({"output": "x", "label": "good"}), json.dumps({"label": "pass"})]
    project.write("labels.jsonl", "\n".join(rows))
    done = project.turnout("judge", "calibrate", FILE, "--labels", "labels.jsonl", "--local")
    assert done.returncode == 2
    for told in (
        "labels.jsonl:2: not valid JSON",
        "labels.jsonl:3: label: a label cannot be 'good'",
        "labels.jsonl:4:",
    ):
        assert told in done.stderr


def test_judges_that_cannot_be_asked_are_faults_with_their_line(project: Project) -> None:
    project.write(FILE, SUITE.replace("model: judge", "model: jugde, votes: 2"))
    done = project.turnout("check")
    assert done.returncode == 2
    assert "2 votes can be even" in done.stderr
    project.write(FILE, SUITE.replace("model: judge", "model: jugde"))
    assert f"{FILE}:3: judge.model: turnout.yaml has no model 'jugde' (did you mean 'judge'?)" in (
        project.turnout("check").stderr
    )


def test_people_are_shown_what_waits_and_their_word_decides(project: Project) -> None:
    project.write(
        FILE,
        "prompt: support.triage\nthresholds: {pass_rate: 0.5}\ntests:\n"
        "  - {vars: {ticket: charged}, assert: [{type: human, value: Right?}]}\n",
    )
    run_id = project.json("run", FILE, "--local")["run_id"]
    [waiting] = project.json("judge", "waiting", run_id, "--local")
    assert (waiting["metrics"], waiting["output"]) == (["human"], "Billing will help.")
    assert (waiting["number"], waiting["asked"]) == (1, ["Right?"])
    assert project.turnout("judge", "rate", run_id, "1", "--score", "1", "--metric", "kind", "--local").returncode == 2
    project.json("gate", FILE, "--local", exit_code=3)

    shown = project.turnout("judge", "waiting", run_id, "--local").stdout
    assert "human" in shown
    assert "[" not in shown
    assert project.json("judge", "rate", run_id, "1", "--score", "0.8", "--local")["value"] == 0.8
    assert project.json("judge", "waiting", run_id, "--local") == []
    assert project.turnout("judge", "rate", run_id, "7", "--score", "1", "--local").returncode == 2
    assert project.json("gate", FILE, "--local")["verdict"] == "pass"
