"""One thread that does what it is given in turn, and that nothing waits for when the process ends."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Lane:
    """Work that must not be held up by other work: asyncio's own threads may all be waiting for a database that hangs.

    The thread starts with the first work.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """What `work` returns or raises, behind all that was started before. It is done even where nobody waits any more."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        future: Future[T] = Future()
        self._work.put((future, work))
        return asyncio.wrap_future(future)

    def close(self) -> None:
        """End the thread behind its last work, without waiting for it."""
        if self._thread is not None:
            self._work.put(None)
            self._thread = None

    def _run(self) -> None:
        while (given := self._work.get()) is not None:
            future, work = given
            is_wanted = future.set_running_or_notify_cancel()
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
                if is_wanted:
                    future.set_exception(error)
            else:
                if is_wanted:
                    future.set_result(result)
