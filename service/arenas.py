"""glibc's allocator, set for a process of one busy thread: no heap of its own for each thread that writes a few rows."""

from __future__ import annotations

import sys

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h


def use_one() -> None:
    """Call before threads are started. What they free is then used again by all; other systems' allocators are left alone.

    Threads of which one runs at a time do not wait for each other's heap, and each heap keeps a few megabytes.
    """
    if sys.platform != "linux":
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
