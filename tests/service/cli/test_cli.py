"""Commands as a user's shell runs them, in a project of its own with fake models."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from service.cli.main import run
from service.release import release
from tests.interrupts import heed_interrupts

ROOT = Path(__file__).parents[3]
PORT_9 = "http://127.0.0.1:9"  # nothing listens there
CONFIG = """\
models:
  model-a: {engine: fake, answers: {charged: billing, password: account}, default: other}
  slow: {engine: fake, default: billing, latency_s: 60}
  dead: {engine: openai, base_url: "http://127.0.0.1:9/v1"}
"""
PROMPT = """\
name: Ticket triage
model: model-a
modelParameters: {temperature: 0}
variables:
  ticket: {type: string, maxLength: 4000}
messages:
  - {role: system, content: "Route the ticket."}
  - {role: user, content: "{{ ticket }}"}
"""
SUITE = """\
prompt: support.triage
thresholds: {pass_rate: 0.60}
tests:
  - {vars: {ticket: "I was charged twice"}, assert: [{type: equals, value: billing}]}
  - {vars: {ticket: "I forgot my password"}, assert: [{type: equals, value: account}]}
  - {vars: {ticket: "charged, and no password"}, assert: [{type: equals, value: other}]}
"""

pytestmark = pytest.mark.integration


class Project:
    """A folder with turnout.yaml, a prompt and its suite.

    `turnout` runs a command as `main` does, in this process, as a new interpreter for each would take most of the tests'
    time; `shell` runs it in a process of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.home = folder / "home"
        self.write("turnout.yaml", CONFIG)
        self.write("prompts/support/triage.prompt.yml", PROMPT)
        self.write("suites/support/triage.suite.yml", SUITE)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}
        return kept | {"TURNOUT_HOME": str(self.home), "TURNOUT_URL": PORT_9, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "service.cli.main", *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interrupts,
        )

    def shell(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def turnout(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.folder),
            mock.patch.dict(os.environ, self.environment(), clear=True),
            mock.patch.object(sys, "argv", ["turnout", *arguments]),
            mock.patch.object(sys, "stdin", io.StringIO()),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = run(list(arguments))
        assert "Traceback" not in err.getvalue(), err.getvalue()
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def json(self, *arguments: str, exit_code: int = 0) -> Any:
        """Standard output as the one document that it must be."""
        done = self.turnout(*arguments, "--json")
        assert done.returncode == exit_code, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# ---------------------------------------------------------------------------- authoring


def test_init_writes_a_project_that_checks_and_keeps_what_is_there(project: Project) -> None:
    fresh = project.folder / "fresh"
    assert project.shell("init", "fresh").returncode == 0
    project.folder = fresh

    assert project.json("check") == {"ok": True, "prompts": 1, "suites": 1, "faults": []}
    (fresh / "turnout.yaml").write_text("models: {}\n")
    assert project.turnout("init").returncode == 0
    assert (fresh / "turnout.yaml").read_text() == "models: {}\n"
    assert (fresh / ".github/workflows/turnout.yml").is_file()


def test_check_reports_every_fault_of_every_file_at_once(project: Project) -> None:
    project.write("prompts/support/second.prompt.yml", "modl: model-a\nmessages: []\n")
    project.write("suites/support/second.suite.yml", "prompt: support.triage\nthreshold: {}\ntests: []\n")

    found = project.json("check", exit_code=2)

    assert found["ok"] is False
    wrong = [fault for fault in found["faults"] if fault["level"] == "error"]
    assert {Path(fault["path"]).name for fault in wrong} == {"second.prompt.yml", "second.suite.yml"}
    assert len(found["faults"]) >= 4
    assert all(fault["message"] and fault["line"] >= 0 for fault in found["faults"])
    told = project.turnout("check")
    assert (told.returncode, told.stdout) == (2, "")
    assert all(fault["message"] in told.stderr for fault in found["faults"])


def test_check_can_be_limited_to_a_path(project: Project) -> None:
    project.write("prompts/support/second.prompt.yml", "modl: model-a\n")

    assert project.turnout("check", "prompts/support/triage.prompt.yml").returncode == 0
    assert project.turnout("check", "prompts").returncode == 2
    assert project.turnout("check", "no/such/file.prompt.yml").returncode == 2


def test_render_shows_the_working_tree_without_any_server(project: Project) -> None:
    shown = project.json("render", "support.triage", "-v", "ticket=I was {{ charged }}", "--local")

    assert shown == {
        "name": "support.triage",
        "version": None,
        "digest": shown["digest"],
        "model": "model-a",
        "parameters": {"temperature": 0},
        "messages": [
            {"role": "system", "content": "Route the ticket."},
            {"role": "user", "content": "I was {{ charged }}"},
        ],
        "tokens": {"count": 22, "exact": False},
    }
    assert project.turnout("render", "support.triage", "--local").returncode == 2
    assert project.turnout("render", "support.none", "--local").returncode == 2
    assert not project.home.exists()


def test_push_makes_a_version_of_what_is_new_and_says_so(project: Project) -> None:
    first = project.json("push", "--message", "the first", "--local")
    again = project.json("push", "--local")

    assert [(entry["kind"], entry["name"], entry["version"], entry["created"]) for entry in first] == [
        ("prompt", "support.triage", 1, True),
        ("suite", "support.triage", 1, True),
    ]
    assert [entry.keys() for entry in first] == [{"kind", "name", "version", "digest", "created"}] * 2
    assert [entry["created"] for entry in again] == [False, False]
    assert [entry["digest"] for entry in again] == [entry["digest"] for entry in first]


def test_versions_are_logged_shown_compared_and_labelled(project: Project) -> None:
    project.json("push", "-m", "the first", "--local")
    project.write("prompts/support/triage.prompt.yml", PROMPT.replace("Route the", "Send the"))
    project.json("push", "-m", "the second", "--local")

    history = project.json("log", "support.triage", "--local")
    assert [(version["version"], version["message"]) for version in history["versions"]] == [
        (2, "the second"),
        (1, "the first"),
    ]
    changed = project.json("diff", "support.triage", "1", "latest", "--local")
    assert changed["same"] is False
    assert [line for line in changed["messages"] if line[:1] in "+-" and "ticket" in line] != []
    assert project.json("show", "support.triage@1", "--local")["version"] == 1
    assert project.json("label", "support.triage", "staging", "1", "--local")["version"] == 1
    assert project.json("show", "support.triage@staging", "--local")["version"] == 1
    assert project.turnout("show", "support.triage", "--local").returncode == 2  # no production yet
    assert project.turnout("show", "support.triage@3", "--local").returncode == 2


def test_production_moves_only_with_a_reason_or_a_gate_and_route_undo_takes_it_back(project: Project) -> None:
    project.json("push", "--local")
    project.write("prompts/support/triage.prompt.yml", PROMPT.replace("Route the", "Send the"))
    project.json("push", "--local")

    refused = project.turnout("label", "support.triage", "production", "1", "--local")
    assert refused.returncode == 2
    assert "passing gate" in refused.stderr
    project.json("label", "support.triage", "production", "1", "--reason", "the first", "--local")
    project.json("label", "support.triage", "production", "2", "--reason", "the second", "--local")
    undone = project.json("route", "support.triage", "undo", "--local")

    assert undone["variants"] == [{"variant": "support.triage@1+model-a", "percent": 100.0}]
    assert project.json("show", "support.triage", "--local")["version"] == 1


def test_key_create_shows_a_new_key_once(project: Project) -> None:
    made = project.json("key", "create", "--role", "app", "--local")

    assert made.keys() >= {"id", "role", "key"}
    assert (made["role"], made["key"][:12]) == ("app", "turnout_app_")
    listed = project.turnout("key", "list", "--local", "--json")
    assert made["id"] in listed.stdout
    assert made["key"] not in listed.stdout
    assert project.turnout("key", "create", "--role", "root", "--local").returncode == 2
    assert project.json("key", "revoke", made["id"], "--local") == {"id": made["id"], "revoked": True}


# ---------------------------------------------------------------------------- run


def test_run_of_a_file_tests_the_working_tree(project: Project) -> None:
    result = project.json("run", "suites/support/triage.suite.yml", "--local")

    assert result.keys() >= {"run_id", "variant", "total", "passed", "failed", "errored", "skipped", "pass_rate",
                             "ci95", "seconds", "metrics"}  # fmt: skip
    assert {name: result[name] for name in ("variant", "total", "passed", "failed", "errored", "skipped", "verdict")} == {
        "variant": "support.triage@1+model-a", "total": 3, "passed": 2, "failed": 1, "errored": 0, "skipped": 0,
        "verdict": "pass",
    }  # fmt: skip
    assert result["pass_rate"] == pytest.approx(2 / 3)
    assert result["ci95"] == pytest.approx([0.2077, 0.9385], abs=1e-4)
    assert project.json("log", "support.triage", "--local")["labels"] == {}  # what was tested is a draft


def test_run_without_a_suite_runs_them_all(project: Project) -> None:
    assert project.json("run", "--local")["total"] == 3


def test_run_exits_1_on_a_missed_threshold_and_without_thresholds_on_a_failed_case(project: Project) -> None:
    project.write("suites/high.suite.yml", SUITE.replace("0.60", "0.90"))
    assert project.json("run", "suites/high.suite.yml", "--local", exit_code=1)["verdict"] == "fail"

    project.write("suites/none.suite.yml", SUITE.replace("thresholds: {pass_rate: 0.60}\n", ""))
    assert project.json("run", "suites/none.suite.yml", "--local", exit_code=1)["failed"] == 1


def test_run_exits_4_where_the_model_is_dead_and_2_on_a_bad_file_or_name(project: Project) -> None:
    dead = project.json("run", "suites/support/triage.suite.yml", "--model", "dead", "--local", exit_code=4)
    assert dead["passed"] == 0
    assert dead["errored"] + dead["skipped"] == dead["total"] == 3

    project.write("suites/bad.suite.yml", "prompt: support.triage\n")
    assert project.turnout("run", "suites/bad.suite.yml", "--local").returncode == 2
    assert project.turnout("run", "no.such", "--local").returncode == 2
    assert project.turnout("run", "suites/support/triage.suite.yml", "--model", "none", "--local").returncode == 2


def test_run_of_a_name_means_what_the_registry_holds(project: Project) -> None:
    project.json("push", "--local")
    project.write("prompts/support/triage.prompt.yml", PROMPT.replace("Route the", "Send the"))

    assert project.turnout("run", "support.triage", "--local").returncode == 2  # no production yet
    result = project.json("run", "support.triage", "--prompt", "support.triage@1", "--local")

    assert result["variant"] == "support.triage@1+model-a"


def test_rerun_failed_asks_only_what_did_not_pass(project: Project) -> None:
    first = project.json("run", "--local")
    again = project.json("run", "--rerun-failed", "--local")

    assert again["run_id"] != first["run_id"]
    assert (again["total"], again["passed"]) == (3, 2)


def test_several_prompts_and_models_make_one_table_compared_with_the_first(project: Project) -> None:
    project.json("push", "--local")
    project.write(
        "turnout.yaml",
        CONFIG + "  better: {engine: fake, answers: {no password: other, charged: billing, password: account}}\n",
    )

    rows = project.json("run", "suites/support/triage.suite.yml", "--model", "model-a", "--model", "better", "--local")
    shown = project.turnout("run", "support.triage", "--prompt", "support.triage@1", "--model", "model-a", "--model",
                            "better", "--local")  # fmt: skip

    assert [(row["variant"], row["passed"]) for row in rows] == [
        ("support.triage@1+model-a", 2),
        ("support.triage@1+better", 3),
    ]
    assert "against_first" not in rows[0]
    assert rows[1]["against_first"] == {
        "paired": 3, "broken": 0, "mended": 1, "difference": pytest.approx(1 / 3), "p_value": 1.0,
    }  # fmt: skip
    assert "+33.3%" in shown.stdout


def test_some_of_the_cases_can_be_run_and_say_that_they_are_no_evidence(project: Project) -> None:
    result = project.json("run", "--case", "password", "--first", "1", "--local")
    shown = project.turnout("run", "--sample", "2", "--seed", "3", "--local")

    assert (result["total"], result["filter"]) == (1, {"cases": ["password"], "first": 1})
    assert "no evidence for a gate" in shown.stderr
    assert project.turnout("run", "--tag", "none-such", "--local").returncode == 2
    assert project.turnout("run", "--first", "1", "--rerun-failed", "--local").returncode == 2
    assert project.turnout("gate", "--first", "1", "--local").returncode == 2


def test_a_run_of_a_service_is_resumed_by_its_job() -> None:
    from prompts.errors import BadInput
    from service.cli.work import RemoteWork
    from service.gates import RunRequest

    class Remote:
        """A service with two jobs of runs, the newest first."""

        def call(self, *_: object, **__: object) -> list[dict[str, object]]:
            runs = [("job_2", "failed", "other@1"), ("job_1", "cancelled", "s@3")]
            return [{"job_id": i, "kind": "run", "status": s, "spec": {"suite": suite}} for i, s, suite in runs]

    with pytest.raises(BadInput, match="turnout job job_1 --resume --watch"):
        RemoteWork(Remote()).run(RunRequest(suite="s"), lambda *_: None, resume=True)  # type: ignore[arg-type]  # a stub


def test_an_interrupted_run_exits_130_with_the_one_document_of_an_error(project: Project) -> None:
    process = project.start("run", "--model", "slow", "--local", "--json")
    with process:
        wait_for_run(project)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)

    assert (process.returncode, json.loads(out)) == (130, {"error": {"message": "interrupted", "exit_code": 130}})
    assert "interrupted" in err
    assert "Traceback" not in err


def wait_for_run(project: Project) -> None:
    """Until a run has begun in the project's database."""
    import sqlite3

    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        try:
            with sqlite3.connect(f"file:{project.home / 'turnout.db'}?mode=ro", uri=True) as connection:
                if connection.execute("SELECT count(*) FROM run").fetchone()[0]:
                    time.sleep(0.3)
                    return
        except sqlite3.OperationalError:
            pass
        time.sleep(0.05)
    raise AssertionError("no run began")


# ---------------------------------------------------------------------------- gate


def test_gate_passes_on_thresholds_alone_where_there_is_no_production(project: Project, tmp_path: Path) -> None:
    files = {name: tmp_path / "out" / name for name in ("junit.xml", "comment.md", "gate.json")}
    answer = project.json("gate", "--local", "--junit", str(files["junit.xml"]), "--markdown", str(files["comment.md"]),
                          "--json-file", str(files["gate.json"]))  # fmt: skip

    assert answer.keys() >= {"verdict", "reasons", "suites"}
    assert answer["verdict"] == "pass"
    [entry] = answer["suites"]
    assert entry.keys() >= {"suite", "candidate", "baseline", "thresholds", "newly_broken", "newly_mended", "p_value",
                            "evidence_id"}  # fmt: skip
    assert (entry["candidate"], entry["baseline"], entry["p_value"]) == ("support.triage@1+model-a", None, None)
    assert json.loads(files["gate.json"].read_text()) == answer
    [suite] = ET.fromstring(files["junit.xml"].read_text()).iter("testsuite")  # noqa: S314 - our own file
    assert (suite.get("tests"), suite.get("failures")) == ("4", "1")  # each case, and each threshold
    assert "support.triage" in files["comment.md"].read_text()
    evidence = project.json("evidence", entry["evidence_id"], "--local")
    assert (evidence["kind"], evidence["verdict"], evidence["recomputed_equal"]) == ("gate", "pass", True)


def test_gate_compares_with_production_and_fails_on_a_must_pass_case_that_broke(project: Project) -> None:
    must = SUITE.replace("value: account}]", "value: account}], must_pass: true")
    project.write("suites/support/triage.suite.yml", must)
    project.json("push", "--local")
    project.json("label", "support.triage", "production", "1", "--reason", "first", "--local")
    worse = PROMPT.replace("{{ ticket }}", "charged: {{ ticket }}")
    project.write("prompts/support/triage.prompt.yml", worse)

    answer = project.json("gate", "--local", exit_code=1)

    [entry] = answer["suites"]
    assert answer["verdict"] == "fail"
    assert entry["baseline"] == "support.triage@1+model-a"
    assert entry["candidate"] == "support.triage@2+model-a"
    assert len(entry["newly_broken"]) == 1
    assert project.json("log", "support.triage", "--local")["labels"] == {"latest": 1, "production": 1}


def test_gate_is_inconclusive_with_too_few_cases(project: Project) -> None:
    project.write("suites/support/triage.suite.yml", SUITE + "gate: {min_cases: 50}\n")
    answer = project.json("gate", "--local", exit_code=3)

    assert answer["verdict"] == "inconclusive"
    assert answer["reasons"]


def test_gate_could_not_run_on_a_dead_model_and_says_so(project: Project) -> None:
    answer = project.json("gate", "--model", "dead", "--local", exit_code=4)

    assert answer["verdict"] == "could_not_run"


def test_gate_with_nothing_to_decide_by_is_bad_usage(project: Project) -> None:
    project.write("suites/support/triage.suite.yml", SUITE.replace("thresholds: {pass_rate: 0.60}\n", ""))
    done = project.turnout("gate", "--local")

    assert done.returncode == 2
    assert "nothing to decide by" in done.stderr


def test_gate_takes_a_git_revision_as_its_baseline(project: Project) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        subprocess.run(["git", *identity, *arguments], cwd=project.folder, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    project.write("prompts/support/triage.prompt.yml", PROMPT.replace("Route the", "Send the"))

    answer = project.json("gate", "--against", "main", "--local")

    [entry] = answer["suites"]
    assert entry["baseline"] is not None
    assert entry["baseline"] != entry["candidate"]
    assert entry["p_value"] == 1.0


# ---------------------------------------------------------------------------- usage and trouble


def test_an_unknown_command_or_option_is_bad_usage(project: Project) -> None:
    for arguments in (("no-such-command",), ("check", "--no-such-option"), ("run", "--concurrency", "0")):
        done = project.turnout(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr


def test_no_server_exits_4_and_says_what_to_do(project: Project) -> None:
    for arguments in (("log", "support.triage"), ("push",), ("run",), ("gate",), ("key", "list"), ("jobs",)):
        done = project.turnout(*arguments)
        assert done.returncode == 4, arguments
        assert "no service at http://127.0.0.1:9" in done.stderr
        assert "turnout serve" in done.stderr


def test_a_broken_turnout_yaml_is_told_with_its_line(project: Project) -> None:
    project.write("turnout.yaml", CONFIG + "servr: {port: 1}\n")
    done = project.turnout("check")

    assert done.returncode == 2
    assert "turnout.yaml:5" in done.stderr
    assert "servr" in done.stderr


def test_serve_on_a_port_that_is_taken_exits_4(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = project.turnout("serve", "--port", str(taken.getsockname()[1]))

    assert done.returncode == 4
    assert "another service listens there" in done.stderr


def test_serve_on_every_interface_without_names_is_bad_usage(project: Project) -> None:
    done = project.turnout("serve", "--host", "0.0.0.0", "--port", "0")  # noqa: S104 - that it is refused is the test

    assert done.returncode == 2
    assert "allowed_hosts" in done.stderr


def test_a_database_that_cannot_be_made_exits_4(project: Project) -> None:
    project.home.parent.joinpath("home").write_text("a file where a folder should be")
    done = project.shell("push", "--local")

    assert done.returncode == 4


@pytest.mark.long
def test_json_stands_alone_on_stdout_and_all_else_on_stderr(project: Project) -> None:
    for arguments in (("doctor",), ("models",), ("jobs", "--local"), ("audit", "--local"), ("key", "list", "--local")):
        done = project.shell(*arguments, "--json")
        assert isinstance(json.loads(done.stdout), list), arguments


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_release_is_told(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([option]) == 0
    assert capsys.readouterr().out == f"turnout {release()}\n"
