"""The day's tokens of keys with a budget, read from the request log: what all processes together let them take."""

from __future__ import annotations

import asyncio
from collections import Counter

import structlog

from service.limits import Limiter, today
from service.snapshot import Snapshot
from service.store import keys
from service.store.database import Database

LOOK_S = 2.0
log = structlog.get_logger()


class Budgets:
    """Tells a `Limiter` what keys have taken today; each look reads only what was logged since the last."""

    def __init__(self, database: Database, snapshot: Snapshot, limiter: Limiter) -> None:
        self._database = database
        self._snapshot = snapshot
        self._limiter = limiter
        self._day = -1
        self._seq = 0
        self._taken: Counter[str] = Counter()

    async def run(self) -> None:
        """Look again and again until cancelled; while the database is away this process's own count holds."""
        failing = False
        while True:
            budgeted = self._budgeted()
            self._limiter.keep(self._limited())
            try:
                if budgeted:
                    taken = await asyncio.to_thread(self._look)
                    self._limiter.learn(self._day, {key_id: taken[key_id] for key_id in budgeted})
                failing = False
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the database, serving goes on
                if not failing:
                    log.warning("budgets of keys are counted here alone", reason=f"{type(error).__name__}: {error}")
                failing = True
            await asyncio.sleep(LOOK_S)

    def _look(self) -> Counter[str]:
        day, midnight = today()
        if day != self._day:
            self._day, self._seq = day, 0
            self._taken.clear()
        with self._database.read() as session:
            self._seq, found = keys.spent_since(session, midnight, self._seq)
        self._taken.update(found)
        return self._taken

    def _limited(self) -> frozenset[str]:
        return frozenset(one.id for one in self._snapshot.view.principals.values() if one.limits)

    def _budgeted(self) -> frozenset[str]:
        found = self._snapshot.view.principals.values()
        return frozenset(one.id for one in found if one.limits and one.limits.tokens_per_day is not None)
