"""`turnout run --local` of two variants whose answers are compared, killed after both have answered and while a judge is asked."""

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

CASES = 40
IN_FLIGHT = 4


class Upstream(ThreadingHTTPServer):
    """Two models that answer by their names, and a judge who likes `long`; `asked` holds the model of each question."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str]] = []
        self.judged_at_most: int | None = None
        self.going_on = threading.Event()

    def answer(self, model: str, text: str) -> str:
        self.asked.append((model, text))
        if model != "judge":
            return f"{model} answer"
        if self.judged_at_most is not None and self.count("judge") > self.judged_at_most:
            self.going_on.wait(60)
        first = "\nlong answer" in text.partition("answer 2\n")[0]
        return json.dumps({"reason": "long", "best": 1 if first else 2})

    def count(self, model: str) -> int:
        return sum(name == model for name, _ in self.asked)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = self.server.answer(body["model"], body["messages"][-1]["content"])
        answer = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        raw = json.dumps({"choices": [answer], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Nothing: pytest shows what tests print."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.going_on.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def project(tmp_path: Path, upstream: Upstream) -> Path:
    folder = tmp_path / "project"
    (folder / "prompts").mkdir(parents=True)
    (folder / "suites").mkdir()
    url = f"http://127.0.0.1:{upstream.server_address[1]}/v1"
    models = {name: {"engine": "openai", "base_url": url} for name in ("short", "long", "judge")}
    (folder / "turnout.yaml").write_text(json.dumps({"models": models}))
    (folder / "prompts" / "p.prompt.yml").write_text(
        "model: short\nvariables: {t: {type: string}}\nmessages: [{role: user, content: 'ask {{ t }}'}]\n"
    )
    tests = [{"vars": {"t": f"{n}"}, "assert": [{"type": "select-best", "value": "is long"}]} for n in range(CASES)]
    suite = {"prompt": "p", "judge": {"model": "judge"}, "tests": tests}
    (folder / "suites" / "p.suite.yml").write_text(json.dumps(suite))
    return folder


def start(project: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "service.cli.main", "run", "suites/p.suite.yml", "--local", "--json"]
    return subprocess.Popen(
        [*command, "--model", "short", "--model", "long", "--no-cache", "--concurrency", str(IN_FLIGHT), *options],
        cwd=project,
        env={**os.environ, "TURNOUT_HOME": str(project.parent / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_interrupts,
    )


def rows(project: Path) -> Counter[str]:
    with sqlite3.connect(project.parent / "home" / "turnout.db") as connection:
        found = Counter(status for (status,) in connection.execute("SELECT status FROM case_result").fetchall())
    connection.close()
    return found


@pytest.mark.parametrize(("killed_at", "end"), [(0, signal.SIGKILL), (15, signal.SIGKILL), (15, signal.SIGTERM)])
def test_a_comparison_that_was_ended_goes_on_and_asks_nobody_twice(
    project: Path, upstream: Upstream, killed_at: int, end: signal.Signals
) -> None:
    upstream.judged_at_most = killed_at
    child = start(project)
    deadline = time.monotonic() + 60
    while upstream.count("judge") <= killed_at:
        assert child.poll() is None, "the run ended before it was to be killed"
        assert time.monotonic() < deadline, "no judge is asked"
        time.sleep(0.005)
    time.sleep(0.3)  # what was decided is being written
    child.send_signal(end)
    _, err = child.communicate(timeout=60)
    upstream.going_on.set()
    upstream.judged_at_most = None
    before, judged = rows(project), upstream.count("judge")
    assert (before["passed"], before["failed"]) == (killed_at, killed_at)
    assert before["skipped"] == 2 * (CASES - killed_at)
    assert end == signal.SIGKILL or b"results are kept as matrix_" in err

    out, err = start(project, "--resume").communicate(timeout=60)

    first, second = json.loads(out)
    assert (first["failed"], second["passed"], second["total"]) == (CASES, CASES, CASES), err
    assert b"goes on with matrix_" in err
    assert (upstream.count("short"), upstream.count("long")) == (CASES, CASES)
    assert upstream.count("judge") - judged == CASES - killed_at


def test_without_resume_the_matrix_starts_anew(project: Path, upstream: Upstream) -> None:
    upstream.judged_at_most = 0
    child = start(project)
    while upstream.count("judge") == 0 and child.poll() is None:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    upstream.going_on.set()
    upstream.judged_at_most = None

    results: list[dict[str, Any]] = json.loads(start(project).communicate(timeout=60)[0])

    assert [each["passed"] for each in results] == [0, CASES]
    assert upstream.count("long") == 2 * CASES
