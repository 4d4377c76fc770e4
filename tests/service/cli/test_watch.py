"""`turnout watch`: what a save may have changed is run again, and what broke or was mended is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.cli.watching import Moved, Scene, Watcher, affected, changed_files, moved, stamps
from tests.interrupts import heed_interrupts
from tests.service.cli.projects import CONFIG, PROMPT, SUITE, Project

ROOT = Path(__file__).parents[3]
TONE, TRIAGE, OTHER = Path("/p/tone.yml"), Path("/p/triage.yml"), Path("/p/other.yml")
ONE, ONE_CASES, TWO = Path("/s/one.yml"), Path("/s/one.jsonl"), Path("/s/two.yml")
SCENE = Scene(
    prompts={"tone": (TONE, ()), "triage": (TRIAGE, ("tone",)), "other": (OTHER, ("gone",))},
    suites={"one": ("triage", (ONE, ONE_CASES)), "two": ("other", (TWO,))},
)


@pytest.mark.parametrize(
    ("changed", "suites"),
    [
        ([TRIAGE], ["one"]),
        ([TONE], ["one"]),
        ([ONE_CASES], ["one"]),
        ([OTHER, ONE], ["one", "two"]),
        ([TWO], ["two"]),
        ([Path("/p/unused.yml")], []),
        ([], []),
    ],
)
def test_the_suites_of_a_changed_prompt_of_its_includers_and_of_a_changed_file_are_affected(
    changed: list[Path], suites: list[str]
) -> None:
    assert affected(changed, SCENE, SCENE) == suites


def test_what_a_suite_was_made_of_before_counts_too() -> None:
    without = Scene(prompts={"other": (OTHER, ())}, suites={"one": ("triage", (ONE,)), "two": ("other", (TWO,))})
    assert affected([TRIAGE], SCENE, without) == ["one"]
    assert affected([ONE_CASES], SCENE, without) == ["one"]
    assert affected([TRIAGE], without, SCENE) == ["one"]
    assert affected([], without, SCENE) == ["one"]
    assert affected([TWO], Scene(), SCENE) == ["two"]
    assert affected([TWO], SCENE, Scene()) == []


def test_includes_in_a_circle_are_followed_once() -> None:
    circle = Scene({"a": (TONE, ("b",)), "b": (OTHER, ("a",))}, {"s": ("a", (ONE,))})
    assert circle.files_of("s") == {TONE, OTHER, ONE}


def test_files_written_made_or_removed_are_changed() -> None:
    before = {TONE: (1, 5, 7), ONE: (1, 5, 8), TWO: (1, 5, 9)}
    after = {TONE: (2, 5, 7), ONE: (1, 5, 8), OTHER: (3, 1, 1)}
    assert changed_files(before, after) == [OTHER, TONE, TWO]


def test_cases_that_broke_were_mended_or_are_new_are_told_apart() -> None:
    before = {"a": "passed", "b": "failed", "c": "errored", "d": "failed", "gone": "passed"}
    after = {"a": "failed", "b": "passed", "c": "passed", "d": "errored", "e": "failed", "f": "passed"}
    assert moved(before, after) == Moved(broken=("a",), mended=("b", "c"), new_bad=("e",))


def test_all_files_of_the_project_are_looked_at_but_hidden_ones(workspace: Project) -> None:
    workspace.write_all()
    extra = workspace.write("more/cases.jsonl", "")
    for name in ("prompts/.x.prompt.yml.swp", "prompts/x.prompt.yml~", "README.md"):
        workspace.write(name, "x")
    assert sorted(str(path.relative_to(workspace.folder)) for path in stamps(workspace.folder, [extra])) == [
        "more/cases.jsonl", "prompts/support/triage.prompt.yml", "suites/support/triage.suite.yml", "turnout.yaml",
    ]  # fmt: skip


# ---------------------------------------------------------------------------- looking


@pytest.fixture
def project(workspace: Project) -> Project:
    workspace.write_all()
    return workspace


class Looking:
    """A watcher, and what it prints at each look, without the line of the time."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str], **options: bool) -> None:
        self.watcher = Watcher([], runs=options.get("runs", True), local=True)
        self._project, self._capsys = project, capsys

    def look(self, *names: str) -> tuple[list[str], list[str]]:
        self._capsys.readouterr()
        self.watcher.look([self._project.folder / name for name in names] or None)
        out, err = self._capsys.readouterr()
        return out.splitlines(), err.splitlines()[1:]


@pytest.fixture
def looking(project: Project, capsys: pytest.CaptureFixture[str]) -> Looking:
    return Looking(project, capsys)


PROMPT_FILE, SUITE_FILE = "prompts/support/triage.prompt.yml", "suites/support/triage.suite.yml"
FINE = "check: 1 prompt and 1 suite are fine"


def test_the_first_look_runs_everything_and_a_save_tells_what_broke_and_what_was_mended(
    project: Project, looking: Looking
) -> None:
    assert looking.look() == ([FINE, "support.triage@1: 2 of 2 passed"], [])

    project.write(PROMPT_FILE, PROMPT.replace("{{ ticket }}", "charged: {{ ticket }}"))
    out, _ = looking.look(PROMPT_FILE)
    assert out[:2] == [FINE, "support.triage@1: 1 of 2 passed, 1 broke, 0 mended"]
    assert out[2].startswith("  case 2 broke: expected: equal to 'account'; got 'billing'")

    project.write(PROMPT_FILE, PROMPT)
    assert looking.look(PROMPT_FILE)[0][1:] == ["support.triage@1: 2 of 2 passed, 0 broke, 1 mended", "  case 2 mended"]


def test_a_new_case_that_fails_is_new_not_broken(project: Project, looking: Looking) -> None:
    looking.look()
    project.write(SUITE_FILE, SUITE + "  - {vars: {ticket: hello}, assert: [{type: equals, value: billing}]}\n")
    out, _ = looking.look(SUITE_FILE)
    assert out[1] == "support.triage@2: 2 of 3 passed, 0 broke, 0 mended"
    assert out[2].startswith("  case 3 new, failed: ")


def test_a_save_that_affects_no_suite_is_checked_only(project: Project, looking: Looking) -> None:
    looking.look()
    project.write("prompts/other.prompt.yml", PROMPT)
    assert looking.look("prompts/other.prompt.yml") == (["check: 2 prompts and 1 suite are fine"], [])


def test_a_fault_stops_only_the_suites_that_it_is_in_and_ends_nothing(project: Project, looking: Looking) -> None:
    project.write("prompts/other.prompt.yml", PROMPT)
    project.write("suites/other.suite.yml", SUITE.replace("support.triage", "other"))
    looking.look()
    project.write(PROMPT_FILE, "modle: x\n")
    out, err = looking.look(PROMPT_FILE)
    assert out == []
    assert err[0].startswith(f"{PROMPT_FILE}:1: ")
    assert err[-1] == "support.triage: not run before prompt support.triage is mended"

    project.write("prompts/other.prompt.yml", PROMPT.replace("Route", "Send"))
    assert looking.look("prompts/other.prompt.yml")[0] == ["other@1: 2 of 2 passed, 0 broke, 0 mended"]
    project.write(PROMPT_FILE, PROMPT)
    assert "support.triage@1: 2 of 2 passed, 0 broke, 0 mended" in looking.look(PROMPT_FILE)[0]


def test_a_model_that_is_dead_and_a_broken_turnout_yaml_are_told_and_end_nothing(
    project: Project, looking: Looking
) -> None:
    project.write("turnout.yaml", "models: {model-a: {engine: openai, base_url: 'http://127.0.0.1:9/v1'}}\n")
    assert looking.look()[0][1] == "support.triage@1: 0 of 2 passed"
    project.write("turnout.yaml", "servr: {}\n")
    assert "servr" in looking.look("turnout.yaml")[1][0]
    project.write("turnout.yaml", CONFIG)
    assert "support.triage@1: 2 of 2 passed" in looking.look("turnout.yaml")[0][1]


def test_it_can_check_only_and_can_be_limited_to_some_suites(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Looking(project, capsys, runs=False).look() == ([FINE], [])
    project.write("suites/other.suite.yml", SUITE)
    limited = Looking(project, capsys)
    limited.watcher = Watcher([project.folder / "suites/other.suite.yml"], runs=True, local=True)
    assert [line.partition("@")[0] for line in limited.look()[0][1:]] == ["other"]


def test_with_json_each_look_is_a_line_in_the_shape_of_check_with_its_runs_and_all_else_is_on_stderr(
    project: Project, looking: Looking
) -> None:
    looking.watcher = Watcher([], runs=True, local=True, as_json=True)

    out, err = looking.look()
    first = json.loads(out[0])
    assert (len(out), FINE in err) == (1, True)
    assert {key: value for key, value in first.items() if key != "runs"} == {
        "changed": None, **project.json("check")
    }  # fmt: skip
    [run] = first["runs"]
    assert (run["suite"], run["passed"], run["total"], run["verdict"]) == ("support.triage@1", 2, 2, "pass")
    assert [run["newly_broken"], run["newly_mended"], run["new_failed"]] == [[], [], []]

    project.write(PROMPT_FILE, PROMPT.replace("{{ ticket }}", "charged: {{ ticket }}"))
    second = json.loads(looking.look(PROMPT_FILE)[0][0])
    assert (second["changed"], second["ok"], second["runs"][0]["passed"]) == ([PROMPT_FILE], True, 1)
    assert len(second["runs"][0]["newly_broken"]) == 1


def test_with_json_faults_and_what_is_not_run_for_them_stand_in_the_line(project: Project, looking: Looking) -> None:
    looking.watcher = Watcher([], runs=True, local=True, as_json=True)
    project.write(PROMPT_FILE, "modle: \x7f\n")
    [line] = looking.look()[0]
    found = json.loads(line)
    assert (found["ok"], found["prompts"], found["suites"]) == (False, 0, 1)
    assert found["faults"] == project.json("check", exit_code=2)["faults"]
    why = "not run before prompt support.triage is mended"
    assert found["runs"] == [{"suite": "support.triage", "error": why}]

    project.write("turnout.yaml", "servr: {}\n")
    found = json.loads(looking.look("turnout.yaml")[0][0])
    assert (found["ok"], found["faults"][0]["message"], found["runs"]) == (False, "unknown key 'servr'", [])


@pytest.mark.integration
def test_a_save_is_seen_and_an_interrupt_ends_it(project: Project, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli.main", "watch", "--local"],
            cwd=project.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=file, stderr=file,
            preexec_fn=heed_interrupts,
        )  # fmt: skip

    def until(text: str) -> None:
        ends = time.monotonic() + 60
        while text not in log.read_text("utf-8"):
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < ends, log.read_text("utf-8")
            time.sleep(0.05)

    try:
        until("2 of 2 passed\n")
        until("watching; Ctrl-C ends it")
        project.write(PROMPT_FILE, PROMPT.replace("{{ ticket }}", "charged: {{ ticket }}"))
        until("1 broke")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text("utf-8")


def test_faults_of_files_that_were_not_saved_are_counted_and_a_save_is_told_with_its_folder(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write("prompts/a/full.prompt.yml", PROMPT.replace("model-a", "nowhere"))
    project.write("prompts/b/full.prompt.yml", PROMPT)
    looking = Looking(project, capsys, runs=False)
    assert any("turnout.yaml has no model 'nowhere'" in line for line in looking.look()[1])

    looking.watcher.look([project.folder / "prompts/b/full.prompt.yml"])

    err = capsys.readouterr().err.splitlines()
    assert err[0].endswith("  prompts/b/full.prompt.yml")
    assert err[1:] == ["other files: 0 faults, 1 warning; `turnout check` tells them"]
