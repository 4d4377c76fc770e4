"""A small client for one HTTP origin: kept-alive connections, and a key that goes nowhere else.

It is what the request path spends its time in, so it does what a call to a model needs and no more: HTTP/1.1, bodies of
known length, TLS by Python's `ssl`. No redirect is followed, no proxy of the environment used, no cookie kept, no
compressed reply asked for.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import aiohappyeyeballs

from service.computing import compute
from service.traces import TRACEPARENT
from service.upstream.wire import Connection, Lost

Until = Callable[[Connection], Awaitable[None]]
MOST_BYTES = 32 << 20  # of a reply
_IDLE_S = 30.0  # after which a kept connection is closed: what lies between may have forgotten it
_REST_S = 1.0  # for the end of a reply of which no more is wanted
_IN_PATHS = "/%:@!$&'()*+,;=-._~"
_EYEBALLS_S = 0.25  # before the next address of a host is tried beside the first (RFC 8305 §8)


class ConnectTimeout(ConnectionError):
    """No connection within the time allowed for it."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where an origin listens; `base` is what its paths begin with."""

    is_tls: bool
    host: str
    port: int
    authority: str
    base: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Of `http(s)://host[:port]/path`."""
        parts = urlsplit(url)
        is_tls, host = parts.scheme == "https", parts.hostname or ""
        host = host if host.isascii() else host.encode("idna").decode()
        usual = 443 if is_tls else 80
        shown = f"[{host}]" if ":" in host else host
        authority = shown if parts.port in (None, usual) else f"{shown}:{parts.port}"
        return cls(is_tls, host, parts.port or usual, authority, quote(parts.path.rstrip("/"), safe=_IN_PATHS))


@dataclass(frozen=True, slots=True)
class Question:
    """What is sent to `path` below the base; `timeout_s` is for all of it, from the search for a connection (None: no end)."""

    path: str
    body: bytes = b""
    method: str = "POST"
    timeout_s: float | None = 60.0
    max_bytes: int = MOST_BYTES


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply; the names of `headers` in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    """Connections to one origin. Used on one event loop.

    `headers` go with each request. `connect_s` bounds name, connection and TLS together; at most `connections` are open
    at once, and whoever comes then waits.
    """

    def __init__(self, address: Address, headers: Mapping[str, str], *, connect_s: float, connections: int) -> None:
        self._address = address
        self._connect_s = connect_s
        self._slots = asyncio.Semaphore(connections)
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        self._idle: list[Connection] = []
        self._reaper: asyncio.TimerHandle | None = None
        lines = {"Host": address.authority, "Accept-Encoding": "identity", **headers}
        self._head = "".join(f"{_clean(name)}: {_clean(value)}\r\n" for name, value in lines.items())
        self._heads: dict[tuple[str, str], bytes] = {}

    async def ask(self, question: Question) -> Reply:
        """The whole reply.

        Raises ConnectTimeout, `wire.Lost`, `wire.Broken` or another OSError, and TimeoutError after the question's
        time. A question that a kept connection took without a byte in answer is asked once more on a new one: the
        other side had closed it while it was idle.
        """
        connection = await self._asked(question, Connection.complete)
        reply = Reply(connection.status, connection.headers, connection.body())
        self.finish(connection)
        return reply

    async def open(self, question: Question, until: Until = Connection.head) -> OpenReply:
        """The reply as it comes, its head first; raises as `ask`. It is to be closed, read whole or not."""
        return OpenReply(self, await self._asked(question, until))

    def close(self) -> None:
        """Close what is idle, and whatever is under way once it has ended."""
        self._is_closed = True
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        while self._idle:
            self._idle.pop().close()

    def finish(self, connection: Connection) -> None:
        """End an exchange whose reply is read, or not wanted any more."""
        self._slots.release()
        if not connection.end():
            return
        if self._is_closed:
            connection.close()
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._reaper is None:
            self._reaper = self._loop.call_later(_IDLE_S, self._reap)

    # ---------------------------------------------------------------------------- connections

    async def _asked(self, question: Question, until: Until) -> Connection:
        deadline = None if question.timeout_s is None else self._loop.time() + question.timeout_s
        if self._slots.locked():
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        else:
            await self._slots.acquire()  # without waiting
        try:
            return await self._answered(question, deadline, until)
        except BaseException:
            self._slots.release()
            raise

    async def _answered(self, question: Question, deadline: float | None, until: Until) -> Connection:
        data = self._data(question)
        kept = self._take_idle()
        if kept is not None:
            try:
                return await _sent(kept, data, question.max_bytes, deadline, until)
            except Lost as error:
                if not error.was_silent:
                    raise
        connection = await self._connect(deadline)
        return await _sent(connection, data, question.max_bytes, deadline, until)

    def _data(self, question: Question) -> bytes:
        head = self._heads.get((question.method, question.path)) or self._new_head(question.method, question.path)
        if traceparent := TRACEPARENT.get():
            head = b"%btraceparent: %b\r\n" % (head, traceparent.encode())
        if question.method == "GET":
            return head + b"\r\n"
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(question.body), question.body)

    def _take_idle(self) -> Connection | None:
        """The connection used last: those that are not needed grow old and are closed."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    def _reap(self) -> None:
        """Close what was idle too long; the oldest come first."""
        oldest = self._loop.time() - _IDLE_S
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.pop(0).close()
        self._reaper = self._loop.call_later(_IDLE_S, self._reap) if self._idle else None

    async def _connect(self, deadline: float | None) -> Connection:
        limit = self._loop.time() + self._connect_s
        try:
            async with asyncio.timeout_at(limit if deadline is None else min(limit, deadline)):
                return await self._dial()
        except TimeoutError as error:
            if deadline is not None and deadline < limit:
                raise
            raise ConnectTimeout(f"no connection within {self._connect_s:g} s") from error

    async def _dial(self) -> Connection:
        address = self._address
        tls = await compute(_tls_context) if address.is_tls else None
        found = await self._loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        made = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=_EYEBALLS_S)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            name = address.host if address.is_tls else None
            _, connection = await self._loop.create_connection(Connection, sock=made, ssl=tls, server_hostname=name)
        except BaseException:
            made.close()
            raise
        return connection

    def _new_head(self, method: str, path: str) -> bytes:
        head = f"{method} {_clean(self._address.base + path)} HTTP/1.1\r\n{self._head}".encode("latin-1")
        self._heads[method, path] = head
        return head


class OpenReply:
    """A reply whose head is there and whose body comes."""

    def __init__(self, client: Client, connection: Connection) -> None:
        self._client = client
        self._connection: Connection | None = connection
        self.status = connection.status
        self.headers = connection.headers

    async def whole(self) -> bytes:
        """The body; raises as `Client.ask`."""
        if self._connection is None:
            return b""
        await self._connection.complete()
        return self._connection.body()

    async def some(self) -> bytes:
        """The next bytes of the body, b"" at its end; raises as `Client.ask`."""
        return await self._connection.some() if self._connection is not None else b""

    def finish(self) -> None:
        """No more is wanted; what is on its way still keeps the connection, if it comes soon. Safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.let_end(functools.partial(self._client.finish, connection), _REST_S)

    def close(self) -> None:
        """Hang up, unless the reply has come whole. Safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._client.finish(connection)


async def _sent(
    connection: Connection, data: bytes, max_bytes: int, deadline: float | None, until: Until
) -> Connection:
    connection.send(data, max_bytes, deadline)
    try:
        await until(connection)
    except BaseException:  # also when cancelled: whoever asked has left, and so does the question
        connection.end()
        raise
    return connection


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """The system's authorities; reading them takes tens of milliseconds."""
    return ssl.create_default_context()


def _clean(value: str) -> str:
    """`value`; raises ValueError where it could begin another header, or is not Latin-1."""
    if not all(" " <= character <= "\xff" and character != "\x7f" for character in value):
        raise ValueError("a header may hold no line break, no control character and nothing beyond Latin-1")
    return value
