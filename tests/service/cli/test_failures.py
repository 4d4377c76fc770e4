"""What a command that fails leaves on stdout and stderr."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable

import pytest

from service.cli.main import run
from service.cli.output import print_json
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


@pytest.mark.parametrize("command", ["run", "gate"])
@pytest.mark.parametrize("option", ["--local", None])
def test_a_command_that_is_interrupted_ends_with_one_document_too(
    workspace: Project, monkeypatch: pytest.MonkeyPatch, command: str, option: str | None
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    workspace.write_all()
    monkeypatch.setattr("service.cli.work.LocalWork.push" if option else "service.cli.client.Remote.call", interrupted)
    code, out, err = workspace.run(command, *([option] if option else []), "--json")

    assert (code, json.loads(out)) == (130, {"error": {"message": "interrupted", "exit_code": 130}})
    assert err.count("interrupted") == 1
    assert workspace.run(command, *([option] if option else []))[:2] == (130, "")


class Refuses:
    """Python 3.11 makes a RuntimeError of what comes up here."""

    def __set_name__(self, owner: type, name: str) -> None:
        raise KeyboardInterrupt


def while_a_class_is_made(*_: object, **__: object) -> None:
    type("Loaded", (), {"field": Refuses()})


def while_it_is_put_away(*_: object, **__: object) -> None:
    try:
        raise KeyboardInterrupt
    finally:
        raise OSError(9, "bad file descriptor")


@pytest.mark.parametrize("interrupted", [while_a_class_is_made, while_it_is_put_away])
def test_an_interrupt_that_became_another_error_is_an_interrupt_still(
    workspace: Project, monkeypatch: pytest.MonkeyPatch, interrupted: Callable[..., None]
) -> None:
    workspace.write_all()
    monkeypatch.setattr("service.cli.work.LocalWork.push", interrupted)
    code, out, err = workspace.run("run", "--local", "--json")
    assert (code, json.loads(out)["error"]["message"]) == (130, "interrupted")
    assert err.count("interrupted") == 1


def test_a_job_that_is_watched_when_it_is_interrupted_ends_with_one_document_too(
    workspace: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def call(_: object, method: str, path: str, **__: object) -> dict[str, str]:
        asked.append(path)
        if method == "GET":
            raise KeyboardInterrupt
        return {}

    monkeypatch.setattr("service.cli.client.Remote.call", call)
    code, out, _ = workspace.run("job", "job_1", "--resume", "--watch", "--json")

    assert (code, json.loads(out)["error"]) == (130, {"message": "interrupted", "exit_code": 130})
    assert asked[0] == "/api/jobs/job_1/resume"


def test_a_command_that_gave_its_document_gives_no_other_where_it_is_interrupted(
    workspace: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def print_and_be_interrupted(_: object) -> list[dict[str, str]]:
        print_json([])
        raise KeyboardInterrupt

    monkeypatch.setattr("service.cli.doctor.examine", print_and_be_interrupted)
    code, out, _ = workspace.run("doctor", "--json")

    assert (code, json.loads(out)) == (130, [])


def test_a_run_that_waits_for_its_model_says_so_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    count = _Count(lambda *_: None, 3)
    assert isinstance(count, Watcher)
    count.waits("waiting for an overloaded model, 118 s more at most: HTTP 429: [busy]")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "waiting for an overloaded model, 118 s more at most: HTTP 429: [busy]\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("push", "--message", "caf\udce9"),
        ("key", "create", "--role", "app", "--note", "caf\udce9"),
        ("list", "caf\udce9"),
        ("evidence", "caf\udce9"),
        ("run", "--tag", "caf\udce9"),
        ("run", "--case", "caf\udce9"),
    ],
)
def test_an_argument_that_is_not_utf8_is_bad_usage(workspace: Project, arguments: tuple[str, ...]) -> None:
    workspace.write_all()
    error = workspace.json(*arguments, "--local", exit_code=2)["error"]
    assert "'caf\\udce9'" in error["message"]
    assert "UTF-8" in error["message"]
    assert workspace.json("list", "--local") == []


@pytest.mark.parametrize("option", ["--tag", "--case"])
def test_an_option_that_chooses_cases_by_nothing_is_bad_usage(workspace: Project, option: str) -> None:
    workspace.write_all()
    message = workspace.json("run", option, "", "--local", exit_code=2)["error"]["message"]
    assert message == f"{option} '': write a text, as UTF-8, or leave {option} out"


@pytest.mark.parametrize(("command", "option"), [("gate", "--against"), ("gate", "--model"), ("run", "--model")])
def test_a_variable_of_a_script_that_is_unset_asks_for_no_other_gate(
    workspace: Project, command: str, option: str
) -> None:
    workspace.write_all()
    message = workspace.json(command, "--local", option, "", exit_code=2)["error"]["message"]
    assert message.startswith(f"{option} '': write ")
    assert message.endswith(f"or leave {option} out")


def test_the_name_of_a_file_that_is_not_utf8_leaves_json_readable(workspace: Project) -> None:
    workspace.write_all()
    (workspace.folder / "prompts" / "caf\udce9.prompt.yml").write_text("model: m\n")
    code, out, _ = workspace.run("check", "--json")
    assert (code, out.isascii()) == (2, True)
    assert json.loads(out)["faults"][0]["path"] == "prompts/caf\udce9.prompt.yml"


def test_where_the_pipe_is_not_utf8_results_are_shown_with_escapes(
    workspace: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.write_all()
    shown = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    code = run(["render", "support.triage", "-v", "ticket=caf\u00e9 \U0001f600", "--local"])
    shown.flush()
    assert (code, rb"caf\xe9 \U0001f600" in shown.buffer.getvalue()) == (0, True)

    shown = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    code = run(["render", "support.triage", "-v", "ticket=caf\u00e9 \U0001f600", "--local", "--json"])
    shown.flush()
    content = json.loads(shown.buffer.getvalue())["messages"][1]["content"]
    assert (code, content) == (0, "caf\u00e9 \U0001f600")


@pytest.mark.parametrize("name", ["", "../keys"])
@pytest.mark.parametrize(
    "command",
    [
        "trend", "evidence", "job", "dataset show", "dataset export", "review accept", "key revoke", "key limit",
        "judge waiting", "advise --of", "compare run_1",
    ],
)  # fmt: skip
def test_what_is_no_id_is_refused_by_name_and_never_asked_of_another_path(
    command: str, name: str, workspace: Project
) -> None:
    given = f"run:{name}" if command.startswith("compare") else name
    arguments = ["compare", given, "run_1"] if command.startswith("compare") else [*command.split(), given]
    code, _, err = workspace.run(*arguments, "--local")
    assert code == 2
    assert repr(name) in err
    assert "no such path" not in err


def test_a_page_goes_to_a_pipe_that_is_not_utf8(workspace: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.write_all()
    assert workspace.run("push", "--local")[0] == 0
    shown = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    code = run(["show", "support.triage@1", "--markdown", "--local"])
    shown.flush()
    assert (code, rb"`support.triage@1` \xb7" in shown.buffer.getvalue()) == (0, True)
