"""Both clients against a real service that is killed, and against one whose labels move."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from turnout import AsyncTurnout, KeyRefused, NotFound, Turnout, Unreachable

pytestmark = pytest.mark.integration
NAME = "support.triage"
CONFIG = 'models: {m: {engine: fake, default: "billing"}}\n'


def prompt(text: str) -> dict[str, Any]:
    messages = [{"role": "system", "content": text}, {"role": "user", "content": "{{ ticket }}"}]
    return {"model": "m", "variables": {"ticket": {"type": "string"}}, "messages": messages}


class Server:
    """`turnout serve` on a port of its own, which may die and come back."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "turnout.yaml").write_text(CONFIG)

    def start(self) -> None:
        environment = {**os.environ, "TURNOUT_HOME": str(self._folder / "home"), "TURNOUT_SERVER_WORKERS": "0"}
        command = [sys.executable, "-P", "-m", "service.cli.main", "serve", "--port", str(self.port)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, env=environment, stdout=log, stderr=log)
        wait_until(self._is_ready)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(self.url + "/health/ready", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, and wait for its end."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(how)
        self._process.wait(30)

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        key = next((self._folder / "home").glob("*key*")).read_text().strip()
        headers = {"authorization": f"Bearer {key}"}
        answer = httpx.request(method, self.url + path, json=body, headers=headers, timeout=10)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def push(self, name: str, data: dict[str, Any]) -> int:
        return int(self.call("POST", f"/api/prompts/{name}/versions", data)["version"])

    def label(self, label: str, version: int) -> None:
        self.call("PUT", f"/api/prompts/{NAME}/labels/{label}", {"version": version, "reason": "a test"})

    def new_key(self) -> dict[str, Any]:
        made: dict[str, Any] = self.call("POST", "/api/keys", {"role": "app"})
        return made


class AsyncClient:
    """`AsyncTurnout` on a loop that runs in a thread, with the calls of `Turnout`."""

    def __init__(self, url: str, key: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._client = AsyncTurnout(url, key)

    def render(self, *args: Any, **more: Any) -> Any:
        return self._wait(self._client.render(*args, **more))

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._wait(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


def wait_until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something that has no event; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that no test ends."""
    with running(tmp_path_factory.mktemp("lasting")) as server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path) as server:
        yield server


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    server.start()
    try:
        server.push(NAME, prompt("One."))
        server.push(NAME, prompt("Two."))
        server.push("support.logic", prompt("{{ ticket | upper }}"))
        server.label("production", 1)
        server.label("staging", 1)
        yield server
    finally:
        server.kill()


@pytest.fixture(params=[Turnout, AsyncClient], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes a client with a TTL of a minute: what it learns sooner, it was told."""
    made: list[Any] = []

    def make(server: Server, key: str | None = None) -> Any:
        made.append(request.param(server.url, key or server.new_key()["key"]))
        return made[-1]

    yield make
    for client in made:
        client.close()


def system(client: Any, **selector: Any) -> str:
    return str(client.render(NAME, {"ticket": "x"}, **selector).messages[0]["content"])


def listens(client: Any) -> None:
    """Wait until the client has been greeted by the stream of changes."""
    inner = client._client if isinstance(client, AsyncClient) else client
    wait_until(lambda: bool(inner._core.cache._heard >= 0))


def test_with_the_service_killed_known_prompts_go_on_and_unknown_ones_fall_back(
    server: Server, connect: Callable[..., Any]
) -> None:
    client = connect(server)
    assert system(client) == "One."
    assert system(client, version=2) == "Two."

    server.kill()

    assert system(client) == "One."
    assert system(client, version=2) == "Two."
    unknown = client.render("support.other", {"ticket": "x"}, fallback="Route {{ ticket }}")
    assert (unknown.is_fallback, unknown.messages) == (True, [{"role": "user", "content": "Route x"}])
    with pytest.raises(Unreachable, match=str(server.port)):
        client.render("support.other", {"ticket": "x"})


def test_a_client_finds_the_service_again_and_what_moved_meanwhile(server: Server, connect: Callable[..., Any]) -> None:
    client = connect(server)
    assert system(client) == "One."
    listens(client)
    server.kill()
    server.start()
    server.label("production", 2)

    wait_until(lambda: system(client) == "Two.")


def test_a_moved_label_is_served_and_a_removed_one_gone_long_before_the_ttl_is_over(
    lasting: Server, connect: Callable[..., Any]
) -> None:
    lasting.label("staging", 1)
    client = connect(lasting)
    assert system(client, label="staging") == "One."
    listens(client)

    lasting.label("staging", 2)
    wait_until(lambda: system(client, label="staging") == "Two.")

    lasting.call("DELETE", f"/api/prompts/{NAME}/labels/staging?reason=enough")

    def is_gone() -> bool:
        try:
            return system(client, label="staging") == "never"
        except NotFound:
            return True

    wait_until(is_gone)
    with pytest.raises(NotFound):
        system(client, label="staging")


def test_a_template_with_logic_is_rendered_by_the_service(lasting: Server, connect: Callable[..., Any]) -> None:
    client = connect(lasting)

    rendered = client.render("support.logic", {"ticket": "loud"}, label="latest")

    assert rendered.messages == [{"role": "system", "content": "LOUD"}, {"role": "user", "content": "loud"}]


def test_a_revoked_key_does_not_live_on_in_the_cache(lasting: Server, connect: Callable[..., Any]) -> None:
    made = lasting.new_key()
    client = connect(lasting, made["key"])
    assert system(client) == "One."
    listens(client)

    lasting.call("DELETE", f"/api/keys/{made['id']}")

    wait_until(lambda: client.render(NAME, {"ticket": "x"}).is_stale)
    with pytest.raises(KeyRefused):
        system(client, label="staging")


def test_open_streams_do_not_hold_up_the_end_of_service_or_client(server: Server, connect: Callable[..., Any]) -> None:
    client, leaving = connect(server), connect(server)
    system(client)
    system(leaving)
    listens(client)
    listens(leaving)

    leaving.close()
    threads = [thread for thread in threading.enumerate() if thread.name == "turnout-changes"]
    server.kill(signal.SIGTERM)

    assert len(threads) == (1 if isinstance(client, Turnout) else 0)
    assert "graceful" not in server.log()  # what uvicorn says after ten seconds of waiting for an open answer
    assert system(client) == "One."
