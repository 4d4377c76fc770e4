"""What a command that fails leaves on stdout and stderr."""

from __future__ import annotations

import json

import pytest

from service.cli.work import _Count
from service.evaluation import Watcher
from tests.service.cli.projects import Project


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("show", "support.gone", "--local"), 2, "support.gone"),
        (("render", "--local"), 2, "Missing argument"),
        (("log", "Bad Name", "--local"), 2, "is no prompt name"),
    ],
)
def test_with_json_a_command_that_fails_ends_with_one_document_too(
    workspace: Project, arguments: tuple[str, ...], exit_code: int, said: str
) -> None:
    workspace.write_all()
    code, out, err = workspace.run(*arguments, "--json")

    error = json.loads(out)["error"]
    assert (code, error["exit_code"]) == (exit_code, exit_code)
    assert said in error["message"]
    assert said in err
    assert workspace.run(*arguments)[1] == ""


def test_a_failed_run_gate_or_check_gives_its_own_document_alone(workspace: Project) -> None:
    workspace.write_all()
    workspace.write("turnout.yaml", "models: {model-a: {engine: fake, default: wrong}}\n")
    assert workspace.json("run", "--local", exit_code=1)["passed"] == 0
    assert workspace.json("gate", "--local", exit_code=1)["verdict"] == "fail"
    workspace.write("prompts/bad.prompt.yml", "modle: x\n")
    assert workspace.json("check", exit_code=2)["ok"] is False


def test_a_run_that_waits_for_its_model_says_so_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    count = _Count(lambda *_: None, 3)
    assert isinstance(count, Watcher)
    count.waits("waiting for an overloaded model, 118 s more at most: HTTP 429: [busy]")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "waiting for an overloaded model, 118 s more at most: HTTP 429: [busy]\n")
