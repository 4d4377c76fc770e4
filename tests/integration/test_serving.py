"""A real `turnout serve`: its settings change, it stops and its database goes away, and no request is dropped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.postgres import Postgres, running_postgres

pytestmark = pytest.mark.integration
PROMPT = {
    "model": "m",
    "variables": {"ticket": {"type": "string"}},
    "messages": [{"role": "user", "content": "{{ ticket }}"}],
}
ASKED = {"model": "support.triage", "messages": [], "variables": {"ticket": "x"}}


class Served:
    """One `turnout serve` on a project whose file a test may write anew."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        self._environment = {**os.environ, "TURNOUT_HOME": str(folder / "home"), "TURNOUT_SERVER_WORKERS": "0"}
        if url:
            self._environment["TURNOUT_STORAGE_URL"] = url
        self.write(m="one two three")

    def write(self, more: str = "", **answers: str) -> None:
        """turnout.yaml, with a fake model an answer; a stream of them takes 0.15 s a word."""
        models = {name: {"engine": "fake", "default": text, "chunk_s": 0.15} for name, text in answers.items()}
        (self.folder / "turnout.yaml").write_text(f"models: {json.dumps(models)}\n{more}")

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "service.cli.main", "serve", "--port", "0"]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(command, cwd=self.folder, env=self._environment, stderr=log)
        log.close()
        self.base = until(self._address)
        until(lambda: httpx.get(f"{self.base}/health/ready").status_code == 200)
        key = (self.folder / "home" / "admin.key").read_text().strip()
        self.client = httpx.Client(base_url=self.base, headers={"authorization": f"Bearer {key}"}, timeout=30)

    def _address(self) -> str:
        said = [line for line in self.log().splitlines() if "turnout serves" in line]
        started = [word for word in (said[-1].split() if said else []) if word.startswith("url=")]
        return started[0][4:] if started and len(said) == self._starts else ""

    _starts = 1

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def register(self) -> None:
        self.client.post("/api/prompts/support.triage/versions", json=PROMPT).raise_for_status()
        moved = {"version": 1, "reason": "the start of the test"}
        self.client.put("/api/prompts/support.triage/labels/production", json=moved).raise_for_status()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def start_again(self) -> None:
        self.client.close()
        self._starts += 1
        self.start()

    def end(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()


def until(find: Callable[[], Any], within_s: float = 30.0) -> Any:
    """What `find` gives once that is something; what cannot connect yet is nothing."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        with contextlib.suppress(httpx.TransportError, OSError):
            found = find()
            if found:
                return found
        time.sleep(0.02)
    pytest.fail(f"nothing came within {within_s} s")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    made.start()
    made.register()
    yield made
    made.end()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


async def ask_until(served: Served, done: asyncio.Event) -> tuple[list[str], list[str]]:
    """The answers of eight who ask one after another, and what was not 200."""
    answers: list[str] = []
    faults: list[str] = []

    async def keep_asking(client: httpx.AsyncClient) -> None:
        while not done.is_set():
            try:
                reply = await client.post("/v1/chat/completions", json=ASKED)
                if reply.status_code == 200:
                    answers.append(reply.json()["choices"][0]["message"]["content"])
                else:
                    faults.append(reply.text)
            except httpx.TransportError as error:
                faults.append(repr(error))

    headers = dict(served.client.headers)
    async with httpx.AsyncClient(base_url=served.base, headers=headers, timeout=30) as client:
        await asyncio.gather(*(keep_asking(client) for _ in range(8)))
    return answers, faults


def test_five_reloads_under_load_drop_nothing_and_the_last_settings_hold(served: Served) -> None:
    async def run() -> tuple[list[str], list[str]]:
        done = asyncio.Event()
        asking = asyncio.create_task(ask_until(served, done))
        for number in range(5):
            await asyncio.sleep(0.3)
            served.write(m=f"answer {number}")
            reply = await asyncio.to_thread(served.client.post, "/api/reload")
            assert reply.json() == {"changed": ["models"]}, reply.text
        await asyncio.sleep(0.3)
        done.set()
        return await asking

    answers, faults = asyncio.run(run())
    assert faults == []
    assert answers[-1] == "answer 4"
    assert set(answers) <= {"one two three", *(f"answer {number}" for number in range(5))}


def test_a_stream_under_way_ends_on_the_old_settings(served: Served) -> None:
    with served.client.stream("POST", "/v1/chat/completions", json={**ASKED, "stream": True}) as stream:
        lines = stream.iter_lines()
        first = next(lines)
        served.write(m="four five six")
        assert served.client.post("/api/reload").json() == {"changed": ["models"]}
        rest = [first, *lines]
    assert text_of(rest) == "one two three"
    assert (
        served.client.post("/v1/chat/completions", json=ASKED).json()["choices"][0]["message"]["content"]
        == "four five six"
    )


def test_a_file_with_a_fault_changes_nothing_and_is_told(served: Served) -> None:
    served.write("modells: {}\n", m="four")
    refused = served.client.post("/api/reload")
    assert refused.status_code == 400
    assert "modells" in refused.text
    served.process.send_signal(signal.SIGHUP)
    until(lambda: "the settings were not taken" in served.log())
    assert (
        served.client.post("/v1/chat/completions", json=ASKED).json()["choices"][0]["message"]["content"]
        == "one two three"
    )


def test_a_signal_reads_the_settings_anew(served: Served) -> None:
    served.write(m="four")
    served.process.send_signal(signal.SIGHUP)
    until(
        lambda: (
            served.client.post("/v1/chat/completions", json=ASKED).json()["choices"][0]["message"]["content"] == "four"
        )
    )


def test_a_stream_under_way_ends_before_the_service_does(served: Served) -> None:
    with served.client.stream("POST", "/v1/chat/completions", json={**ASKED, "stream": True}) as stream:
        lines = stream.iter_lines()
        first = next(lines)
        served.process.send_signal(signal.SIGTERM)
        rest = [first, *lines]
    assert text_of(rest) == "one two three"
    assert rest[-2:] == ["data: [DONE]", ""]
    assert served.process.wait(30) == -signal.SIGTERM  # as it was asked to


def text_of(lines: list[str]) -> str:
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@pytest.mark.long
def test_without_its_database_a_service_goes_on_starts_anew_and_mends(tmp_path: Path, postgres: Postgres) -> None:
    served = Served(tmp_path, postgres.fresh_url())
    served.start()
    try:
        served.register()
        until(lambda: (tmp_path / "home" / "snapshot.json").exists() and knows_production(tmp_path))
        postgres.stop()
        assert served.client.post("/v1/chat/completions", json=ASKED).status_code == 200
        until(lambda: served.client.get("/health/ready").json() == {"status": "stale"})
        served.stop()
        served.start_again()
        assert served.client.get("/health/ready").json() == {"status": "disk"}
        reply = served.client.post("/v1/chat/completions", json=ASKED)
        assert reply.status_code == 200, reply.text
        assert served.client.post("/api/prompts/support.triage/versions", json=PROMPT).status_code == 503
        postgres.start()
        until(lambda: served.client.get("/health/ready").json() == {"status": "ok"})
        asked = until(lambda: listed(served, reply.json()["id"]))
        assert asked["status"] == "ok"  # what was answered while the database was away is recorded
        assert (
            served.client.post("/api/prompts/support.triage/versions", json={**PROMPT, "messages": []}).status_code
            != 503
        )
    finally:
        served.end()


def knows_production(folder: Path) -> bool:
    saved = json.loads((folder / "home" / "snapshot.json").read_text())
    return bool(saved["labels"].get("support.triage", {}).get("production"))


def listed(served: Served, completion_id: str) -> dict[str, Any] | None:
    found = served.client.get("/api/requests").json()
    rows = found["requests"] if isinstance(found, dict) else found
    return next((row for row in rows if row["id"] == completion_id), None)
