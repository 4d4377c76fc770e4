"""Jobs: work that outlives the request that asked for it. Submitted here, done by a worker.

What is asked of a job that is there is done by `cancel`, `pause` and `resume`, for whichever API it is asked. Each leaves an
event of `ASKED`: a paused job is stored as a cancelled one, and the newest of them says which it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from service.errors import Conflict, NotFound
from service.fine_tuning.names import own_job_id
from service.identity import Principal
from service.ids import new_id, now
from service.store import jobs, runs
from service.store.database import Database
from service.store.session import Session

Kind = Literal["run", "matrix", "gate", "finetune", "calibration", "fine_tuning", "advice"]
ENDED = ("succeeded", "failed", "cancelled")
CANCELLED = "cancelled on request"
ASKED = ("paused", "resumed", "cancelling")


class Jobs:
    """The queue as its users see it. Every method is one transaction; a fine-tuning job is also found by its `ftjob-` id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(self, kind: Kind, spec: dict[str, Any], actor: Principal, job_id: str | None = None) -> dict[str, Any]:
        """Queue work; the same `job_id` again changes nothing and returns the job as it stands."""
        record = {"id": job_id or new_id("job"), "kind": kind, "spec": spec, "status": "queued"}
        with self._database.write() as session:
            return public(jobs.add(session, {**record, "created_by": actor.id, "created_at": now()}))

    def show(self, job_id: str) -> dict[str, Any]:
        """Raises NotFound."""
        with self._database.read() as session:
            return public(_known(session, job_id))

    def making(self, run_id: str) -> dict[str, Any]:
        """The job that makes a run: its own, a gate's or a fine-tune's. Raises NotFound, of the run where there is none."""
        with self._database.read() as session:
            record = jobs.get(session, job_id_of(run_id))
            if record is not None and (record["kind"] != "run" or run_id == run_id_of(record["id"])):
                return public(record)
            if runs.get(session, run_id) is not None:
                raise NotFound("job", job_id_of(run_id), f"run {run_id!r} was made without a service")
        raise NotFound("run", run_id, "`turnout run` says the id of a run, and GET /api/runs lists them")

    def listing(self, limit: int = 50, kind: str | None = None) -> list[dict[str, Any]]:
        """Newest first, without results but for their verdict: a job that succeeded may have refused."""
        with self._database.read() as session:
            found = jobs.listing(session, limit, kind)
        verdicts = [(record["result"] or {}).get("verdict") for record in found]
        return [
            {**public(record), "result": None, "verdict": verdict}
            for record, verdict in zip(found, verdicts, strict=True)
        ]

    def events(self, job_id: str, after: int = 0) -> list[dict[str, Any]]:
        """Events numbered above `after`, in order; at most 1,000."""
        with self._database.read() as session:
            return jobs.events(session, own_job_id(job_id), after)

    def cancel(self, job_id: str, actor: Principal) -> dict[str, Any]:
        """Ask for a job's end; one that has ended stays as it is. Raises NotFound, or Forbidden for another's unless admin."""
        with self._database.write() as session:
            return public(cancel(session, _own(session, job_id, actor)))

    def resume(self, job_id: str, actor: Principal) -> dict[str, Any]:
        """Queue a failed or cancelled job again: what it has done is not done twice. Raises as `cancel` does, and Conflict."""
        with self._database.write() as session:
            return public(resume(session, _own(session, job_id, actor), job_id))


def _known(session: Session, job_id: str, *, lock: bool = False) -> dict[str, Any]:
    record = jobs.get(session, own_job_id(job_id), lock=lock)
    if record is None:
        raise NotFound("job", job_id)
    return record


def _own(session: Session, job_id: str, actor: Principal) -> dict[str, Any]:
    """The job, locked."""
    record = _known(session, job_id, lock=True)
    actor.require_own(record["created_by"], f"job {job_id!r}", "change")
    return record


# ------------------------------------------------------------------------------------------------ what is asked of a job


def cancel(session: Session, record: dict[str, Any]) -> dict[str, Any]:
    """Ask for the end of a locked job, which a paused one comes to at once; one that has ended stays as it is."""
    asked = newest_asked(session, record["id"])
    if record["status"] in ENDED and not is_paused(record, asked):
        return record
    if asked == "paused" or (record["status"] == "running" and not record["cancel_requested"]):
        jobs.add_event(session, record["id"], "cancelling", {}, now())
    ended = jobs.end(session, record, now())
    if ended["status"] == "cancelled":  # no worker tells it
        jobs.add_event(session, record["id"], "cancelled", {"error": CANCELLED}, now())
    return ended


def pause(session: Session, record: dict[str, Any], called: str) -> dict[str, Any]:
    """Let a locked job, `called` so, end where it stands until it is resumed. Raises Conflict where it ends or has ended."""
    asked = newest_asked(session, record["id"])
    if is_paused(record, asked):
        return record
    if record["status"] in ENDED:
        raise Conflict(f"job {called!r} has ended: there is nothing to pause")
    if record["status"] == "running" and record["cancel_requested"]:
        if asked == "paused":
            return record
        raise Conflict(
            f"job {called!r} is being cancelled: there is nothing to pause; once it has ended it can be resumed"
        )
    jobs.add_event(session, record["id"], "paused", {}, now())
    return jobs.end(session, record, now())


def resume(session: Session, record: dict[str, Any], called: str) -> dict[str, Any]:
    """Queue a locked job, `called` so, again where it has ended; a live one stays as it is. Raises Conflict."""
    if record["status"] == "succeeded":
        raise Conflict(f"job {called!r} has succeeded: there is nothing to resume")
    if record["status"] == "running" and record["cancel_requested"]:
        raise Conflict(f"job {called!r} has not come to its end yet: resume it in a second")
    if record["status"] in jobs.LIVE:
        return record
    jobs.add_event(session, record["id"], "resumed", {}, now())
    return jobs.requeue(session, record)


def is_paused(record: Mapping[str, Any], asked: str) -> bool:
    """Whether a job waits to be resumed; `asked` is its newest event of `ASKED`."""
    return record["status"] == "cancelled" and asked == "paused"


def newest_asked(session: Session, job_id: str, before: int | None = None) -> str:
    """What was asked of a job last, by the events numbered below `before`; "" for nothing."""
    event = jobs.last_event(session, job_id, *ASKED, before=before)
    return event["type"] if event else ""


def public(record: dict[str, Any]) -> dict[str, Any]:
    """A job as the API shows it: without what only workers need."""
    hidden = ("token", "worker", "heartbeat_at", "spec", "cancel_requested", "id")
    spec = {name: value for name, value in record["spec"].items() if name not in ("examples", "labels")}
    shown = {name: value for name, value in record.items() if name not in hidden}
    return {"job_id": record["id"], **shown, "spec": spec, "cancelling": record["cancel_requested"]}


def job_id_of(run_id: str) -> str:
    """The id of the job that made a run: its own, a gate's or a fine-tune's."""
    return f"job_{run_id.partition('_')[2].partition('_')[0]}"


def run_id_of(job_id: str) -> str:
    """The id of the run that a run job makes."""
    return f"run_{job_id.partition('_')[2]}"


def calibration_id_of(job_id: str) -> str:
    """The id of the calibration that a job makes."""
    return f"cal_{job_id.partition('_')[2]}"
