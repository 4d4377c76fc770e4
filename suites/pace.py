"""How many questions may be on their way at once: fewer after each refusal for overload, more with each answer.

Additive increase and multiplicative decrease, with a slow start after a burst of refusals, as TCP does it (RFC 5681): the
share of an endpoint that a run takes settles where the endpoint refuses next to nothing. A Retry-After holds up the one
question that was refused; the others go on, as many at once as the endpoint has just shown to take.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

FIRST_TOLD_S = 2.0  # without an answer, until whoever watches is told that the run waits
TOLD_EVERY_S = 15.0
SILENT_S = 15.0  # without an answer to any question on its way, until it is told


class Pace:
    """What the workers of one run share. `most` is the concurrency that was asked for: it is where the pace begins."""

    def __init__(self, most: int) -> None:
        self.most = max(1, most)
        self.limit = float(self.most)
        self.flying = 0
        self._half = self.limit  # of what was refused last: up to it the pace grows fast, beyond it slowly
        self._round = 0  # counts the times that the pace was slowed
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._stopped = asyncio.Event()

    async def enter(self) -> int | None:
        """Wait for a turn to ask, and give its round, for `overloaded`; None once the run has been stopped."""
        while not self._stopped.is_set():
            if self.flying < int(self.limit):
                self.flying += 1
                return self._round
            await self._queue()
        return None

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
        """One more may be on its way for each round of answers that used all there was; for each answer below `_half`.

        To be called before `leave`, like `overloaded`.
        """
        if self.flying >= int(self.limit):
            more = 1.0 if self.limit < self._half else 1 / self.limit
            self.limit = min(float(self.most), self.limit + more)

    def overloaded(self, asked_in: int) -> None:
        """Half as many from now on, once for all that were on their way together, and no more than are still on theirs."""
        if asked_in == self._round:
            self._half = max(1.0, (self.limit if self.limit > 1 else self._half) / 2)
            self.limit = min(self.limit, self._half)
            self._round += 1
        self.limit = max(1.0, min(self.limit, self.flying - 1.0))

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


class Patience:
    """How long a run waits for an endpoint that only refuses: told while it waits, and given up in the end.

    `tell` is given a line every so often, `give_up` the last refusal after `limit_s` without an answer.
    """

    def __init__(self, limit_s: float, tell: Callable[[str], object] | None, give_up: Callable[[str], None]) -> None:
        self._limit_s = limit_s
        self._tell = tell
        self._give_up = give_up
        self._said = ""
        self._since_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def refused(self, said: str) -> None:
        """The endpoint is overloaded: the wait begins, where it has not."""
        self._said = said
        if self._timer is None:
            self._since_s = asyncio.get_running_loop().time()
            self._look_in(FIRST_TOLD_S)

    def end(self) -> None:
        """There was an answer, or the run is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        left_s = self._since_s + self._limit_s - loop.time()
        self._timer = loop.call_later(max(0.0, min(seconds, left_s)), self._look)

    def _look(self) -> None:
        waited_s = asyncio.get_running_loop().time() - self._since_s
        if waited_s >= self._limit_s - 0.001:
            self._give_up(self._said)
            return
        self._look_in(TOLD_EVERY_S)
        if self._tell is not None:
            left_s = self._limit_s - waited_s
            self._tell(f"waiting for an overloaded model, {left_s:.0f} s more at most: {self._said}")


class Silence:
    """Tells of questions that hang: of all that are on their way none has ended for `SILENT_S`, and again every so often.

    `asked` and `ended` frame one attempt, of which each may take `timeout_s`.
    """

    def __init__(self, timeout_s: float, tell: Callable[[str], object]) -> None:
        self._timeout_s = timeout_s
        self._tell = tell
        self._since_s: dict[int, float] = {}  # by attempt, the oldest first
        self._number = 0
        self._heard_s = 0.0  # when anything was last heard or told
        self._timer: asyncio.TimerHandle | None = None

    def asked(self) -> int:
        """An attempt begins; returns what it is called by."""
        loop = asyncio.get_running_loop()
        self._number += 1
        self._since_s[self._number] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(SILENT_S, self._look)
        return self._number

    def ended(self, number: int) -> None:
        """An attempt is over: answered, failed or cancelled."""
        del self._since_s[number]
        self._heard_s = asyncio.get_running_loop().time()

    def end(self) -> None:
        """The run is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._since_s:
            return
        loop = asyncio.get_running_loop()
        oldest_s = next(iter(self._since_s.values()))
        due_s = max(oldest_s, self._heard_s) + SILENT_S
        if (now_s := loop.time()) >= due_s - 0.001:
            self._heard_s, due_s = now_s, now_s + SILENT_S
            self._tell(self._told(now_s - oldest_s))
        self._timer = loop.call_at(due_s, self._look)

    def _told(self, waited_s: float) -> str:
        count = len(self._since_s)
        answers = (
            f"1 answer, for {waited_s:.0f} s" if count == 1 else f"{count} answers, the oldest for {waited_s:.0f} s"
        )
        return f"waits for {answers}; an attempt may take {self._timeout_s:g} s"
