"""Questions that nobody waits for, asked beside answers: bounded, so that they never hold up what is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

MOST_IN_FLIGHT = 64
log = structlog.get_logger()


class Shadows:
    """Runs work in the background, at most `most` at once: beyond that it is `dropped`, and counted."""

    def __init__(self, most: int = MOST_IN_FLIGHT) -> None:
        self._most = most
        self._running: set[asyncio.Task[Any]] = set()
        self.dropped = 0

    @property
    def in_flight(self) -> int:
        return len(self._running)

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` soon. It is no coroutine yet, so that nothing is left over of what is dropped."""
        if len(self._running) >= self._most:
            self.dropped += 1
            return
        task = asyncio.ensure_future(work())
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("a shadow failed", exc_info=error)

    async def aclose(self) -> None:
        """End what runs, and wait for that. Safe to call twice."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
