"""`turnout gate --local` killed at any moment goes on with both sides; SIGTERM, which CI systems send, ends it in order."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_run_kills import CASES, IN_FLIGHT, Endpoint, endpoint, project
from tests.interrupts import heed_interrupts

__all__ = ["endpoint", "project"]  # fixtures
pytestmark = pytest.mark.integration
SUITE = "suites/triage.suite.yml"


def ignore_interrupts() -> None:
    """As the children of a shell's background do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def start(project: Path, *arguments: str, before: Callable[[], None] = heed_interrupts) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "service.cli.main", *arguments, "--local"],
        cwd=project,
        env={**os.environ, "TURNOUT_HOME": str(project.parent / "home"), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=before,
    )


def done(project: Path, *arguments: str) -> Any:
    child = start(project, *arguments, "--json")
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err.decode()
    return json.loads(out)


def gate_options(*more: str) -> tuple[str, ...]:
    return ("gate", SUITE, "--concurrency", str(IN_FLIGHT), "--no-cache", *more)


@pytest.fixture
def changed(project: Path) -> Path:
    """The prompt asks `ticket 7` in production, and `now ticket 7` in the working tree."""
    done(project, "push")
    done(project, "label", "triage", "production", "1", "--reason", "first")
    file = project / "prompts" / "triage.prompt.yml"
    file.write_text(file.read_text().replace("'{{ t }}'", "'now {{ t }}'"))
    return project


def stored(project: Path) -> set[str]:
    """The questions whose answers are in the database: the candidate's run ends in `c`, the baseline's in `b`."""
    with sqlite3.connect(project.parent / "home" / "turnout.db") as connection:
        rows = connection.execute("SELECT run_id, position FROM case_result").fetchall()
    connection.close()
    return {f"{'now ' if run_id.endswith('c') else ''}ticket {position}" for run_id, position in rows}


@pytest.mark.parametrize("killed_at", [1, 60, CASES + 60])
def test_a_killed_gate_goes_on_with_both_sides_and_asks_nothing_twice(
    changed: Path, endpoint: Endpoint, killed_at: int
) -> None:
    endpoint.holds_after = killed_at
    child = start(changed, *gate_options())
    endpoint.wait_for(killed_at, child)
    time.sleep(0.3)  # what was answered is being written
    child.send_signal(signal.SIGKILL)
    child.communicate()
    endpoint.let_go()
    kept, before = stored(changed), len(endpoint.asked)

    answer = done(changed, *gate_options("--resume"))

    again = Counter(endpoint.asked[before:])
    assert kept.isdisjoint(again)
    assert len(kept) + len(again) == 2 * CASES
    assert max(again.values()) == 1
    assert len(kept) >= min(killed_at, CASES) - 2 * IN_FLIGHT, "too little had been kept: the test shows nothing"
    assert (answer["verdict"], answer["suites"][0]["paired"]) == ("pass", CASES)
    verified = done(changed, "evidence", answer["suites"][0]["evidence_id"], "--verify")
    assert verified["verified"] is True


def test_a_gate_that_came_to_a_verdict_is_not_resumed(changed: Path, endpoint: Endpoint) -> None:
    first = done(changed, *gate_options())
    before = len(endpoint.asked)
    second = done(changed, *gate_options("--resume"))

    assert first["gate_id"] != second["gate_id"]
    assert len(endpoint.asked) - before == 2 * CASES


@pytest.mark.parametrize("before", [heed_interrupts, ignore_interrupts])
@pytest.mark.parametrize("command", ["run", "gate"])
def test_sigterm_keeps_what_is_there_and_tells_the_command_that_goes_on(
    changed: Path, endpoint: Endpoint, command: str, before: Callable[[], None]
) -> None:
    endpoint.holds_after = 60
    options = (command, *gate_options()[1:])
    child = start(changed, *options, "--json", before=before)
    endpoint.wait_for(60, child)
    time.sleep(0.3)
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=60)
    endpoint.let_go()
    kept, asked_before = stored(changed), len(endpoint.asked)

    assert (child.returncode, json.loads(out)["error"]["message"]) == (130, "interrupted")
    told = err.decode()
    assert f"{len(kept)} results are kept as {command}_" in told
    assert f"go on with: turnout {' '.join(options)} --json --local --resume" in told
    assert "Traceback" not in told
    assert len(kept) >= 60 - 2 * IN_FLIGHT
    done(changed, *options, "--resume")
    assert kept.isdisjoint(endpoint.asked[asked_before:])


def test_sigterm_before_anything_is_asked_exits_130(changed: Path) -> None:
    """The files are still being read: nobody has seen a question."""
    child = start(changed, *gate_options())
    deadline = time.monotonic() + 60
    while not _heeds_sigterm(child.pid) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)

    assert child.returncode == 130


def _heeds_sigterm(pid: int) -> bool:
    """Whether the process catches SIGTERM by now, from Linux's own account of it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)
