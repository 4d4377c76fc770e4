"""glibc's allocator, set for a process of one busy thread: no heap of its own for each thread that writes a few rows."""

from __future__ import annotations

import sys

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h, as those below
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_MOST_THRESHOLD = 32 << 20  # bytes; glibc takes no larger one


def use_one() -> None:
    """Call before threads are started. What they free is then used again by all; other systems' allocators are left alone.

    Threads of which one runs at a time do not wait for each other's heap, and each heap keeps a few megabytes.
    """
    _set({_ARENA_MAX: 1})


def use_one_and_keep(kept_bytes: int) -> None:
    """The same, and up to `kept_bytes` that were freed stay with the process, of blocks up to 32 MB.

    Without it each tensor of a few megabytes is new memory of the system, which is given page by page as it is written.
    Larger blocks go back at once: kept, they would leave holes that nothing fits into.
    """
    _set({_ARENA_MAX: 1, _MMAP_THRESHOLD: _MOST_THRESHOLD, _TRIM_THRESHOLD: kept_bytes})


def _set(options: dict[int, int]) -> None:
    if sys.platform != "linux":
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
