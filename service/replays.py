"""Answers that are given again: cached by what was asked, where a prompt says so, and replayed by Idempotency-Key.

Both are kept in memory, each bounded by bytes and by time; what is beyond goes by least recent use. Nothing in here
outlives the process, and another replica has its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.errors import IdempotencyMismatch

CACHE_BYTES = 64 * 1024 * 1024
REPLAY_BYTES = 32 * 1024 * 1024
REPLAY_S = 600.0
_ENTRY_BYTES = 400  # what an entry takes beside its value
Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Values by key, at most `max_bytes` of them together; each until its time is over."""

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._held: OrderedDict[Hashable, tuple[float, int, Value]] = OrderedDict()
        self.bytes = 0

    def get(self, key: Hashable) -> Value | None:
        """The value, or None where there is none or its time is over."""
        found = self._held.get(key)
        if found is None:
            return None
        if found[0] <= self._clock():
            self.drop(key)
            return None
        self._held.move_to_end(key)
        return found[2]

    def put(self, key: Hashable, value: Value, size_bytes: int, ttl_s: float) -> None:
        """Keep a value; one that is larger than a quarter of all is not kept: it would drive out too many others."""
        self.drop(key)
        size_bytes += _ENTRY_BYTES
        if size_bytes > self._max_bytes // 4:
            return
        self._held[key] = (self._clock() + ttl_s, size_bytes, value)
        self.bytes += size_bytes
        while self.bytes > self._max_bytes:
            self.drop(next(iter(self._held)))

    def drop(self, key: Hashable) -> None:
        found = self._held.pop(key, None)
        self.bytes -= found[1] if found else 0

    def __len__(self) -> int:
        return len(self._held)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer as it is sent: its bytes and its headers."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class _Answered(Generic[Value]):
    body_digest: bytes
    value: Value


class Replays(Generic[Value]):
    """Answers by who asked and Idempotency-Key: the same body gets the same answer, asked for once."""

    def __init__(self, max_bytes: int = REPLAY_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept: Kept[_Answered[Value]] = Kept(max_bytes, clock)
        self._asking: dict[Hashable, tuple[bytes, asyncio.Future[Value | None]]] = {}

    async def begin(self, key: Hashable, body_digest: bytes) -> Value | None:
        """The answer that was given, waiting for one that is under way; None where this request is the one to ask.

        Who gets None calls `end` whatever happens. Raises IdempotencyMismatch where another body has the key.
        """
        while True:
            answered = self._kept.get(key)
            if answered is not None:
                _refuse_other(answered.body_digest, body_digest)
                return answered.value
            under_way = self._asking.get(key)
            if under_way is None:
                self._asking[key] = (body_digest, asyncio.get_running_loop().create_future())
                return None
            _refuse_other(under_way[0], body_digest)
            value = await asyncio.shield(under_way[1])
            if value is not None:
                return value  # else it failed, or was too large to be kept: one of those who waited asks again

    def end(self, key: Hashable, value: Value | None, size_bytes: int = 0) -> None:
        """The answer to what `begin` let through; None where there is none, and the key is free again."""
        body_digest, future = self._asking.pop(key)
        if value is not None:
            self._kept.put(key, _Answered(body_digest, value), size_bytes, REPLAY_S)
        if not future.done():
            future.set_result(value)


def _refuse_other(known: bytes, given: bytes) -> None:
    if known != given:
        raise IdempotencyMismatch("this Idempotency-Key was used before with another body: take a new one")
