"""`Turnout`: the client for code that waits."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Self

import httpx

from turnout import protocol
from turnout.cache import Answer, Key, Policy
from turnout.core import Announcements, Core, Steps, T, stand_in
from turnout.errors import Closed, Unreachable
from turnout.prompt import Prompt, Rendered, fields_of
from turnout.protocol import Request
from turnout.template import Fallback, FallbackTemplate, Template

CLOSE_S = 1.0  # how long `close` waits for a thread that is in the middle of connecting


class Turnout:
    """Prompts of a Turnout service, kept in memory.

    `url` and `api_key` are by default TURNOUT_URL and TURNOUT_API_KEY. A prompt is used for `ttl_s` seconds without a
    word, then for `stale_s` more while it is asked about in the background; where the service is away the last known one
    goes on unless `serve_stale_when_down` is false. With `listen` the service announces every move of a label, and
    waiting for `ttl_s` is only what happens when that stream is interrupted. `timeout_s` bounds each step of a request.
    `transport` is httpx's: a proxy, own certificates, a test. Raises ValueError for a URL that is none.

    For any number of threads; usable in the child of a fork. Close it, or use it in `with`.
    """

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
        transport: httpx.BaseTransport | None = None,
        _clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = {**protocol.connection(url, api_key, timeout_s), "transport": transport}
        self._http = httpx.Client(**self._connection)
        self._core: Core[Prompt] = Core(Policy(ttl_s, stale_s, serve_stale_when_down), self._make, _clock)
        self._flights: dict[Key, Future[Answer]] = {}
        self._lock = threading.Lock()
        self._listens = listen
        self._listener: _Listener | None = None
        _CLIENTS.add(self)

    def prompt(
        self, name: str, *, label: str | None = None, version: int | None = None, fallback: Fallback | None = None
    ) -> Prompt:
        """The version that `label` (`production` where neither is given) means now, or the one of a number.

        `fallback` (text for one user message, or messages, with `{{ name }}` for variables) stands in where the service
        cannot be reached and nothing is cached; never for a prompt that does not exist. Raises BadSelector and Closed
        before any request, then NotFound, Unreachable, KeyRefused or Refused.
        """
        self._core.check_open()
        key = protocol.key_of(name, version, label)
        found = self._core.cache.fresh(key, self._core.clock())
        if found is not None and (fallback is None or found.is_local):
            return found
        return self._prompt(key, stand_in(key, fallback))

    def render(
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
        prompt = self.prompt(name, label=label, version=version, fallback=fallback)
        return prompt.render(variables, placeholders=placeholders, messages=messages)

    def feedback(
        self,
        completion_id: str,
        metric: str = "rating",
        value: float | bool | str | None = None,
        *,
        comment: str | None = None,
        correction: str | None = None,
    ) -> str:
        """Rate or correct a completion; stored when this returns its id. Raises NotFound, Unreachable or Refused."""
        return self._run(self._core.feedback(completion_id, metric, value, comment, correction))

    def close(self) -> None:
        """End the stream of announcements and give back connections. Safe to call twice.

        Every call after it raises Closed; a prompt that was given before goes on to fill what it fills in the process.
        """
        self._core.is_closed = True
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Turnout({str(self._http.base_url)!r})"

    def _make(self, template: Template, is_stale: bool, fallback: FallbackTemplate | None) -> Prompt:
        ask = self._core.render
        fields = fields_of(template, is_stale, fallback)
        return Prompt(**fields, _ask=lambda prompt, given: self._run(ask(prompt, given)))

    def _prompt(self, key: Key, fallback: FallbackTemplate | None) -> Prompt:
        self._start_listening()
        plan = self._core.plan(key, fallback)
        if plan.refresh and key not in self._flights:
            threading.Thread(target=self._refresh, args=(key,), name="turnout-refresh", daemon=True).start()
        return plan.prompt or self._core.cache.conclude(key, self._ask(key), fallback)

    def _ask(self, key: Key) -> Answer:
        """The service's answer; threads that ask at the same time share one request."""
        with self._lock:
            flight = self._flights.get(key)
            mine: Future[Answer] = Future()
            if flight is None:
                self._flights[key] = mine
        if flight is not None:
            return flight.result()
        try:
            mine.set_result(self._run(self._core.ask(key)))
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._lock:
                self._flights.pop(key, None)
        return mine.result()

    def _refresh(self, key: Key) -> None:
        with contextlib.suppress(Closed, RuntimeError):  # RuntimeError is httpx's word for closed
            self._ask(key)

    def _run(self, steps: Steps[T]) -> T:
        try:
            request = next(steps)
            while True:
                request = steps.send(self._send(request))
        except StopIteration as done:
            result: T = done.value
            return result

    def _send(self, request: Request) -> httpx.Response | Unreachable:
        self._core.check_open()
        try:
            return self._http.request(
                request.method, request.path, params=request.params, headers=request.headers, json=request.json
            )
        except httpx.HTTPError as error:
            return protocol.unreachable(self._http.base_url, error)

    def _start_listening(self) -> None:
        if not self._listens or self._listener is not None:
            return
        with self._lock:
            if self._listener is None and not self._core.is_closed:
                self._listener = _Listener(self._http, Announcements(self._core), self._ask)
                self._listener.start()

    def _after_fork(self) -> None:
        """Threads and connections belong to the parent; what is known is asked about before long."""
        self._lock = threading.Lock()
        self._flights = {}
        self._listener = None
        self._http = httpx.Client(**self._connection)
        self._core.cache.after_fork(self._core.clock())


class _Listener(threading.Thread):
    """Follows the stream of announcements until it is closed, connecting again whenever it is interrupted."""

    def __init__(self, http: httpx.Client, announcements: Announcements[Prompt], ask: Callable[[Key], Answer]) -> None:
        super().__init__(name="turnout-changes", daemon=True)
        self._http = http
        self._announcements = announcements
        self._ask = ask
        self._closing = threading.Event()
        self._socket: socket.socket | None = None

    def run(self) -> None:
        while not self._closing.is_set():
            # whatever ends the stream is met by connecting again; RuntimeError is httpx's word for closed
            with contextlib.suppress(httpx.HTTPError, httpx.StreamError, Closed, RuntimeError):
                self._follow()
            self._closing.wait(self._announcements.wait_s())

    def _follow(self) -> None:
        request = self._announcements.connect()
        timeout = httpx.Timeout(self._http.timeout.connect, read=protocol.SILENCE_S)
        with self._http.stream(request.method, request.path, headers=request.headers, timeout=timeout) as response:
            if response.status_code != 200:
                response.read()
                self._announcements.refuse(response)
                return
            self._socket = _socket_of(response)
            if self._closing.is_set():  # `close` came while there was no socket to end
                return
            for line in response.iter_lines():
                for key in self._announcements.hear(line):
                    if self._closing.is_set() or isinstance(self._ask(key), Unreachable):
                        break  # the rest is asked for by whoever needs it

    def close(self) -> None:
        """End promptly, a read that waits included."""
        self._closing.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        if self is not threading.current_thread():
            self.join(CLOSE_S)


def _socket_of(response: httpx.Response) -> socket.socket | None:
    stream = response.extensions.get("network_stream")
    found = stream.get_extra_info("socket") if stream is not None else None
    return found if isinstance(found, socket.socket) else None


_CLIENTS: weakref.WeakSet[Turnout] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_CLIENTS):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
