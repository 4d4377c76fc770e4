"""`turnout init`: a project that checks, runs and gates as it stands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from prompts.yaml_source import load_yaml
from service.cli.scaffold import Engine, choose_engine, files_of
from service.cli.schemas import schema_of
from tests.service.cli.projects import Project
from tests.service.cli.test_schema import kind_of

WORKFLOW = ".github/workflows/turnout.yml"


@pytest.mark.parametrize("engine", Engine)
def test_every_file_checks_without_a_warning_and_satisfies_the_schema_it_names(
    workspace: Project, engine: Engine
) -> None:
    assert workspace.run("init", "--model", engine)[0] == 0
    assert workspace.json("check", "--strict") == {"ok": True, "prompts": 1, "suites": 1, "faults": []}
    for name in ("turnout.yaml", "prompts/hello/capital.prompt.yml", "suites/hello/capital.suite.yml"):
        path = workspace.folder / name
        text = path.read_text("utf-8")
        named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
        assert named is not None
        assert (path.parent / named[1]).resolve() == workspace.folder / ".turnout" / f"{kind_of(path)}.schema.json"
        problems = Draft202012Validator(schema_of(kind_of(path))).iter_errors(load_yaml(text, name).data)
        assert [problem.message for problem in problems] == []


def test_what_runs_without_a_model_runs_and_gates_at_once(workspace: Project) -> None:
    workspace.run("init", "--model", "fake")
    result = workspace.json("run", "--local")
    assert (result["total"], result["passed"], result["verdict"]) == (3, 3, "pass")
    assert workspace.json("gate", "--local")["verdict"] == "pass"


def test_the_gate_of_the_workflow_passes_on_a_pull_request(workspace: Project) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=workspace.folder, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "before Turnout")
    base = git("rev-parse", "HEAD")
    workspace.run("init", "--model", "fake")
    git("add", ".")
    git("commit", "-q", "-m", "with Turnout")
    words = next(step["run"] for step in steps(Engine.FAKE) if step.get("run", "").startswith("turnout gate")).split()

    code, _, err = workspace.run(*(base if word == '"$BASE"' else word for word in words[1:]))

    assert code == 0, err
    assert git("status", "--porcelain") == "", "what Turnout writes is ignored by git"
    assert (workspace.folder / "turnout.xml").is_file()
    assert (workspace.folder / "turnout.md").is_file()


def test_nothing_is_overwritten(workspace: Project) -> None:
    names = [*files_of(Engine.FAKE)]
    for name in names:
        workspace.write(name, "mine\n")
    code, _, err = workspace.run("init", "--model", "fake")
    assert code == 0
    assert [line.split()[0] for line in err.splitlines()[: len(names)]] == ["kept"] * len(names)
    assert {(workspace.folder / name).read_text("utf-8") for name in names} == {"mine\n"}


def test_another_folder_is_made_and_told_as_json(workspace: Project) -> None:
    told = workspace.json("init", "sub/project", "--model", "openai")
    assert (told["model"], told["kept"]) == ("openai", [])
    assert str(Path("sub/project/turnout.yaml")) in told["wrote"]
    assert (workspace.folder / "sub/project" / WORKFLOW).is_file()


def test_the_model_is_one_that_works_here(workspace: Project) -> None:
    assert choose_engine(has_local=True, has_key=True)[0] is Engine.LOCAL
    assert choose_engine(has_local=False, has_key=True)[0] is Engine.OPENAI
    assert choose_engine(has_local=False, has_key=False)[0] is Engine.FAKE
    code, _, err = workspace.run("init", "--model", "gpt")
    assert (code, "write one of local, openai, fake" in err) == (2, True)
    assert list(workspace.folder.iterdir()) == []


# ---------------------------------------------------------------------------- the workflow


def workflow(engine: Engine) -> dict[str, Any]:
    data: dict[str, Any] = load_yaml(files_of(engine)[WORKFLOW], WORKFLOW).data
    return data


def steps(engine: Engine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workflow(engine)["jobs"]["gate"]["steps"]
    return found


@pytest.mark.parametrize("engine", Engine)
def test_the_workflow_is_one_that_github_reads(engine: Engine) -> None:
    data = workflow(engine)
    assert data.keys() == {"name", "on", "permissions", "concurrency", "jobs"}
    assert data["on"] == {"pull_request": None, "merge_group": None}
    assert data["permissions"] == {"contents": "read"}
    [job] = data["jobs"].values()
    assert job.keys() == {"name", "runs-on", "timeout-minutes", "env", "steps"}
    for step in job["steps"]:
        assert step.keys() <= {"uses", "with", "run", "if"}
        assert ("uses" in step) != ("run" in step)


@pytest.mark.parametrize("engine", Engine)
def test_actions_are_pinned_by_commit_with_their_release_beside(engine: Engine) -> None:
    used = re.findall(r"uses: (\S+)(.*)", files_of(engine)[WORKFLOW])
    assert [name.partition("@")[0] for name, _ in used][:2] == ["actions/checkout", "actions/setup-python"]
    for name, comment in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", name)
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment)


@pytest.mark.parametrize("engine", Engine)
def test_nothing_that_a_stranger_writes_reaches_a_shell(engine: Engine) -> None:
    assert [step["run"] for step in steps(engine) if "${{" in step.get("run", "")] == []


def test_the_workflow_sees_all_history_keeps_no_token_and_uploads_its_report() -> None:
    checkout, python, cache, *_, upload = steps(Engine.LOCAL)
    assert checkout["with"] == {"fetch-depth": 0, "persist-credentials": False}
    assert python["with"]["cache"] == "pip"
    assert cache["with"]["path"] == ".turnout-cache"
    assert workflow(Engine.LOCAL)["jobs"]["gate"]["env"]["TURNOUT_CACHE"] == "${{ github.workspace }}/.turnout-cache"
    assert upload["with"]["path"].split() == ["turnout.xml", "turnout.md"]
    assert upload["if"] == "${{ !cancelled() }}"
    assert not any("cache@" in step.get("uses", "") for step in steps(Engine.FAKE))


def test_only_the_workflow_of_a_service_is_given_a_secret() -> None:
    given = {engine: "secrets." in files_of(engine)[WORKFLOW] for engine in Engine}
    assert given == {Engine.LOCAL: False, Engine.OPENAI: True, Engine.FAKE: False}


def test_over_a_project_that_is_there_it_names_no_model_as_its_own(workspace: Project) -> None:
    assert workspace.json("init", "--model", "fake")["model"] == "fake"

    assert workspace.json("init")["model"] is None
    assert "its models stay those of turnout.yaml" in workspace.run("init")[2]
