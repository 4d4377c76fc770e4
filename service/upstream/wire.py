"""One kept-alive connection of HTTP/1.1, as a client: one exchange at a time, parsed by llhttp.

Nothing here knows of models. An exchange ends in one of three ways: the reply is complete, the connection was lost
(`Lost`), or it was cut off by us: a time, a bound or what is no HTTP (`TimeoutError`, `Broken`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

MOST_HEAD_BYTES = 64 << 10
_HIGH_WATER_BYTES = 256 << 10  # of a stream that is not read: the upstream is made to wait above it
_HEAD, _SOME, _ALL = range(3)  # what is waited for


class Lost(ConnectionError):
    """The other side closed or reset the connection; `was_silent` where it had not sent a byte of the reply."""

    def __init__(self, message: str, *, was_silent: bool) -> None:
        super().__init__(message)
        self.was_silent = was_silent


class Broken(ConnectionError):
    """What came is no HTTP reply that we take."""


class TooLong(Broken):
    """The reply has more bytes than allowed."""


class Connection(asyncio.Protocol):
    """One connection; see the module. `status` and `headers` (names in lower case) are those of the current reply."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None
        self._is_asking = False
        self._is_done = True
        self._is_spoilt = False
        self.idle_since = 0.0
        self._begin(0)

    def _begin(self, max_bytes: int) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._wants = _ALL
        self._has_head = False
        self._has_bytes = False
        self._body: list[bytes] = []
        self._waiting_bytes = 0
        self._raw_bytes = 0
        self._head_bytes = 0
        self._body_bytes = 0
        self._max_bytes = max_bytes
        self._is_paused = False
        self._then: Callable[[], None] | None = None

    # ---------------------------------------------------------------------------- what callers do

    def send(self, data: bytes, max_bytes: int, deadline: float | None) -> None:
        """Begin an exchange: its reply may have `max_bytes`, its last byte comes before `deadline` (the loop's clock)."""
        self._begin(max_bytes)
        self._is_asking, self._is_done = True, False
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._time_out)
        if self._transport is None or self._transport.is_closing():
            self._fail(Lost("the connection was closed while it was idle", was_silent=True))
        else:
            self._transport.write(data)

    async def head(self) -> None:
        """Until `status` and `headers` are there."""
        await self._until(_HEAD)

    async def begun(self) -> None:
        """The same, and until the first bytes of the body, or its end: whoever waits is woken once, not twice."""
        await self._until(_SOME)

    async def complete(self) -> None:
        """Until the reply has come whole."""
        self._resume()
        await self._until(_ALL)

    def body(self) -> bytes:
        """What came of the body and was not taken yet."""
        body, self._body, self._waiting_bytes = self._body, [], 0
        return body[0] if len(body) == 1 else b"".join(body)

    async def some(self) -> bytes:
        """The bytes of the body that came since, at least one; b"" at its end."""
        if not self._body:
            await self._until(_SOME)
        self._resume()
        return self.body()

    def end(self) -> bool:
        """End the exchange; whether the connection is good for another. One that is not gets closed."""
        self._is_asking = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        transport = self._transport
        if transport is None:
            return False
        good = self._is_done and self._error is None and not self._is_spoilt and not transport.is_closing()
        if good and not transport.get_write_buffer_size():
            return True
        transport.abort()
        return False

    def let_end(self, then: Callable[[], None], within_s: float) -> None:
        """Call `then` once the rest of the reply, which nobody reads, has come; it is given up after `within_s`."""
        if self._is_done or self._error is not None:
            then()
            return
        self._wants, self._then = _ALL, then
        self._resume()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(within_s, self._time_out)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _resume(self) -> None:
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    async def _until(self, wants: int) -> None:
        self._wants = wants
        while not (self._is_done or (wants == _SOME and self._body) or (wants == _HEAD and self._has_head)):
            if self._error is not None:
                raise self._error
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    # ---------------------------------------------------------------------------- what the loop and the parser call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._is_asking or self._error is not None:
            self.close()  # nobody asked for anything: what it says belongs to no request
            return
        self._has_bytes = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(Broken("the upstream wants to speak another protocol"))
        except httptools.HttpParserError as error:
            self._fail(Broken(f"the reply is no HTTP: {error}"))
        if not self._has_head:
            self._raw_bytes += len(data)
            self._bound_head(self._raw_bytes)

    def on_message_begin(self) -> None:
        self._is_spoilt = self._is_spoilt or self._is_done  # bytes after the end of a reply

    def _bound_head(self, size_bytes: int) -> None:
        if size_bytes > MOST_HEAD_BYTES:
            self._fail(TooLong(f"the head of the reply is longer than {MOST_HEAD_BYTES} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_done:
            return  # of another reply, that nobody asked for
        self._head_bytes += len(name) + len(value)
        self._bound_head(self._head_bytes)
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._is_done:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:  # an interim reply: the one that counts comes after it
            self.headers = {}
            return
        self._has_head = True
        if self._wants == _HEAD:
            self._wake()

    def on_body(self, data: bytes) -> None:
        if self._is_done:
            return
        self._body_bytes += len(data)
        if self._body_bytes > self._max_bytes:
            self._fail(TooLong(f"the reply is longer than {self._max_bytes} bytes"))
            return
        self._body.append(data)
        if self._wants != _ALL:
            self._waiting_bytes += len(data)
            if self._waiting_bytes > _HIGH_WATER_BYTES and not self._is_paused and self._transport is not None:
                self._is_paused = True
                self._transport.pause_reading()
        if self._wants == _SOME:
            self._wake()

    def on_message_complete(self) -> None:
        if not self._has_head or self._error is not None:
            return
        self._is_done = True
        self._is_spoilt = self._is_spoilt or not self._parser.should_keep_alive()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not self._is_asking or self._is_done:
            return
        if error is None and self._has_head and not self.headers.keys() & {"content-length", "transfer-encoding"}:
            self._is_done = self._is_spoilt = True  # such a reply ends with its connection (RFC 9112 §6.3)
            self._wake()
            return
        when = "before it answered" if not self._has_bytes else "in the middle of its reply"
        why = f": {error}" if error else ""
        self._fail(Lost(f"the upstream hung up {when}{why}", was_silent=not self._has_bytes))

    def _time_out(self) -> None:
        self._timer = None
        self._fail(TimeoutError())

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._is_spoilt = True
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._then is not None and (self._is_done or self._error is not None):
            then, self._then = self._then, None
            then()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
