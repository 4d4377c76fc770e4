"""Suites that are due by their `schedule`: tested on what takes the prompt's traffic now, each time asked once.

Times are cron's five fields in UTC. A job's id is made of the suite and of when it was due, so that of several workers, and of
one that is killed, nobody starts it twice. A time that passed while no worker ran is made up for once, within a day. Where
thresholds are missed the suite's fallback starts, once for a version of the suite on a version of the prompt: the same failure
every night is not trained on every night.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import structlog

from prompts.errors import TurnoutError
from prompts.names import Variant
from prompts.prompt import digest_of
from service.errors import StorageFailed
from service.gates import Gates
from service.identity import Principal
from service.jobs import Jobs
from service.questions import GateJob, GateRequest, RunJob, RunRequest
from service.route_book import incumbents
from service.store import jobs, suites
from service.store.database import Database

LATEST_AGO = timedelta(days=1)
SCHEDULER = Principal("schedule", "admin")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Due:
    """A suite version whose time has come, with the variant that takes the prompt's traffic."""

    suite: str
    variant: Variant
    has_thresholds: bool
    at: datetime

    @property
    def job_id(self) -> str:
        return f"job_{digest_of(['schedule', self.suite, self.at.isoformat()])[7:19]}"

    def request(self) -> tuple[Literal["run", "gate"], RunRequest | GateRequest]:
        """A gate without a baseline, which may start the fallback; a run where nothing but figures can come of it."""
        prompt = f"{self.variant.prompt}@{self.variant.version}"
        if self.has_thresholds and self.variant.adapter is None:
            gate = GateRequest(
                suites=(self.suite,),
                candidate=prompt,
                baseline="none",
                model=self.variant.model,
                no_cache=True,
                fallback=True,
            )
            return "gate", gate
        run = RunRequest(
            suite=self.suite, prompt=prompt, model=self.variant.model, adapter=self.variant.adapter, no_cache=True
        )
        return "run", run


class Schedule:
    """Submits what is due; used by every worker, as often as it likes."""

    def __init__(self, database: Database, gates: Gates) -> None:
        self._database = database
        self._gates = gates
        self._jobs = Jobs(database)
        self._told: set[str] = set()
        self._pushed_at: str | None = None
        self._scheduled: list[suites.Scheduled] = []

    def submit_due(self, at: datetime) -> list[str]:
        """Queue every job that is due at a time and not queued yet; returns their ids. Raises StorageFailed.

        What cannot be asked (a model that is gone, a case that no longer fits its prompt) is told once in the log.
        """
        return [job_id for due in self._due(at) if (job_id := self._submit(due))]

    def _submit(self, due: Due) -> str | None:
        """Raises StorageFailed; it is then asked again."""
        if due.job_id in self._told:
            return None
        with self._database.read() as session:
            if jobs.get(session, due.job_id) is not None:
                self._told.add(due.job_id)
                return None
        try:
            kind, spec = self._pinned(due)
        except StorageFailed:
            raise
        except TurnoutError as error:
            self._told.add(due.job_id)
            log.warning("a scheduled suite cannot be run", suite=due.suite, due=due.at.isoformat(), reason=str(error))
            return None
        self._jobs.submit(kind, spec, SCHEDULER, due.job_id)
        self._told.add(due.job_id)
        log.info("a scheduled suite is run", suite=due.suite, variant=str(due.variant), job=due.job_id)
        return due.job_id

    def _pinned(self, due: Due) -> tuple[Literal["run", "gate"], dict[str, Any]]:
        kind, request = due.request()
        job: GateJob | RunJob
        if isinstance(request, GateRequest):
            job = self._gates.pinned(request).model_copy(update={"is_scheduled": True})
        else:
            job = self._gates.pinned_run(request)
        return kind, job.model_dump(mode="json")

    def _due(self, at: datetime) -> Iterator[Due]:
        with self._database.read() as session:
            pushed_at = suites.last_push(session)
            if pushed_at != self._pushed_at:
                self._pushed_at, self._scheduled = pushed_at, suites.scheduled(session)
            scheduled = self._scheduled
            served = {one.prompt: next(iter(incumbents(session, one.prompt)), None) for one in scheduled}
        for one in scheduled:
            variant, when = served[one.prompt], last_time(one.schedule, at)
            since = max(datetime.fromisoformat(one.pushed_at), at - LATEST_AGO)
            if variant is not None and when >= since:
                yield Due(one.suite, variant, one.has_thresholds, when)


def last_time(schedule: str, at: datetime) -> datetime:
    """When a schedule was last due, at `at` at the latest; both UTC."""
    from croniter import croniter  # a tenth of a second: only where a suite has a schedule

    found: datetime = croniter(schedule, at.astimezone(UTC) + timedelta(seconds=1)).get_prev(datetime)
    return found
