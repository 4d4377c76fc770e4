"""How long to wait before the next attempt: twice as long each time, never in step with other clients."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_S = 0.5
LONGEST_S = 30.0


class Backoff:
    """Waiting times of one series of failures, in seconds; `jitter` gives numbers from 0 to 1."""

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._base_s = FIRST_S

    def next_s(self) -> float:
        """Between half and all of 0.5 s, 1 s, 2 s … 30 s."""
        wait_s = self._base_s * (0.5 + 0.5 * self._jitter())
        self._base_s = min(self._base_s * 2, LONGEST_S)
        return wait_s

    def reset(self) -> None:
        self._base_s = FIRST_S
