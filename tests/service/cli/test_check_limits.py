"""How much `turnout check` tells, and what it and its fellows never show."""

from __future__ import annotations

import pytest

from tests.service.cli.projects import Project

UNNAMED = "qwhjkzxvbnmlpoiuytrewq"  # a key that no rule knows by its looks


@pytest.fixture
def project(workspace: Project) -> Project:
    workspace.write_all()
    return workspace


def test_of_a_file_of_cases_ten_thousand_faults_are_told_and_the_others_counted(project: Project) -> None:
    project.write("suites/cases/many.jsonl", '{"vars": 1}\n' * 10_500)
    project.write("suites/support/triage.suite.yml", "prompt: support.triage\ntests: file://../cases/many.jsonl\n")

    told = [fault for fault in project.json("check", exit_code=2)["faults"] if fault["path"].endswith("many.jsonl")]
    assert len(told) == 10_001
    assert (told[-1]["line"], told[-1]["message"]) == (10_001, "500 more faults of this file are not shown")


@pytest.mark.parametrize("command", [("doctor",), ("run", "--local")])
def test_a_variable_that_may_be_the_key_itself_is_not_shown_as_unset(
    project: Project, command: tuple[str, ...]
) -> None:
    up = f"{{engine: openai, base_url: 'http://127.0.0.1:9/v1', api_key_env: {UNNAMED}}}"
    project.write("turnout.yaml", f"models:\n  model-a: {up}\n")

    _, out, err = project.run(*command)
    assert UNNAMED not in out + err
    assert "models.model-a.api_key_env" in " ".join((out + err).split())
