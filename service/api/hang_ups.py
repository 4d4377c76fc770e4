"""Clients that hang up: whoever waits for a model on their behalf is cancelled, and so is the question to the model.

To wait for a client's leaving takes a task of its own, which costs more than all else that is done for a short request. So
requests are only watched from a certain age on, and one timer looks at all of them.
"""

from __future__ import annotations

import asyncio
from typing import Self

from litestar.types import Receive

LOOK_S = 0.02  # what is over before the second look after its beginning is never watched


class Watches:
    """The blocks of one event loop that are under way."""

    def __init__(self) -> None:
        self._new: set[Watch] = set()
        self._young: set[Watch] = set()
        self._is_looking = False

    def watch(self, receive: Receive) -> Watch:
        """A block that is cancelled when the client of `receive` hangs up; the cancellation ends with the block."""
        return Watch(self, receive)

    def add(self, watch: Watch) -> None:
        self._new.add(watch)
        if not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def discard(self, watch: Watch) -> None:
        self._new.discard(watch)
        self._young.discard(watch)

    def _look(self) -> None:
        grown, self._young, self._new = self._young, self._new, set()
        for watch in grown:
            watch.begin()
        self._is_looking = bool(self._young)
        if self._is_looking:
            asyncio.get_running_loop().call_later(LOOK_S, self._look)


class Watch:
    """One block: `with watches.watch(receive): …`."""

    __slots__ = ("_is_hung_up", "_receive", "_task", "_watches", "_watching")

    def __init__(self, watches: Watches, receive: Receive) -> None:
        self._watches = watches
        self._receive = receive
        self._is_hung_up = False
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request is answered in a task of its own")
        self._task = task
        self._watches.add(self)
        return self

    def begin(self) -> None:
        """Watch from now on."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_hung_up = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._watches.discard(self)
        if self._watching is not None:
            self._watching.cancel()
        if not self._is_hung_up:
            return False
        return self._task.uncancel() == 0 and kind is asyncio.CancelledError
