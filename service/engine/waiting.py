"""Who is next: requests that wait, by priority, in fair shares, and none of them for ever. Pure; no torch here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Generic, Protocol, TypeVar

OLDEST_EVERY = 8  # of so many picks one is who has waited longest, whatever its priority or share


class Waits(Protocol):
    """What is known of one that waits. `cost` is in tokens; `arrival` grows with each that comes."""

    @property
    def adapter(self) -> str | None: ...
    @property
    def flow(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def cost(self) -> int: ...
    @property
    def arrival(self) -> int: ...


One = TypeVar("One", bound=Waits)
_Key = tuple[int, str | None, str]


class Waiting(Generic[One]):
    """The queue of a generator.

    The lower priority goes first. Within it flows share by start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996):
    each flow has a clock that its tokens move on, and the flow with the least goes next; one that comes anew, or comes
    back, begins at the clock of who was served last, so that nobody saves up or is held back for earlier use.
    """

    def __init__(self) -> None:
        self._lines: dict[_Key, deque[One]] = {}  # those of one priority, adapter and flow, in the order they came
        self._clocks: dict[tuple[str | None, str], float] = {}
        self._now = 0.0
        self._picks = 0

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def __iter__(self) -> Iterator[One]:
        for line in self._lines.values():
            yield from line

    def add(self, job: One, *, first: bool = False) -> None:
        """Put `job` at the end of its line; `first` is for one that was taken out before and comes back."""
        line = self._lines.setdefault((job.priority, job.adapter, job.flow), deque())
        if first:
            line.appendleft(job)
        else:
            line.append(job)

    def of(self, adapter: str | None) -> bool:
        """Whether any waits for `adapter`."""
        return any(key[1] == adapter and line for key, line in self._lines.items())

    def by_priority(self) -> dict[int, int]:
        """How many wait, by priority."""
        counts: dict[int, int] = {}
        for key, line in self._lines.items():
            counts[key[0]] = counts.get(key[0], 0) + len(line)
        return counts

    def next(self, has_room: Callable[[One], bool]) -> One | None:
        """Who goes next, of those that `has_room`; it stays in the queue until it is taken."""
        heads = [line[0] for line in self._lines.values() if line and has_room(line[0])]
        if not heads:
            return None
        if self._picks % OLDEST_EVERY == OLDEST_EVERY - 1:
            return min(heads, key=lambda job: job.arrival)
        return min(heads, key=lambda job: (job.priority, self._clock(job), job.arrival))

    def company(self, head: One) -> list[One]:
        """Who may go along with `head`: of its adapter, and of no later priority; `head` comes first."""
        found = [job for job in self if job.adapter == head.adapter and job.priority <= head.priority]
        return [head, *(job for job in found if job is not head)]

    def take(self, jobs: Collection[One]) -> None:
        """Let `jobs` go, on the account of their flows."""
        self._picks += 1
        self._now = min(map(self._clock, jobs))
        for job in jobs:
            self._clocks[job.adapter, job.flow] = self._clock(job) + job.cost
        taken = set(map(id, jobs))
        self.drop(lambda job: id(job) in taken)

    def drop(self, is_gone: Callable[[One], bool]) -> None:
        """Forget those that are gone, and the accounts of flows that wait no more and are not ahead."""
        for key, line in list(self._lines.items()):
            self._lines[key] = deque(job for job in line if not is_gone(job))
            if not self._lines[key]:
                del self._lines[key]
        if not self._lines:  # who comes now has been waiting for nobody, and nobody is held back for earlier use
            self._now = max(self._clocks.values(), default=self._now)
        live = {key[1:] for key in self._lines}
        self._clocks = {key: clock for key, clock in self._clocks.items() if key in live or clock > self._now}

    def _clock(self, job: One) -> float:
        return max(self._clocks.get((job.adapter, job.flow), 0.0), self._now)
