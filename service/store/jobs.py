"""Jobs: claimed by one worker at a time, with a token that fences out a worker that was thought dead."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from service.errors import Conflict
from service.store.records import without
from service.store.session import Session, listed
from service.store.tables import JOB, JOB_EVENT

LIVE = ("queued", "running")
_ALL = 2**31 - 1  # above every number of an event


def add(session: Session, record: dict[str, Any]) -> dict[str, Any]:
    """Write the job unless one with its id is there; returns it as it stands."""
    JOB.add(session, [record], once=True)
    return JOB.one(session, record["id"])


def get(session: Session, job_id: str, *, lock: bool = False) -> dict[str, Any] | None:
    return JOB.get(session, job_id, lock=lock)


def listing(session: Session, limit: int, kind: str | None = None) -> list[dict[str, Any]]:
    newest = "ORDER BY created_at DESC LIMIT :limit"
    if kind is None:
        return JOB.all(session, newest, limit=limit)
    return JOB.all(session, f"WHERE kind = :kind {newest}", kind=kind, limit=limit)


def page(session: Session, kind: str, after: dict[str, Any] | None, limit: int) -> list[dict[str, Any]]:
    """At most `limit` jobs of a kind that are older than the job `after`, newest first."""
    where, values = "kind = :kind", {"kind": kind, "limit": limit}
    if after is not None:
        where = f"{where} AND (created_at, id) < (:at, :id)"
        values |= {"at": after["created_at"], "id": after["id"]}
    return JOB.all(session, f"WHERE {where} ORDER BY created_at DESC, id DESC LIMIT :limit", **values)


def running(session: Session) -> list[dict[str, Any]]:
    """Jobs that some worker claimed and has not finished."""
    return JOB.all(session, "WHERE status = 'running'")


@dataclass(frozen=True, slots=True)
class Free:
    """Which jobs may be claimed: those that wait, and those whose worker is dead or silent since `stale_before`.

    `only` is the one job that is wanted, or None. Those of `worker`, who asks, are never silent: a machine that slept, or a
    clock that was set, makes its heartbeats old before it can write the next.
    """

    dead_workers: tuple[str, ...]
    stale_before: str
    only: str | None = None
    worker: str = ""

    @property
    def where(self) -> tuple[str, dict[str, Any]]:
        """What stands behind SELECT … FROM job, and its values."""
        values: dict[str, Any] = {"stale": self.stale_before, "own": self.worker}
        abandoned = "(heartbeat_at < :stale AND worker <> :own)"
        if self.dead_workers:
            workers, dead = listed("dead", self.dead_workers)
            abandoned, values = f"{abandoned} OR worker IN {workers}", values | dead
        found = f"WHERE (status = 'queued' OR (status = 'running' AND ({abandoned})))"
        return (f"{found} AND id = :only", values | {"only": self.only}) if self.only else (found, values)


def has_free(session: Session, free: Free) -> bool:
    """Whether a claim would find something: asked often, and takes no lock."""
    where, values = free.where
    return session.row(f"SELECT id FROM job {where} LIMIT 1", **values) is not None


def claim(session: Session, worker: str, at: str, free: Free) -> dict[str, Any] | None:
    """Take the oldest free job for `worker`; its token grows by one."""
    where, values = free.where
    row = JOB.first(session, f"{where} ORDER BY created_at LIMIT 1{session.skip_locked}", **values)
    if row is None:
        return None
    taken = {"status": "running", "worker": worker, "heartbeat_at": at, "token": row["token"] + 1}
    taken["started_at"] = row["started_at"] or at
    return _changed(session, row, **taken)


def heartbeat(session: Session, job_id: str, token: int, at: str) -> bool:
    """False where the job is no longer this worker's. Returns whether work may go on."""
    where = "id = :id AND token = :token AND status = 'running'"
    return session.run(f"UPDATE job SET heartbeat_at = :at WHERE {where}", id=job_id, token=token, at=at) > 0


def require_claim(session: Session, job_id: str, token: int) -> None:
    """Lock the job; raises Conflict where another worker has taken it meanwhile."""
    if _claimed(session, job_id, token) is None:
        raise Conflict(f"job {job_id!r} was taken over by another worker")


def _claimed(session: Session, job_id: str, token: int) -> dict[str, Any] | None:
    """The job, locked; None where it is not, or no longer, this claim's."""
    row = JOB.get(session, job_id, lock=True)
    return row if row is not None and (row["token"], row["status"]) == (token, "running") else None


def _changed(session: Session, row: dict[str, Any], **columns: Any) -> dict[str, Any]:
    JOB.set(session, row["id"], **columns)
    return {**row, **columns}


def finish(session: Session, job_id: str, token: int, outcome: dict[str, Any]) -> None:
    """Close the job with `status`, `result`, `error` and `finished_at`; raises Conflict for a fenced-out worker."""
    require_claim(session, job_id, token)
    ended = {name: outcome.get(name) for name in ("status", "result", "error", "finished_at")}
    JOB.set(session, job_id, **ended, worker=None)


def release(session: Session, job_id: str, token: int) -> None:
    """Put a claimed job back into the queue: a worker that stops in order does this."""
    if _claimed(session, job_id, token) is not None:
        JOB.set(session, job_id, status="queued", worker=None)


def end(session: Session, row: dict[str, Any], at: str) -> dict[str, Any]:
    """Cancel a locked job: a running one ends when its worker sees it, any other at once."""
    if row["status"] == "running":
        return _changed(session, row, cancel_requested=True)
    return _changed(session, row, status="cancelled", finished_at=at)


def requeue(session: Session, row: dict[str, Any]) -> dict[str, Any]:
    """Queue a locked job, which has ended, again as its next attempt."""
    anew: dict[str, Any] = {"status": "queued", "attempt": row["attempt"] + 1, "cancel_requested": False}
    return _changed(session, row, **anew, error=None, result=None, finished_at=None)


def add_event(session: Session, job_id: str, kind: str, data: dict[str, Any], at: str) -> None:
    JOB.get(session, job_id, lock=True)  # numbers events of one job one after another
    last = session.value("SELECT max(number) FROM job_event WHERE job_id = :id", id=job_id) or 0
    JOB_EVENT.add(session, [{"job_id": job_id, "number": last + 1, "at": at, "type": kind, "data": data}])


def has_event(session: Session, job_id: str, kind: str, data: dict[str, Any]) -> bool:
    """Whether an equal event of this job is there already."""
    found = JOB_EVENT.all(session, "WHERE job_id = :id AND type = :kind", id=job_id, kind=kind)
    stored = json.loads(json.dumps(data))  # as it comes back: tuples are lists
    return any(event["data"] == stored for event in found)


def events(session: Session, job_id: str, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
    where = "WHERE job_id = :id AND number > :after ORDER BY number LIMIT :limit"
    found = JOB_EVENT.all(session, where, id=job_id, after=after, limit=limit)
    return [without(event, "job_id") for event in found]


def events_before(session: Session, job_id: str, before: int | None, limit: int) -> list[dict[str, Any]]:
    """Events numbered below `before`, or all, newest first."""
    where = "WHERE job_id = :id AND number < :before ORDER BY number DESC LIMIT :limit"
    found = JOB_EVENT.all(session, where, id=job_id, before=_ALL if before is None else before, limit=limit)
    return [without(event, "job_id") for event in found]


def last_event(session: Session, job_id: str, *kinds: str, before: int | None = None) -> dict[str, Any] | None:
    """The newest event of one of these kinds, numbered below `before` where that is given."""
    among, values = listed("kind", kinds)
    where = f"WHERE job_id = :id AND number < :before AND type IN {among} ORDER BY number DESC LIMIT 1"
    return JOB_EVENT.first(session, where, id=job_id, before=_ALL if before is None else before, **values)
