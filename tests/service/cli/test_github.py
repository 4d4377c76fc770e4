"""A prompt file as GitHub has it: its `testData` and `evaluators` are a suite, wherever suites are read."""

from __future__ import annotations

import pytest

from tests.service.cli.projects import SUITE, Project

GITHUB = """\
name: Triage
model: model-a
messages:
  - {role: user, content: "Route: {{ticket}}"}
testData:
  - {ticket: I was charged twice, expected: billing}
  - {ticket: I forgot my password, expected: account}
evaluators:
  - {name: right, string: {equals: "{{expected}}"}}
"""


@pytest.fixture
def project(workspace: Project) -> Project:
    workspace.write_all()
    workspace.write("prompts/github.prompt.yml", GITHUB)
    return workspace


def test_it_is_checked_and_pushed_with_its_suite(project: Project) -> None:
    assert project.json("check")["suites"] == 2
    written = project.json("push", "--local")
    assert [(entry["kind"], entry["name"], entry["version"]) for entry in written] == [
        ("prompt", "github", 1), ("prompt", "support.triage", 1), ("suite", "github", 1), ("suite", "support.triage", 1),
    ]  # fmt: skip


def test_it_is_run_by_its_file_by_its_name_and_with_the_whole_tree(project: Project) -> None:
    found = project.json("run", "prompts/github.prompt.yml", "--local")
    assert (found["suite"], found["passed"], found["total"]) == ("github@1", 2, 2)
    project.run("push", "--local")
    project.run("label", "github", "production", "1", "--reason", "first", "--local")
    assert project.json("run", "github", "--local")["passed"] == 2
    assert [run["suite"] for run in project.json("run", "--local")] == ["github@1", "support.triage@1"]


def test_a_prompt_file_stands_for_every_suite_that_tests_it(project: Project) -> None:
    project.write("suites/more.suite.yml", SUITE.replace("support.triage", "github"))
    found = project.json("run", "prompts/github.prompt.yml", "--local")
    assert [run["suite"] for run in found] == ["github@1", "more@1"]


def test_a_prompt_that_no_suite_tests_cannot_be_run(project: Project) -> None:
    project.write("prompts/alone.prompt.yml", GITHUB.partition("testData")[0])
    code, _, err = project.run("run", "prompts/alone.prompt.yml", "--local")
    assert code == 2
    assert "prompts/alone.prompt.yml is a prompt that no suite tests: name or write one" in err


def test_two_suites_of_one_name_are_a_fault(project: Project) -> None:
    project.write("suites/github.suite.yml", SUITE.replace("support.triage", "github"))
    faults = project.json("check", exit_code=2)["faults"]
    assert [fault["message"] for fault in faults] == [
        "two suites are called 'github'; the other is prompts/github.prompt.yml"
    ]


def test_what_is_left_out_is_a_warning(project: Project) -> None:
    project.write("prompts/github.prompt.yml", GITHUB + "  - {name: like, uses: github/similarity}\n")
    [fault] = project.json("check")["faults"]
    assert (fault["line"], fault["level"], fault["rule"]) == (10, "warning", "evaluator")


def test_a_gate_against_a_revision_pairs_the_prompt_and_not_its_suite(project: Project) -> None:
    import subprocess

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *identity, *arguments], cwd=project.folder, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    project.write("prompts/github.prompt.yml", GITHUB.replace("Route:", "Route this:"))
    answer = project.json("gate", "prompts/github.prompt.yml", "--baseline", "git:HEAD", "--local")
    [suite] = answer["suites"]
    assert (answer["verdict"], suite["suite"]) == ("pass", "github")
    assert suite["baseline"].startswith("github@2+")
    assert suite["candidate"].startswith("github@1+")


def test_a_file_that_makes_no_suite_leaves_the_others_to_run(project: Project) -> None:
    project.write("prompts/rows.prompt.yml", GITHUB.partition("evaluators")[0])
    assert [run["suite"] for run in project.json("run", "--local")] == ["github@1", "support.triage@1"]


def test_an_export_holds_the_suite_again(project: Project) -> None:
    project.run("push", "--local")
    rows = [
        {"ticket": "I was charged twice", "expected": "billing"},
        {"ticket": "I forgot my password", "expected": "account"},
    ]
    evaluators = [{"name": "right", "string": {"equals": "{{expected}}"}}]
    for selector in ("github@1", "github"):
        exported = project.json("export", selector, "--local")
        assert (exported["testData"], exported["evaluators"]) == (rows, evaluators)


def test_a_template_at_fault_hides_no_evaluator_at_fault(project: Project) -> None:
    broken = GITHUB.replace("{{ticket}}", "{% if %}").replace("equals:", "equal:")
    project.write("prompts/github.prompt.yml", broken)
    faults = project.json("check", exit_code=2)["faults"]
    assert [(fault["line"], fault["message"]) for fault in faults] == [
        (4, "line 1: Expected an expression, got 'end of statement block'"),
        (9, "evaluator 'right' tests nothing that is known"),
    ]
