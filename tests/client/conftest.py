"""A service in memory that the client asks through httpx, a clock that tests set, and both clients under one set of tests."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from turnout import AsyncTurnout, Turnout
from turnout.events import Event

KEY = "turnout_app_1"
TRIAGE = [
    {"role": "system", "content": [{"text": "Route the ticket."}]},
    {"role": "user", "content": [{"text": "Ticket: "}, {"variable": "ticket"}]},
]


def template(version: int, **changes: Any) -> dict[str, Any]:
    """What the service says of a version of `support.triage`."""
    return {
        "name": "support.triage",
        "version": version,
        "digest": f"sha256:{version}",
        "model": "model-a",
        "parameters": {"temperature": 0},
        "variables": {"ticket": {"type": "string", "maxLength": 40}},
        "placeholders": {},
        "local": True,
        "messages": TRIAGE,
        "max_characters": 1000,
        **changes,
    }


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeService:
    """Answers as the service does; `asked` has every request as (method and path, headers)."""

    def __init__(self) -> None:
        self.labels: dict[str, int] = {"production": 1}
        self.templates: dict[int, dict[str, Any]] = {1: template(1), 2: template(2)}
        self.revision = 1
        self.is_down = False
        self.failure: httpx.Response | None = None  # what it answers instead of anything else
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.bodies: list[Any] = []
        self.before: Callable[[], None] = lambda: None  # called when a request has come

    @property
    def count(self) -> int:
        return len(self.asked)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = f"{request.method} {request.url.raw_path.decode()}"
        self.asked.append((path, dict(request.headers)))
        self.bodies.append(json.loads(request.content) if request.content else None)
        self.before()
        if self.is_down:
            raise httpx.ConnectError("connection refused")
        if self.failure is not None:
            answer = self.failure
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return problem(401, "unauthenticated", "this key is not valid")
        return self._answer(request)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/template"):
            return self._template(request)
        if request.url.path.endswith("/render"):
            return self._render(request)
        return httpx.Response(201, json={"id": "fb_1"})

    def _template(self, request: httpx.Request) -> httpx.Response:
        found = self._found(request)
        headers = {"turnout-revision": str(self.revision)}
        if found is None:
            return problem(404, "not_found", "no label")
        etag = f'"{found["digest"]}"'
        if request.headers.get("if-none-match") == etag:
            return httpx.Response(304, headers={"etag": etag, **headers})
        return httpx.Response(200, json=found, headers={"etag": etag, **headers})

    def _render(self, request: httpx.Request) -> httpx.Response:
        found, body = self._found(request), json.loads(request.content)
        if found is None:
            return problem(404, "not_found", "no version")
        if body["variables"].get("ticket") == "too long":
            return problem(400, "invalid_variable", "variable 'ticket': no", param="variables.ticket")
        shown = {key: found[key] for key in ("name", "version", "digest", "model", "parameters")}
        return httpx.Response(200, json={**shown, "messages": [{"role": "user", "content": "rendered there"}]})

    def _found(self, request: httpx.Request) -> dict[str, Any] | None:
        label, version = request.url.params.get("label"), request.url.params.get("version")
        number = int(version) if version else self.labels.get(label or "")
        known = request.url.path.startswith("/api/prompts/support.triage/")
        return self.templates.get(number) if known and number else None


def problem(status: int, kind: str, detail: str, **more: Any) -> httpx.Response:
    """An error in Turnout's form."""
    body = {"type": f"urn:turnout:error:{kind}", "title": kind, "status": status, "detail": detail, **more}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json"})


class SyncDriver:
    """`Turnout`, driven by a test."""

    def __init__(self, fake: FakeService, **more: Any) -> None:
        self.client = Turnout("http://turnout.test", KEY, transport=httpx.MockTransport(fake), listen=False, **more)

    def prompt(self, *args: Any, **more: Any) -> Any:
        return self.client.prompt(*args, **more)

    def render(self, *args: Any, **more: Any) -> Any:
        return self.client.render(*args, **more)

    def feedback(self, *args: Any, **more: Any) -> Any:
        return self.client.feedback(*args, **more)

    def fill(self, prompt: Any, *args: Any, **more: Any) -> Any:
        """`prompt.render`, waited for."""
        return prompt.render(*args, **more)

    def hear(self, kind: str, revision: int, *names: str) -> None:
        """What the listener does when the service announces something."""
        core = self.client._core
        for key in core.cache.hear(Event(kind, revision, frozenset(names)), core.clock()):
            self.client._ask(key)

    def settle(self) -> None:
        """Wait for what goes on in the background."""
        for thread in threading.enumerate():
            if thread.name == "turnout-refresh":
                thread.join(10)

    def close(self) -> None:
        self.client.close()


class AsyncDriver:
    """`AsyncTurnout` on a loop of its own, driven by the same tests."""

    def __init__(self, fake: FakeService, **more: Any) -> None:
        self._loop = asyncio.new_event_loop()
        transport = httpx.MockTransport(fake)
        self.client = AsyncTurnout("http://turnout.test", KEY, transport=transport, listen=False, **more)

    def prompt(self, *args: Any, **more: Any) -> Any:
        return self._loop.run_until_complete(self.client.prompt(*args, **more))

    def render(self, *args: Any, **more: Any) -> Any:
        return self._loop.run_until_complete(self.client.render(*args, **more))

    def feedback(self, *args: Any, **more: Any) -> Any:
        return self._loop.run_until_complete(self.client.feedback(*args, **more))

    def fill(self, prompt: Any, *args: Any, **more: Any) -> Any:
        return self._loop.run_until_complete(prompt.render(*args, **more))

    def hear(self, kind: str, revision: int, *names: str) -> None:
        async def hear() -> None:
            core = self.client._core
            for key in core.cache.hear(Event(kind, revision, frozenset(names)), core.clock()):
                await self.client._ask(key)

        self._loop.run_until_complete(hear())

    def settle(self) -> None:
        async def settle() -> None:
            while self.client._flights:
                await asyncio.gather(*self.client._flights.values())

        self._loop.run_until_complete(settle())

    def close(self) -> None:
        self._loop.run_until_complete(self.client.aclose())
        self._loop.close()


Driver = SyncDriver | AsyncDriver


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fake() -> FakeService:
    return FakeService()


@pytest.fixture(params=[SyncDriver, AsyncDriver], ids=["sync", "async"])
def make(request: pytest.FixtureRequest, fake: FakeService, clock: Clock) -> Iterator[Callable[..., Driver]]:
    """Makes a client of either kind on the fake service, with the test's clock and a TTL of 60 and 300 s."""
    made: list[Driver] = []

    def make_one(**more: Any) -> Driver:
        made.append(request.param(fake, _clock=clock, **more))
        return made[-1]

    yield make_one
    for driver in made:
        driver.close()


@pytest.fixture
def client(make: Callable[..., Driver]) -> Driver:
    return make()
