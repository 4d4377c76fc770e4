"""`AsyncTurnout`: the client for code on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import httpx

from turnout import protocol
from turnout.cache import Answer, Key, Policy
from turnout.core import Announcements, Core, Steps, T, stand_in
from turnout.errors import Unreachable
from turnout.prompt import AsyncPrompt, Rendered, fields_of
from turnout.protocol import Request
from turnout.template import Fallback, FallbackTemplate, Template


class AsyncTurnout:
    """As `Turnout`, on one event loop: that of its first call. Close it with `aclose`, or use it in `async with`."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        ttl_s: float = 60.0,
        stale_s: float = 300.0,
        timeout_s: float = 5.0,
        listen: bool = True,
        serve_stale_when_down: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
        _clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = httpx.AsyncClient(**protocol.connection(url, api_key, timeout_s), transport=transport)
        self._core: Core[AsyncPrompt] = Core(Policy(ttl_s, stale_s, serve_stale_when_down), self._make, _clock)
        self._flights: dict[Key, asyncio.Task[Answer]] = {}
        self._listens = listen
        self._listener: asyncio.Task[None] | None = None

    async def prompt(
        self, name: str, *, label: str | None = None, version: int | None = None, fallback: Fallback | None = None
    ) -> AsyncPrompt:
        """As `Turnout.prompt`; what is fresh is given without waiting."""
        self._core.check_open()
        key = protocol.key_of(name, version, label)
        found = self._core.cache.fresh(key, self._core.clock())
        if found is not None and (fallback is None or found.is_local):
            return found
        return await self._prompt(key, stand_in(key, fallback))

    async def render(
        self,
        name: str,
        variables: Mapping[str, Any] | None = None,
        *,
        label: str | None = None,
        version: int | None = None,
        fallback: Fallback | None = None,
        placeholders: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        messages: Sequence[Mapping[str, Any]] = (),
    ) -> Rendered:
        """`prompt` and its `render` in one call."""
        prompt = await self.prompt(name, label=label, version=version, fallback=fallback)
        return await prompt.render(variables, placeholders=placeholders, messages=messages)

    async def feedback(
        self,
        completion_id: str,
        metric: str = "rating",
        value: float | bool | str | None = None,
        *,
        comment: str | None = None,
        correction: str | None = None,
    ) -> str:
        """As `Turnout.feedback`."""
        return await self._run(self._core.feedback(completion_id, metric, value, comment, correction))

    async def aclose(self) -> None:
        """End the stream of announcements and give back connections. Safe to call twice.

        Every call after it raises Closed; a prompt that was given before goes on to fill what it fills in the process.
        """
        self._core.is_closed = True
        tasks = [*self._flights.values(), *([self._listener] if self._listener else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AsyncTurnout({str(self._http.base_url)!r})"

    def _make(self, template: Template, is_stale: bool, fallback: FallbackTemplate | None) -> AsyncPrompt:
        ask = self._core.render
        fields = fields_of(template, is_stale, fallback)
        return AsyncPrompt(**fields, _ask=lambda prompt, given: self._run(ask(prompt, given)))

    async def _prompt(self, key: Key, fallback: FallbackTemplate | None) -> AsyncPrompt:
        if self._listens and self._listener is None:
            self._listener = asyncio.create_task(self._listen())
        plan = self._core.plan(key, fallback)
        if plan.refresh:
            self._flight(key)
        return plan.prompt or self._core.cache.conclude(key, await self._ask(key), fallback)

    async def _ask(self, key: Key) -> Answer:
        """The service's answer; whoever asks at the same time shares one request, which outlives who is cancelled."""
        return await asyncio.shield(self._flight(key))

    def _flight(self, key: Key) -> asyncio.Task[Answer]:
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._run(self._core.ask(key)))
            flight.add_done_callback(lambda done: self._land(key, done))
        return flight

    def _land(self, key: Key, flight: asyncio.Task[Answer]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # taken note of: whoever waits gets it, and in the background nobody does

    async def _run(self, steps: Steps[T]) -> T:
        try:
            request = next(steps)
            while True:
                request = steps.send(await self._send(request))
        except StopIteration as done:
            result: T = done.value
            return result

    async def _send(self, request: Request) -> httpx.Response | Unreachable:
        self._core.check_open()
        try:
            return await self._http.request(
                request.method, request.path, params=request.params, headers=request.headers, json=request.json
            )
        except httpx.HTTPError as error:
            return protocol.unreachable(self._http.base_url, error)

    async def _listen(self) -> None:
        """Follow the stream of announcements until cancelled, connecting again whenever it is interrupted."""
        announcements = Announcements(self._core)
        while True:
            with contextlib.suppress(httpx.HTTPError, httpx.StreamError):
                await self._follow(announcements)
            await asyncio.sleep(announcements.wait_s())

    async def _follow(self, announcements: Announcements[AsyncPrompt]) -> None:
        request = announcements.connect()
        timeout = httpx.Timeout(self._http.timeout.connect, read=protocol.SILENCE_S)
        opened = self._http.stream(request.method, request.path, headers=request.headers, timeout=timeout)
        async with opened as response:
            if response.status_code != 200:
                await response.aread()
                announcements.refuse(response)
                return
            async for line in response.aiter_lines():
                for key in announcements.hear(line):
                    if isinstance(await self._ask(key), Unreachable):
                        break  # the rest is asked for by whoever needs it
