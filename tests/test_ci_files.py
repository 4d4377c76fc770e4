"""What others copy into their CI: pinned, without a stranger's text in a shell, and as docs/ci.md says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from service.cli.main import app
from service.cli.scaffold import Engine, files_of

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
WORKFLOWS = {
    "examples/ci/github.yml": (ROOT / "examples/ci/github.yml").read_text("utf-8"),
    **{f"init {engine}": files_of(engine)[".github/workflows/turnout.yml"] for engine in Engine},
}
DOC = (ROOT / "docs" / "ci.md").read_text("utf-8")


def steps() -> Iterator[dict[str, Any]]:
    yield from ACTION["runs"]["steps"]
    for text in WORKFLOWS.values():
        for job in yaml.safe_load(text)["jobs"].values():
            yield from job["steps"]


def test_every_action_is_pinned_by_its_commit() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    assert len(used) > 8
    assert [each for each in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", each)] == []


def test_no_expression_stands_in_a_shells_text() -> None:
    scripts = [step["run"] for step in steps() if "run" in step]
    assert len(scripts) > 8
    assert [script for script in scripts if "${{" in script] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_the_least_permissions_and_never_runs_a_strangers_files_with_keys(name: str) -> None:
    workflow = yaml.safe_load(WORKFLOWS[name])
    assert workflow["permissions"] in ({}, {"contents": "read"})
    assert "pull_request_target" not in workflow[True]  # YAML 1.1 reads `on` so
    assert {"pull_request", "merge_group"} <= workflow[True].keys()


def test_every_input_and_output_of_the_action_is_documented() -> None:
    named = [*ACTION["inputs"], *ACTION["outputs"]]
    assert [name for name in named if f"`{name}`" not in DOC] == []


def test_the_options_that_ci_files_give_are_there() -> None:
    """A renamed option would be found by nobody's tests but a user's."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    gitlab = " ".join(yaml.safe_load((ROOT / "examples/ci/gitlab.yml").read_text("utf-8"))["turnout"]["script"])
    asked = re.findall(r"turnout (check|gate|comment)\b([^|>;]*)", gitlab)
    assert [name for name, _ in asked] == ["check", "gate", "comment"]
    for name, rest in asked:
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known


def test_the_hook_runs_where_a_file_of_a_project_changes() -> None:
    [hook] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
    pattern = re.compile(hook["files"])
    assert hook["entry"] == "turnout check"
    watched = (
        "prompts/a.prompt.yml",
        "suites/b.suite.yaml",
        "suites/cases/c.jsonl",
        "bot/suites/x.csv",
        "turnout.yaml",
    )
    assert [path for path in watched if not pattern.search(path)] == []
    assert [path for path in ("README.md", "src/main.py", "my-turnout.yaml") if pattern.search(path)] == []
