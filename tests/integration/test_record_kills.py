"""What `turnout serve` has answered is in the request log: killed at any moment, with the database gone and back."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.identity import KEY_FILE
from service.store import requests
from service.store.database import Database
from service.store.request_query import Question, newest
from tests.service.postgres import running_postgres

pytestmark = pytest.mark.integration
SETTINGS = """
server: {{workers: 0}}
models: {{model-a: {{engine: fake, default: billing}}}}
recording: {{durable: {durable}, bodies: true}}
"""
PATIENCE_S = 60.0


class Served:
    """One TURNOUT_HOME with `turnout serve` on it, which may be killed and started again."""

    def __init__(self, home: Path, url: str | None, *, is_durable: bool) -> None:
        home.mkdir(parents=True)
        (home / "turnout.yaml").write_text(SETTINGS.format(durable=str(is_durable).lower()))
        self.home = home
        self.database_url = url or f"sqlite:///{home / 'turnout.db'}"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    def start(self) -> None:
        environment = {**os.environ, "TURNOUT_HOME": str(self.home), "TURNOUT_STORAGE_URL": self.database_url}
        command = [sys.executable, "-P", "-m", "service.cli.main", "serve", "--port", str(self.port)]
        with (self.home / "child.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.home, env=environment, stdout=log, stderr=log)
        wait_for(self._is_ready, self.log)

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self._client.get("/health/ready").status_code == 200
        return False

    def log(self) -> str:
        return (self.home / "child.log").read_text()[-3000:]

    def kill(self, how: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE_S)
            self._process = None

    def close(self) -> None:
        self.kill()
        self._client.close()

    def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        key = (self.home / KEY_FILE).read_text().strip()
        return self._client.request(method, path, json=body, headers={"authorization": f"Bearer {key}"})

    def complete(self) -> str:
        """The id of one completion that the client was answered."""
        answer = self.call("POST", "/v1/chat/completions", {"model": "support.triage", "variables": {"ticket": "x"}})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def push(self) -> None:
        content = {
            "model": "model-a",
            "variables": {"ticket": {"type": "string"}},
            "messages": [{"role": "user", "content": "{{ ticket }}"}],
        }
        assert self.call("POST", "/api/prompts/support.triage/versions", content).status_code == 201
        moved = self.call("PUT", "/api/prompts/support.triage/labels/production", {"version": 1, "reason": "a test"})
        assert moved.status_code == 200, moved.text

    def spooled(self) -> int:
        return sum(path.read_bytes().count(b"\n") for path in self.home.glob("spool/*/*.jsonl"))

    def logged(self) -> list[str]:
        """Every id in the database, oldest first."""
        database = Database(self.database_url)
        try:
            with database.read() as session:
                return [row["id"] for row in reversed(newest(session, Question(), 100_000))]
        finally:
            database.close()

    def recorded(self, ids: list[str]) -> set[str]:
        """Of these, those whose body is in the database."""
        database = Database(self.database_url)
        try:
            with database.read() as session:
                return set(requests.bodies(session, ids))
        finally:
            database.close()


def wait_for(is_so: Callable[[], Any], told: Callable[[], str] = str) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < ends, f"it did not come about in time: {told()}"
        time.sleep(0.05)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def start(url: str | None = None, *, is_durable: bool) -> Served:
        made.append(Served(tmp_path / f"home{len(made)}", url, is_durable=is_durable))
        made[-1].start()
        made[-1].push()
        return made[-1]

    yield start
    for served in made:
        served.close()


def answered_until_killed(served: Served, after_s: float) -> list[str]:
    """The ids that eight clients were answered before the service was killed, `after_s` after they began."""
    answered: list[str] = []

    def client(_: int) -> None:
        with contextlib.suppress(httpx.TransportError):
            while True:
                answered.append(served.complete())

    with ThreadPoolExecutor(8) as clients:
        work = [clients.submit(client, number) for number in range(8)]
        time.sleep(after_s)
        served.kill()
        for each in work:
            each.result(PATIENCE_S)
    return answered


@pytest.mark.parametrize("after_s", [0.3, 0.8, 1.3])
def test_a_durable_log_has_every_request_that_was_answered_whenever_it_is_killed(
    serve: Callable[..., Served], after_s: float
) -> None:
    served = serve(is_durable=True)
    answered = answered_until_killed(served, after_s)

    assert len(answered) > 20
    assert set(answered) - set(served.logged()) == set()
    assert served.recorded(answered) == set(answered)


def test_feedback_that_was_acknowledged_survives_a_kill(serve: Callable[..., Served]) -> None:
    served = serve(is_durable=True)
    completion = served.complete()
    said = []
    for number in range(20):
        body = {"completion_id": completion, "metric": "rating", "value": number, "correction": f"answer {number}"}
        answer = served.call("POST", "/api/feedback", body)
        assert answer.status_code == 201
        said.append(answer.json()["id"])
    served.kill()

    database = Database(served.database_url)
    with database.read() as session:
        assert [row["id"] for row in requests.feedback(session, completion)] == said
    database.close()


def test_an_ended_service_has_written_everything(serve: Callable[..., Served]) -> None:
    served = serve(is_durable=False)
    answered = [served.complete() for _ in range(50)]
    served.kill(signal.SIGTERM)

    assert served.logged() == answered


@pytest.mark.parametrize("is_durable", [True, False])
def test_with_the_database_killed_nothing_that_was_answered_is_lost_even_where_the_service_is_killed_too(
    serve: Callable[..., Served], is_durable: bool
) -> None:
    with running_postgres() as server:
        served = serve(server.fresh_url(), is_durable=is_durable)
        before = [served.complete() for _ in range(20)]
        wait_for(lambda: set(before) == set(served.logged()), served.log)
        server.stop()
        away = [served.complete() for _ in range(40)]
        if not is_durable:
            wait_for(lambda: served.spooled() == 40, served.log)
        served.kill()
        assert served.spooled() == 40
        server.start()
        served.start()
        after = [served.complete() for _ in range(10)]
        wait_for(lambda: len(served.logged()) == 70, served.log)

        assert sorted(served.logged()) == sorted(before + away + after)
        assert served.logged()[20:60] == away
        assert served.recorded(away) == set(away)
        wait_for(lambda: served.spooled() == 0, served.log)
        served.close()


def test_a_database_that_goes_and_comes_under_load_costs_no_request_and_no_row(serve: Callable[..., Served]) -> None:
    with running_postgres() as server:
        served = serve(server.fresh_url(), is_durable=False)
        answered: list[str] = []
        ends = threading.Event()

        def client(_: int) -> None:
            while not ends.is_set():
                answered.append(served.complete())

        with ThreadPoolExecutor(4) as clients:
            work = [clients.submit(client, number) for number in range(4)]
            for _ in range(2):
                time.sleep(0.7)
                server.stop()
                time.sleep(0.7)
                server.start()
            time.sleep(0.7)
            ends.set()
            for each in work:
                each.result(PATIENCE_S)  # raises where a request was refused
        wait_for(lambda: len(served.logged()) == len(answered), served.log)

        assert sorted(served.logged()) == sorted(answered)
        assert len(answered) > 100
        served.close()
