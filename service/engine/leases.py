"""How long an engine lives: as long as someone holds a lease on it, and a moment more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from prompts.errors import TurnoutError

UNCLAIMED_S = 60.0
_BEAT_S = 10.0
_LOOK_S = 0.05
_BEGINS_S = 5.0  # from the promise of a lease to its first byte


class Closing(TurnoutError):
    """The engine is about to exit and takes no lease any more."""


class Leases:
    """Open leases. Used on one event loop."""

    def __init__(self, linger_s: float, unclaimed_s: float = UNCLAIMED_S) -> None:
        self.open = 0
        self._linger_s = linger_s
        self._ends_at = time.monotonic() + unclaimed_s
        self._closing = False

    def take(self) -> AsyncIterator[bytes]:
        """A stream that is the lease: it is given back when the stream is closed. Raises Closing."""
        if self._closing:
            raise Closing("the engine is about to exit; start another")
        self._ends_at = max(self._ends_at, time.monotonic() + _BEGINS_S)
        return self._stream()

    async def _stream(self) -> AsyncIterator[bytes]:
        self.open += 1  # not before: a stream that never began would never be closed either
        try:
            while True:
                yield b"\n"
                await asyncio.sleep(_BEAT_S)
        finally:
            self.open -= 1
            self._ends_at = time.monotonic() + self._linger_s

    async def watch(self, end: Callable[[], None]) -> None:
        """Call `end` once nobody holds a lease any more, or nobody ever took one."""
        while self.open or time.monotonic() < self._ends_at:  # noqa: ASYNC110  # the end is a time, not an event
            await asyncio.sleep(_LOOK_S)
        self._closing = True
        end()
