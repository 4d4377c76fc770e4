"""Jobs: work that outlives the request that asked for it. Submitted here, done by a worker."""

from __future__ import annotations

from typing import Any, Literal

from service.errors import Forbidden, NotFound
from service.identity import Principal
from service.ids import new_id, now
from service.store import jobs
from service.store.database import Database

Kind = Literal["run", "matrix", "gate", "finetune", "calibration", "fine_tuning", "advice"]
ENDED = ("succeeded", "failed", "cancelled")
CANCELLED = "cancelled on request"


class Jobs:
    """The queue as its users see it. Every method is one transaction."""

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
            record = jobs.get(session, job_id)
        if record is None:
            raise NotFound("job", job_id)
        return public(record)

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
            return jobs.events(session, job_id, after)

    def cancel(self, job_id: str, actor: Principal) -> dict[str, Any]:
        """Ask for a job's end. Raises NotFound, or Forbidden for another's job unless admin."""
        self._require_own(job_id, actor)
        with self._database.write() as session:
            before = jobs.get(session, job_id)
            record = jobs.request_cancel(session, job_id, now())
            if before is not None and before["status"] == "queued" and record is not None and record["status"] in ENDED:
                jobs.add_event(session, job_id, "cancelled", {"error": CANCELLED}, now())  # no worker tells it
        if record is None:
            raise NotFound("job", job_id)
        return public(record)

    def resume(self, job_id: str, actor: Principal) -> dict[str, Any]:
        """Queue a failed or cancelled job again: what it has done is not done twice."""
        self._require_own(job_id, actor)
        with self._database.write() as session:
            record = jobs.requeue(session, job_id)
        if record is None:
            raise NotFound("job", job_id)
        return public(record)

    def _require_own(self, job_id: str, actor: Principal) -> None:
        job = self.show(job_id)
        if job["created_by"] != actor.id and not actor.may("admin"):
            raise Forbidden(f"job {job_id!r} is another's: only an admin may change it")


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
