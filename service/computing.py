"""Threads for what takes the CPU and waits for nothing: asyncio's own may all be waiting for a database that hangs."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_THREADS = 2  # Python runs one of them at a time


async def compute(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` returns or raises; the event loop goes on meanwhile. It must not wait for I/O."""
    return await asyncio.get_running_loop().run_in_executor(_pool(), functools.partial(function, *args, **kwargs))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "compute")
