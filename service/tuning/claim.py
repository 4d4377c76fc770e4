"""A worker's hold on a job, as the steps of its work see it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from service.identity import Principal
from service.ids import now
from service.settings import Settings
from service.store import jobs
from service.store.database import Database

T = TypeVar("T")
_POLL_S = 0.25


class Cancelled(Exception):
    """The job was asked to end."""


@dataclass(frozen=True)
class Claim:
    """This worker's hold on one job. `cancelled` is set when its end is asked for or the hold is lost."""

    job_id: str
    token: int
    actor: Principal
    database: Database
    settings: Settings
    cancelled: threading.Event

    @property
    def folder(self) -> Path:
        return self.settings.home / "jobs" / self.job_id

    @property
    def short_id(self) -> str:
        return self.job_id.partition("_")[2]

    def tell(self, kind: str, /, **data: Any) -> None:
        """Write an event that people watch; raises Cancelled where the job is to end."""
        self.check()
        with self.database.write() as session:
            jobs.add_event(session, self.job_id, kind, data, now())

    def tell_once(self, kind: str, /, **data: Any) -> None:
        """Write the event of a step that may run again: a step's end is told once, whatever was killed."""
        self.check()
        with self.database.write() as session:
            if not jobs.has_event(session, self.job_id, kind, data):
                jobs.add_event(session, self.job_id, kind, data, now())

    def check(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled(self.job_id)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end in this thread, ended early when the job is."""

        async def main() -> T:
            task = asyncio.ensure_future(coroutine)
            while not task.done():
                await asyncio.wait({task}, timeout=_POLL_S)
                if self.cancelled.is_set() and not task.done():
                    task.cancel()
            try:
                return await task
            except asyncio.CancelledError:
                raise Cancelled(self.job_id) from None

        return asyncio.run(main())
