"""The request log: rows go into a bounded queue on the request path and to the database in batches off it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import structlog

from service.bodies import Bodies, Body
from service.store import requests
from service.store.database import Database

WAIT_S = 0.2
MOST_WAITING = 50_000
BATCH = 2_000
log = structlog.get_logger()


class RequestLog:
    """Takes rows without waiting. While the database is away the newest `MOST_WAITING` are kept; drops are counted."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[dict[str, Any]] = deque()
        self._batch: list[dict[str, Any]] = []  # on its way to the database; stays until that has taken it
        self._writing: list[dict[str, Any]] = []
        self._flushing = asyncio.Lock()
        self.bodies = Bodies()
        self.dropped = 0

    def add(self, row: dict[str, Any], body: Body | None = None) -> None:
        """Take a row, and what was asked and answered where that is recorded."""
        if len(self._waiting) >= MOST_WAITING:
            self.bodies.discard(self._waiting.popleft()["id"])
            self.dropped += 1
        self._waiting.append(row)
        if body is not None:
            self.bodies.add(row["id"], body)

    def find(self, completion_id: str) -> dict[str, Any] | None:
        """A row that is not in the database yet; may be called from any thread."""
        return next((row for row in [*self._writing, *self._waiting] if row["id"] == completion_id), None)

    @property
    def waiting(self) -> int:
        return len(self._writing) + len(self._waiting)

    async def flush(self) -> None:
        """Write what waits; rows that the database refuses stay and are written later."""
        async with self._flushing:
            while self._writing or self._waiting:
                while self._waiting and len(self._writing) < BATCH:
                    self._writing.append(self._waiting.popleft())
                await asyncio.to_thread(self._write, self._writing)
                for row in self._writing:
                    self.bodies.discard(row["id"])
                self._writing = []

    def _write(self, batch: list[dict[str, Any]]) -> None:
        bodies = self.bodies.records(batch)
        with self._database.write() as session:
            requests.add_many(session, batch)
            requests.add_bodies(session, bodies)

    async def run(self) -> None:
        """Flush again and again until cancelled."""
        failing = False
        while True:
            await asyncio.sleep(WAIT_S if not failing else 1.0)
            try:
                await self.flush()
                failing = False
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the database, rows go on being taken
                if not failing:
                    log.warning("the request log waits for the database", reason=str(error), waiting=self.waiting)
                failing = True
