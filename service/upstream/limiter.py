"""How much of an upstream is asked at once: slots, and a bounded queue before them, first come first served."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from service.upstream.policy import Limits


class QueueRefused(Exception):
    """No slot: the queue is full, or the wait took too long. The message says which."""


class Limiter:
    """`enter` before a question, `leave` after it. Used on one event loop."""

    def __init__(self, limits: Limits) -> None:
        self.in_flight = 0
        self._limits = limits
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def try_enter(self) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if self._waiting or self.in_flight >= self._limits.max_in_flight:
            return False
        self.in_flight += 1
        return True

    async def enter(self, within_s: float) -> None:
        """Take a slot, after a wait of `within_s` and of `queue_s` at most. Raises QueueRefused."""
        if self.try_enter():
            return
        limits = self._limits
        if len(self._waiting) >= limits.max_queued:
            raise QueueRefused(f"{limits.max_in_flight} questions are under way and {limits.max_queued} wait")
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        wait_s = min(within_s, limits.queue_s)
        try:
            async with asyncio.timeout(wait_s):
                await turn
        except BaseException as error:
            self._give_up(turn)
            if isinstance(error, TimeoutError):
                said = f"none of {limits.max_in_flight} questions under way ended within {wait_s:g} s"
                raise QueueRefused(said) from None
            raise

    def leave(self) -> None:
        """Give the slot to who waits longest, or back."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.in_flight -= 1

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():
            self.leave()  # it was its turn, too late
        elif turn in self._waiting:
            self._waiting.remove(turn)


class Beside:
    """The same for what nobody waits for: at most half of the slots of `whole`, at least one, and a queue of its own."""

    def __init__(self, limits: Limits, whole: Limiter) -> None:
        self._own = Limiter(limits.model_copy(update={"max_in_flight": max(1, limits.max_in_flight // 2)}))
        self._whole = whole

    @property
    def queued(self) -> int:
        return self._own.queued

    async def enter(self, within_s: float) -> None:
        """Take a slot of one's own, then one of all. Raises QueueRefused."""
        until = time.monotonic() + within_s
        await self._own.enter(within_s)
        try:
            await self._whole.enter(until - time.monotonic())
        except BaseException:
            self._own.leave()
            raise

    def leave(self) -> None:
        self._whole.leave()
        self._own.leave()
