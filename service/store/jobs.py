"""Jobs: claimed by one worker at a time, with a token that fences out a worker that was thought dead."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from service.errors import Conflict
from service.store.tables import Job, JobEvent

LIVE = ("queued", "running")


def add(session: Session, record: dict[str, Any]) -> dict[str, Any]:
    """Write the job unless one with its id is there; returns it as it stands."""
    row = session.get(Job, record["id"])
    if row is None:
        row = Job(**record)
        session.add(row)
        session.flush()
    return row.model_dump()


def get(session: Session, job_id: str) -> dict[str, Any] | None:
    row = session.get(Job, job_id)
    return row.model_dump() if row else None


def listing(session: Session, limit: int, kind: str | None = None) -> list[dict[str, Any]]:
    query = select(Job).order_by(col(Job.created_at).desc()).limit(limit)
    if kind is not None:
        query = query.where(Job.kind == kind)
    return [row.model_dump() for row in session.exec(query)]


def running(session: Session) -> list[dict[str, Any]]:
    """Jobs that some worker claimed and has not finished."""
    return [row.model_dump() for row in session.exec(select(Job).where(Job.status == "running"))]


@dataclass(frozen=True, slots=True)
class Free:
    """Which jobs may be claimed: those that wait, and those whose worker is dead or silent since `stale_before`.

    `only` is the one job that is wanted, or None.
    """

    dead_workers: tuple[str, ...]
    stale_before: str
    only: str | None = None

    @property
    def query(self) -> SelectOfScalar[Job]:
        abandoned = or_(col(Job.worker).in_(self.dead_workers), col(Job.heartbeat_at) < self.stale_before)
        found = select(Job).where(or_(col(Job.status) == "queued", (col(Job.status) == "running") & abandoned))
        return found.where(Job.id == self.only) if self.only else found


def has_free(session: Session, free: Free) -> bool:
    """Whether a claim would find something: asked often, and takes no lock."""
    return session.exec(free.query.limit(1)).first() is not None


def claim(session: Session, worker: str, at: str, free: Free) -> dict[str, Any] | None:
    """Take the oldest free job for `worker`; its token grows by one."""
    row = session.exec(free.query.order_by(col(Job.created_at)).limit(1).with_for_update(skip_locked=True)).first()
    if row is None:
        return None
    row.status, row.worker, row.heartbeat_at = "running", worker, at
    row.started_at = row.started_at or at
    row.token += 1
    session.add(row)
    session.flush()
    return row.model_dump()


def heartbeat(session: Session, job_id: str, token: int, at: str) -> bool:
    """False where the job is no longer this worker's. Returns whether work may go on."""
    row = session.get(Job, job_id, with_for_update=True)
    if row is None or row.token != token or row.status != "running":
        return False
    row.heartbeat_at = at
    session.add(row)
    return True


def require_claim(session: Session, job_id: str, token: int) -> Job:
    """The job, locked; raises Conflict where another worker has taken it meanwhile."""
    row = session.get(Job, job_id, with_for_update=True)
    if row is None or row.token != token or row.status != "running":
        raise Conflict(f"job {job_id!r} was taken over by another worker")
    return row


def finish(session: Session, job_id: str, token: int, outcome: dict[str, Any]) -> None:
    """Close the job with `status`, `result`, `error` and `finished_at`; raises Conflict for a fenced-out worker."""
    row = require_claim(session, job_id, token)
    for name in ("status", "result", "error", "finished_at"):
        setattr(row, name, outcome.get(name))
    row.worker = None
    session.add(row)


def release(session: Session, job_id: str, token: int) -> None:
    """Put a claimed job back into the queue: a worker that stops in order does this."""
    row = session.get(Job, job_id, with_for_update=True)
    if row is not None and row.token == token and row.status == "running":
        row.status, row.worker = "queued", None
        session.add(row)


def request_cancel(session: Session, job_id: str, at: str) -> dict[str, Any] | None:
    """Ask for the end of a job: a waiting one ends at once, a running one when its worker sees it."""
    row = session.get(Job, job_id, with_for_update=True)
    if row is None:
        return None
    if row.status == "queued":
        row.status, row.finished_at = "cancelled", at
    elif row.status == "running":
        row.cancel_requested = True
    session.add(row)
    session.flush()
    return row.model_dump()


def requeue(session: Session, job_id: str) -> dict[str, Any] | None:
    """Queue an ended job again as its next attempt; a live one stays as it is."""
    row = session.get(Job, job_id, with_for_update=True)
    if row is None:
        return None
    if row.status == "succeeded":
        raise Conflict(f"job {job_id!r} has succeeded: there is nothing to resume")
    if row.status not in LIVE:
        row.status, row.attempt = "queued", row.attempt + 1
        row.cancel_requested, row.error, row.result, row.finished_at = False, None, None, None
        session.add(row)
        session.flush()
    return row.model_dump()


def add_event(session: Session, job_id: str, kind: str, data: dict[str, Any], at: str) -> None:
    session.get(Job, job_id, with_for_update=True)  # numbers events of one job one after another
    last = session.exec(select(func.max(JobEvent.number)).where(JobEvent.job_id == job_id)).one()
    session.add(JobEvent(job_id=job_id, number=(last or 0) + 1, at=at, type=kind, data=data))
    session.flush()


def has_event(session: Session, job_id: str, kind: str, data: dict[str, Any]) -> bool:
    """Whether an equal event of this job is there already."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.type == kind)
    stored = json.loads(json.dumps(data))  # as it comes back: tuples are lists
    return any(row.data == stored for row in session.exec(query))


def events(session: Session, job_id: str, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
    query = (
        select(JobEvent)
        .where(JobEvent.job_id == job_id, JobEvent.number > after)
        .order_by(col(JobEvent.number))
        .limit(limit)
    )
    return [row.model_dump(exclude={"job_id"}) for row in session.exec(query)]
