"""A second question after a while, for an upstream whose slowest answers are much slower than the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

Answer = TypeVar("Answer")


async def hedged(
    ask: Callable[[], Coroutine[Any, Any, Answer]],
    after_s: float,
    may_hedge: Callable[[], bool],
    drop: Callable[[Answer], Awaitable[None]],
) -> Answer:
    """The first good answer of `ask()` and, where none came within `after_s`, of a second one beside it.

    The other is cancelled, and what it answered all the same is given to `drop`. Raises what the first raised where both
    fail. Nothing is left running, cancelled or not.
    """
    first = asyncio.create_task(ask())
    tasks = [first]
    won: asyncio.Task[Answer] | None = None
    try:
        await asyncio.wait(tasks, timeout=after_s)
        if not first.done() and may_hedge():
            tasks.append(asyncio.create_task(ask()))
        won = await _first_good(tasks)
        return won.result()
    finally:
        await _end([task for task in tasks if task is not won], drop)


async def _first_good(tasks: list[asyncio.Task[Answer]]) -> asyncio.Task[Answer]:
    """The first that gave an answer, or, where none did, the first of all."""
    left = set(tasks)
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task in done and not task.cancelled() and task.exception() is None:
                return task
    return tasks[0]


async def _end(tasks: list[asyncio.Task[Answer]], drop: Callable[[Answer], Awaitable[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            await drop(task.result())
