"""Who is told that prompts have moved: one listener for each stream, whatever it has not yet read kept small."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

MAX_WAITING = 256  # names that one listener may have waiting; beyond them it is told `all`


@dataclass(frozen=True, slots=True)
class Change:
    """What moved up to `revision`: the prompts `names`, or (`is_all`) more than were kept.

    A revision may move without any prompt (a key was made): then `names` is empty.
    """

    revision: int
    names: frozenset[str] = frozenset()
    is_all: bool = False


class Listener:
    """One stream's share, used on the event loop that made it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_closed = False
        self._waiting: Change | None = None
        self._arrived = asyncio.Event()

    async def next(self, timeout_s: float) -> Change | None:
        """All that moved since the last call, as one; None where nothing did for `timeout_s`, or it was closed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), timeout_s)
        self._arrived.clear()
        found, self._waiting = self._waiting, None
        return found

    def put(self, change: Change) -> None:
        before = self._waiting or Change(change.revision)
        names = before.names | change.names
        too_many = before.is_all or change.is_all or len(names) > MAX_WAITING
        self._waiting = Change(change.revision, frozenset() if too_many else names, too_many)
        self._arrived.set()

    def close(self) -> None:
        self.is_closed = True
        self._arrived.set()


class Changes:
    """Passes changes on to every listener."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()
        self._is_closed = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[Listener]:
        """A listener for as long as the block runs; closed from the start where the service is ending."""
        listener = Listener()
        with self._lock:
            self._listeners.add(listener)
            if self._is_closed:
                listener.close()
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def publish(self, change: Change) -> None:
        """Tell every listener; from any thread, and without waiting for them."""
        with self._lock:
            for listener in self._listeners:
                with contextlib.suppress(RuntimeError):  # its loop has ended, and the listener with it
                    listener.loop.call_soon_threadsafe(listener.put, change)

    def close(self) -> None:
        """End every stream, now and from now on."""
        with self._lock:
            self._is_closed = True
            for listener in self._listeners:
                with contextlib.suppress(RuntimeError):
                    listener.loop.call_soon_threadsafe(listener.close)

    def __len__(self) -> int:
        return len(self._listeners)
