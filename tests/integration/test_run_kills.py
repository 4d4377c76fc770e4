"""`turnout run --local` killed at any moment goes on without asking a finished case again; a Ctrl-C keeps what there is."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.interrupts import heed_interrupts

pytestmark = pytest.mark.integration

CASES = 200
IN_FLIGHT = 8


class Endpoint(ThreadingHTTPServer):
    """Answers every question with `billing`, slowly enough to be killed in between, and keeps what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.refuse_every = 0
        self.holds_after: int | None = None  # requests: those beyond it wait until `let_go`
        self._going_on = threading.Event()

    def hold(self) -> None:
        """Answer nothing beyond `holds_after`, so that a run cannot end before it is killed, however busy the machine."""
        if self.holds_after is not None and len(self.asked) > self.holds_after:
            self._going_on.wait(60)

    def let_go(self) -> None:
        self.holds_after = None
        self._going_on.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def wait_for(self, count: int, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 60
        while len(self.asked) < count:
            assert child.poll() is None, "the run ended before it was to be killed"
            assert time.monotonic() < deadline, "the run asks nothing"
            time.sleep(0.005)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body["messages"][-1]["content"])
        if self.server.refuse_every and len(self.server.asked) % self.server.refuse_every == 0:
            self._reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.05"})
            return
        self.server.hold()
        time.sleep(0.02)
        answer = {"message": {"role": "assistant", "content": "billing"}, "finish_reason": "stop"}
        self._reply(200, {"choices": [answer], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}, {})

    def _reply(self, status: int, data: dict[str, Any], headers: dict[str, str]) -> None:
        raw = json.dumps(data).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(raw))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Nothing: pytest shows what tests print."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def project(tmp_path: Path, endpoint: Endpoint) -> Path:
    folder = tmp_path / "project"
    (folder / "prompts").mkdir(parents=True)
    (folder / "suites").mkdir()
    (folder / "turnout.yaml").write_text(f"models: {{m: {{engine: openai, base_url: '{endpoint.url}'}}}}\n")
    (folder / "prompts" / "triage.prompt.yml").write_text(
        "model: m\nvariables: {t: {type: string}}\nmessages: [{role: user, content: '{{ t }}'}]\n"
    )
    (folder / "suites" / "triage.suite.yml").write_text(
        "prompt: triage\ndefaultTest: {assert: [{type: equals, value: billing}]}\ntests: file://cases.jsonl\n"
    )
    rows = (json.dumps({"vars": {"t": f"ticket {number}"}}) for number in range(CASES))
    (folder / "suites" / "cases.jsonl").write_text("\n".join(rows))
    return folder


def start(project: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "service.cli.main", "run", "suites/triage.suite.yml", "--local", "--json"]
    return subprocess.Popen(
        [*command, "--concurrency", str(IN_FLIGHT), *options],
        cwd=project,
        env={**os.environ, "TURNOUT_HOME": str(project.parent / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_interrupts,
    )


def finish(project: Path, *options: str) -> dict[str, Any]:
    out, err = start(project, *options).communicate(timeout=120)
    found: dict[str, Any] = json.loads(out) if out else {"stderr": err.decode()}
    return found


def stored(project: Path) -> set[str]:
    """The tickets whose results are in the database."""
    with sqlite3.connect(project.parent / "home" / "turnout.db") as connection:
        rows = connection.execute("SELECT position FROM case_result WHERE status = 'passed'").fetchall()
    connection.close()
    return {f"ticket {position}" for (position,) in rows}


@pytest.mark.parametrize("options", [("--resume", "--no-cache"), ("--resume",), ()])
@pytest.mark.parametrize("killed_at", [1, 60, 150])
def test_a_killed_run_asks_no_finished_case_again(
    project: Path, endpoint: Endpoint, killed_at: int, options: tuple[str, ...]
) -> None:
    endpoint.holds_after = killed_at
    child = start(project, *options)
    endpoint.wait_for(killed_at, child)
    time.sleep(0.2)  # what was answered is being written
    child.send_signal(signal.SIGKILL)
    child.communicate()
    endpoint.let_go()
    kept = stored(project)
    asked_before = len(endpoint.asked)

    run = finish(project, *options)

    again = Counter(endpoint.asked[asked_before:])
    assert (run["total"], run["passed"], run["skipped"]) == (CASES, CASES, 0), run
    assert kept & again.keys() == set()
    assert set(endpoint.asked) == {f"ticket {number}" for number in range(CASES)}
    assert max(again.values(), default=1) == 1
    assert killed_at < 60 or len(kept) > 0, "nothing had been kept: the test shows nothing"


def test_a_run_that_is_interrupted_exits_130_and_says_how_to_go_on(project: Path, endpoint: Endpoint) -> None:
    endpoint.holds_after = 60
    child = start(project, "--no-cache")
    endpoint.wait_for(60, child)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    endpoint.let_go()
    assert (child.returncode, json.loads(out)["error"]["message"]) == (130, "interrupted")
    assert b"results are kept as run_" in err
    assert b"--resume" in err
    kept = stored(project)
    asked_before = len(endpoint.asked)

    run = finish(project, "--no-cache", "--resume")

    assert kept
    assert kept.isdisjoint(endpoint.asked[asked_before:])
    assert (run["passed"], run["run_id"] in err.decode()) == (CASES, True)


def test_an_endpoint_that_refuses_for_overload_costs_no_case(project: Path, endpoint: Endpoint) -> None:
    endpoint.refuse_every = 5

    run = finish(project)

    assert (run["passed"], run["errored"], run["stopped"]) == (CASES, 0, "")
    assert run["retries"] == len(endpoint.asked) - CASES > 0


def test_a_dead_endpoint_is_told_within_seconds(project: Path, endpoint: Endpoint) -> None:
    (project / "turnout.yaml").write_text("models: {m: {engine: openai, base_url: 'http://127.0.0.1:9/v1'}}\n")

    child = start(project)
    out, _ = child.communicate(timeout=60)

    run = json.loads(out)
    assert child.returncode == 4
    assert run["seconds"] < 5
    assert run["skipped"] > CASES - 2 * IN_FLIGHT
    assert run["stopped"].startswith("model unreachable")
