"""From rows of the request log to the counts that a step of a rollout is judged by. Pure, and never in a row's way twice."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from service.rollouts.arrivals import LONGEST_S, Arrivals
from service.store.rollouts import OutcomeRow
from suites.eprocess import block_size
from suites.rollouts import MOST_UNITS, Arm, Tally

CALLERS_FAULT = frozenset(
    {
        "BadInput", "BadName", "Conflict", "Forbidden", "IdempotencyMismatch", "NotFound", "RateLimited", "TooLarge",
        "Unauthenticated",
    }
)  # fmt: skip


def outcome_of(row: OutcomeRow, latency_budget_ms: float | None) -> bool | None:
    """Whether an outcome is bad; None for one that says nothing of its variant.

    Bad are errors, answers that do not fit their schema, and whatever took longer than the budget. What is the caller's
    fault says nothing, nor does a caller who left before the budget was over. Refused variables count, and refusals by the
    upstream: a version may take other variables, or have parameters that its model does not know, and those that are the
    caller's fault fall to both variants alike. Answers from the cache count as any: without them the variant whose cache is
    warmer would seem to be asked less, and the split that all tests rest on would look broken.
    """
    if row.shadow_of is not None or row.status in CALLERS_FAULT:
        return None
    is_late = latency_budget_ms is not None and row.latency_ms > latency_budget_ms
    if row.status == "cancelled":
        return True if is_late else None
    return row.chosen is not None or row.status != "ok" or row.is_valid in (False, 0) or is_late


class StepCount:
    """The counts of one step, fed with rows in the order of their `seq`.

    A person counts by the first outcome in the step, and as bad once somebody has complained of any answer to them; a request of
    nobody in particular counts by itself. At most `MOST_UNITS` are counted.
    """

    def __init__(self, candidate: str, incumbent: str, latency_budget_ms: float | None) -> None:
        self._arms = {candidate: 0, incumbent: 1}
        self._budget_ms = latency_budget_ms
        self._good = [0, 0]
        self._bad = [0, 0]
        self._others_since = [0, 0]
        self._blocks: list[list[int]] = []
        self._units: set[int] = set()
        self._bad_units: set[int | str] = set()  # of nobody's requests only those that were complained of
        self.units = 0
        self.seq = 0
        self.last_at: str | None = None
        self.longest_s = 0.0
        self._arrivals = (Arrivals(), Arrivals())

    def add(self, rows: Iterable[OutcomeRow]) -> None:
        for row in rows:
            self.seq = row.seq
            arm = self._arm(row)
            is_bad = outcome_of(row, self._budget_ms)
            if arm is None or is_bad is None:
                continue
            self.last_at = row.at
            if self.units < MOST_UNITS and self._is_new(row, is_bad):
                self._count(arm, is_bad)
                self._arrived(row, arm, is_bad)

    def complain(self, rows: Iterable[OutcomeRow]) -> None:
        """Count as bad what somebody called bad; again, or what is bad already, changes nothing."""
        for row in rows:
            arm = self._arm(row)
            key = row.id if row.unit is None else int(row.unit, 16)
            was_bad = outcome_of(row, self._budget_ms) if row.unit is None else not self._knows(row)
            if arm is None or was_bad is not False or key in self._bad_units or row.seq > self.seq:
                continue
            if self._good[arm] > 0:
                self._bad_units.add(key)
                self._good[arm] -= 1
                self._arrivals[arm].turn()
                self._count_bad(arm)

    @property
    def arms(self) -> tuple[Arm, Arm]:
        """The candidate's counts and the incumbent's."""
        candidate, incumbent = (
            Arm(good=self._good[arm], bad=self._bad[arm], others_since=self._others_since[arm]) for arm in (0, 1)
        )
        return candidate, incumbent

    def settled(self, now_s: float, least_s: float = 0.0) -> tuple[Tally, Tally]:
        """The candidate's and the incumbent's units that came so long ago that the slowest answer so far would be there.

        At least `least_s` ago; `now_s` in seconds since 1970.
        """
        by_s = now_s - max(least_s, min(self.longest_s, LONGEST_S))
        return self._arrivals[0].until(by_s), self._arrivals[1].until(by_s)

    @property
    def bad_blocks(self) -> tuple[tuple[int, int], ...]:
        return tuple((block[0], block[1]) for block in self._blocks)

    def _arm(self, row: OutcomeRow) -> int | None:
        return self._arms.get(row.chosen or row.variant)

    def _is_new(self, row: OutcomeRow, is_bad: bool) -> bool:
        if row.unit is None:
            return True
        unit = int(row.unit, 16)
        if unit in self._units:
            return False
        self._units.add(unit)
        if is_bad:
            self._bad_units.add(unit)
        return True

    def _arrived(self, row: OutcomeRow, arm: int, is_bad: bool) -> None:
        took_s = row.latency_ms / 1000
        self.longest_s = max(self.longest_s, took_s)
        self._arrivals[arm].add(datetime.fromisoformat(row.at).timestamp() - took_s, is_bad)

    def _knows(self, row: OutcomeRow) -> bool:
        return row.unit is not None and int(row.unit, 16) in self._units

    def _count(self, arm: int, is_bad: bool) -> None:
        self.units += 1
        self._others_since[arm] = 0
        self._others_since[1 - arm] += 1
        if is_bad:
            self._count_bad(arm)
        else:
            self._good[arm] += 1

    def _count_bad(self, arm: int) -> None:
        self._bad[arm] += 1
        if not self._blocks or sum(self._blocks[-1]) >= block_size(len(self._blocks)):
            self._blocks.append([0, 0])
        self._blocks[-1][arm] += 1
