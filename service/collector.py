"""Python's cyclic garbage collector, set for a process that serves: what it starts with is never looked at again."""

from __future__ import annotations

import gc

_THRESHOLDS = (10_000, 20, 50)  # Python's own are 700, 10, 10: they cost a render a fifth of its time


def settle() -> None:
    """Call once, when everything that stays is there. Requests make next to no cycles, so collections can be rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
