"""How many questions may be on their way at once: fewer after each refusal for overload, more with each answer.

Additive increase and multiplicative decrease, as TCP does it: the share of an endpoint that a run takes settles where
the endpoint refuses next to nothing. A Retry-After holds up every worker, not only the one that was told.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque


class Pace:
    """What the workers of one run share. `most` is the concurrency that was asked for: it is where the pace begins."""

    def __init__(self, most: int) -> None:
        self.most = max(1, most)
        self.limit = float(self.most)
        self.flying = 0
        self._not_before_s = 0.0
        self._slowed_at_s = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._stopped = asyncio.Event()

    async def enter(self) -> bool:
        """Wait for a turn to ask; False once the run has been stopped."""
        while not self._stopped.is_set():
            if self._not_before_s and (wait_s := self._not_before_s - time.monotonic()) > 0:
                await self.sleep(wait_s)
            elif self.flying < int(self.limit):
                self.flying += 1
                return True
            else:
                await self._queue()
        return False

    async def _queue(self) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            self._wake()  # whoever was to be next is so still
            raise

    def leave(self) -> None:
        """Give the turn back."""
        self.flying -= 1
        self._wake()

    def _wake(self) -> None:
        free = int(self.limit) - self.flying
        while self._waiting and free > 0:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                free -= 1

    def answered(self) -> None:
        """One more may be on its way for each round of answers."""
        if self.limit < self.most:
            self.limit = min(float(self.most), self.limit + 1 / self.limit)

    def overloaded(self, asked_at_s: float, retry_after_s: float | None) -> None:
        """Half as many from now on, once for all that were on their way together; nobody asks before `retry_after_s`."""
        now_s = time.monotonic()
        if asked_at_s >= self._slowed_at_s:
            self.limit = max(1.0, self.limit / 2)
            self._slowed_at_s = now_s
        if retry_after_s:
            self._not_before_s = max(self._not_before_s, now_s + retry_after_s)

    async def sleep(self, seconds: float) -> bool:
        """Wait; False where the run was stopped meanwhile."""
        try:
            await asyncio.wait_for(self._stopped.wait(), seconds)
        except TimeoutError:
            return True
        return False

    def stop(self) -> None:
        """Let nobody ask any more."""
        self._stopped.set()
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
