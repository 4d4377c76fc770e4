"""What a generator counts. No torch here."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

_RATE_S = 30.0


@dataclass(slots=True)
class Counters:
    """Since start, except those of now: `waiting`, `live`, `ceiling`."""

    answered: int = 0
    failed: int = 0
    cancelled: int = 0
    late: int = 0
    refused: int = 0
    asked_again: int = 0  # rows
    with_asked_again: int = 0  # answered requests that have such a row
    guided: dict[str, int] = field(default_factory=dict)
    batch_sizes: dict[int, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    waited_s: float = 0.0
    first_token_s: float = 0.0
    halvings: int = 0
    waiting: dict[int, int] = field(default_factory=dict)
    live: int = 0
    ceiling: int = 0
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=256))

    def end(self) -> None:
        """A request is over."""
        self._ends.append(time.monotonic())

    def retry_after_s(self, waiting: int) -> int:
        """Seconds in which `waiting` requests are over at the pace of the last half minute; 1 to 60."""
        now = time.monotonic()
        recent = [end for end in self._ends if now - end < _RATE_S]
        if not recent:
            return 5
        pace = len(recent) / max(now - recent[0], 1.0)
        return int(min(60.0, max(1.0, waiting / pace)))
