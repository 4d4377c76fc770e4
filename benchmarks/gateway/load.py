"""Who asks: bare connections on uvloop, one request after another on each, the same for every server that is measured."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvloop

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_SENT = re.compile(rb'"content": ?"(\d+\.\d+) ')


@dataclass(frozen=True, slots=True)
class Target:
    """A port and the bytes of one whole HTTP request to it."""

    port: int
    request: bytes


def post(port: int, path: str, body: bytes, key: str = "none") -> Target:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return Target(port, head.encode() + body)


@dataclass(frozen=True, slots=True)
class Taken:
    """What `seconds` of asking came to: the milliseconds of each request, and the bodies that were not 200."""

    seconds: float
    ms: list[float]
    refused: list[bytes]

    @property
    def per_s(self) -> float:
        return len(self.ms) / self.seconds

    def quantile(self, share: float) -> float:
        return sorted(self.ms)[min(len(self.ms) - 1, int(share * len(self.ms)))]


def ask(target: Target, in_flight: int, seconds: float = 0.0, requests: int = 0) -> Taken:
    """Keep `in_flight` requests going for `seconds`, or until `requests` were answered."""
    return uvloop.run(_ask(target, in_flight, seconds or 1e9, requests or 1 << 60))


def stream(target: Target, times: int) -> tuple[list[float], list[float]]:
    """Milliseconds from asking to the first content, and from the upstream's sending of a chunk to its arrival here."""
    return uvloop.run(_streams(target, times))


class _Connection(asyncio.Protocol):
    """Calls `answered(data)` with each whole answer; a chunked one ends with its last chunk."""

    def __init__(self, answered: Callable[[bytes], None]) -> None:
        self._answered = answered
        self._waiting = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting = self._waiting + data if self._waiting else data
        end = self._waiting.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._waiting, 0, end)
        is_sized = length and len(self._waiting) >= end + 4 + int(length[1])
        if is_sized or (not length and self._waiting.endswith(b"0\r\n\r\n")):
            answer, self._waiting = self._waiting, b""
            self._answered(answer)


async def _ask(target: Target, in_flight: int, seconds: float, requests: int) -> Taken:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    ms: list[float] = []
    refused: list[bytes] = []
    open_now = in_flight
    started = time.perf_counter()

    def connect() -> _Connection:
        asked_at = started  # the first question, which is written below

        def answered(data: bytes) -> None:
            nonlocal asked_at, open_now
            now = time.perf_counter()
            asked_at = max(asked_at, started)
            if data.startswith(b"HTTP/1.1 200"):
                ms.append((now - asked_at) * 1000)
            else:
                refused.append(data)
            if now - started < seconds and len(ms) + len(refused) < requests:
                asked_at = now
                connection.transport.write(target.request)
                return
            open_now -= 1
            if not open_now and not done.done():
                done.set_result(None)

        connection = _Connection(answered)
        return connection

    connections = [(await loop.create_connection(connect, "127.0.0.1", target.port))[0] for _ in range(in_flight)]
    started = time.perf_counter()
    for transport in connections:
        transport.write(target.request)
    await done
    took_s = time.perf_counter() - started
    for transport in connections:
        transport.close()
    return Taken(took_s, ms, refused)


async def _streams(target: Target, times: int) -> tuple[list[float], list[float]]:
    first_ms: list[float] = []
    chunk_ms: list[float] = []
    for _ in range(times):
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        for warm in (False, True):  # the second is on a kept-alive connection, and counts
            asked = time.monotonic()
            writer.write(target.request)
            first, each = await _one_stream(reader, asked)
            if warm:
                first_ms.append(first)
                chunk_ms += each
        writer.close()
    return first_ms, chunk_ms


async def _one_stream(reader: asyncio.StreamReader, asked: float) -> tuple[float, list[float]]:
    first, each, waiting = 0.0, [], b""
    while not waiting.endswith(b"0\r\n\r\n"):
        data = await reader.read(65536)
        now = time.monotonic()
        if not data:
            raise RuntimeError(f"the stream broke off: {waiting[-300:]!r}")
        sent = [float(found) for found in _SENT.findall(data)]
        if sent and not first:
            first = (now - asked) * 1000
        each += [(now - at) * 1000 for at in sent]
        waiting = (waiting + data)[-4096:]
    if not first:
        raise RuntimeError(f"no content came: {waiting[-300:]!r}")
    return first, each
