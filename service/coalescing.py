"""One write to the socket for what is written together in one turn of the event loop.

uvicorn writes an answer's head and its body apart, and so every event of a stream: each is a call of the system that
wakes the client, and that costs more than all of a render. Here the second write of a turn takes the first along: a whole
answer, or a stream's head with its first event. What follows in the same turn goes out when that ends.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST_BYTES = 64 * 1024  # that wait: beyond, they go out at once, so that the transport can say when it is too much


class CoalescingProtocol(HttpToolsProtocol):
    """uvicorn's protocol on a transport that gathers."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's is as narrow
        super().connection_made(cast("asyncio.Transport", Coalesced(transport, self.loop)))


class Coalesced:
    """A transport that gathers what is written in one turn of the loop; all else goes to `transport`."""

    __slots__ = ("_bytes", "_loop", "_transport", "_waiting", "_writes")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._writes = 0  # in this turn

    def write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._bytes += len(data)
        self._writes += 1
        if self._writes == 1:
            self._loop.call_soon(self._end_turn)
        elif self._writes == 2 or self._bytes > _MOST_BYTES:
            self._flush()

    def _end_turn(self) -> None:
        self._writes = 0
        self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        waiting = self._waiting
        if not waiting:
            return
        self._waiting, self._bytes = [], 0
        if not self._transport.is_closing():  # the client may have left since
            self._transport.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
