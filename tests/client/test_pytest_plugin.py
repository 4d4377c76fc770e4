"""The pytest plug-in as a project's own tests use it: pytest in a process of its own, the gate in another."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from turnout.pytest_plugin import in_words

ROOT = Path(__file__).parents[2]
CONFIG = "models: {table: {engine: fake, answers: {charged: billing}, default: other}}\n"
PROMPT = 'model: table\nvariables: {ticket: {type: string}}\nmessages: [{role: user, content: "{{ ticket }}"}]\n'
SUITE = """\
prompt: triage
thresholds: {pass_rate: 0.9}
gate: {min_cases: LEAST}
tests: [{vars: {ticket: charged}, assert: [{type: equals, value: EXPECTED}]}]
"""
TEST = "def test_triage(turnout_gate):\n    assert turnout_gate('suites/triage.suite.yml')['verdict'] == 'pass'\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("prompts", "suites"):
        (tmp_path / folder).mkdir()
    (tmp_path / "turnout.yaml").write_text(CONFIG)
    (tmp_path / "prompts/triage.prompt.yml").write_text(PROMPT)
    (tmp_path / "test_prompts.py").write_text(TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    write_suite(tmp_path)
    return tmp_path


def write_suite(project: Path, expected: str = "billing", least: int = 1) -> None:
    text = SUITE.replace("EXPECTED", expected).replace("LEAST", str(least))
    (project / "suites/triage.suite.yml").write_text(text)


def result_of(project: Path, *options: str) -> tuple[int, str]:
    """pytest's exit code and what it said."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("TURNOUT_", "PYTEST_"))}
    paths = os.pathsep.join((str(ROOT), str(ROOT / "service" / "client")))
    environment = {
        **bare,
        "PYTHONPATH": paths,
        "TURNOUT_HOME": str(project / "home"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "turnout.pytest_plugin", "-p", "no:cacheprovider", *options],
        cwd=project, env={**environment, "TURNOUT_URL": "http://127.0.0.1:9"}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.integration
def test_a_suite_that_passes_is_a_test_that_passes(project: Path) -> None:
    code, said = result_of(project, "--turnout-local")
    assert (code, "1 passed" in said) == (0, True), said


@pytest.mark.integration
def test_a_missed_threshold_fails_the_test_with_its_reason(project: Path) -> None:
    write_suite(project, expected="account")
    code, said = result_of(project, "--turnout-local")
    assert code == 1
    assert "suites/triage.suite.yml: fail (exit code 1)" in said
    assert "pass_rate" in said
    assert "triage: evidence ev_" in said
    assert "Traceback" not in said


@pytest.mark.integration
def test_an_inconclusive_gate_and_one_that_could_not_run_fail_too(project: Path) -> None:
    write_suite(project, least=5)
    code, said = result_of(project, "--turnout-local")
    assert (code, "inconclusive (exit code 3)" in said) == (1, True), said
    code, said = result_of(project)  # the server is at a port where nothing listens
    assert (code, "no verdict (exit code 4)" in said, "127.0.0.1:9" in said) == (1, True, True), said


@pytest.mark.integration
def test_the_baseline_is_that_of_the_option(project: Path) -> None:
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "one"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *identity, *command], cwd=project, check=True)
    (project / "prompts/triage.prompt.yml").write_text(PROMPT.replace("{{ ticket }}", "Now {{ ticket }}"))
    (project / "test_prompts.py").write_text(
        "def test_triage(turnout_gate):\n"
        "    [entry] = turnout_gate('suites/triage.suite.yml')['suites']\n"
        "    assert entry['origins']['baseline'].startswith('git:')\n"
        "    [entry] = turnout_gate('suites/triage.suite.yml', options=['--baseline', 'none'], against='')['suites']\n"
        "    assert entry['baseline'] is None\n"
    )
    code, said = result_of(project, "--turnout-local", "--turnout-against", "main")
    assert code == 0, said


def test_a_verdict_in_words_names_what_broke_and_the_evidence() -> None:
    suites = [{"suite": "s", "newly_broken": [f"c{n}" for n in range(12)], "evidence_id": "ev_1"}]
    answer = {"verdict": "fail", "reasons": ["s: worse"], "suites": suites}
    assert in_words("s", answer, "", 1).splitlines() == [
        "s: fail (exit code 1)",
        "  s: worse",
        "  s: newly broken: c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 … and 2 more",
        "  s: evidence ev_1",
    ]
    assert in_words("s", {}, "killed", -9) == "s: no verdict (exit code -9)\nkilled"


def test_pytest_finds_it_by_itself() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"turnout": "turnout.pytest_plugin"}
