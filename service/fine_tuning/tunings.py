"""Fine-tuning jobs and the models that come of them, as OpenAI's API has them. Every method is one transaction, or two."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from prompts.errors import BadInput
from service.errors import Conflict, FineTuneNotFound, NoSuchFile, NotFound
from service.fine_tuning import shapes
from service.fine_tuning.files import FINE_TUNE, Files
from service.fine_tuning.names import PREFIX, own_job_id
from service.fine_tuning.request import CreateJob, spec_of
from service.identity import Principal
from service.ids import new_id, now
from service.jobs import ENDED, cancel, newest_asked, pause, resume
from service.settings import Settings
from service.store import jobs, tuned
from service.store.database import Database, bump_revision
from service.store.session import Session

KIND = "fine_tuning"
_BATCH = 200


class FineTunings:
    """The jobs of one database."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._files = Files(database)

    # ---------------------------------------------------------------------------- jobs

    def create(self, body: CreateJob, actor: Principal, stable_id: str | None = None) -> dict[str, Any]:
        """Queue a job; the same `stable_id` again gives the job that is there. Raises a BadInput that names its field."""
        spec = spec_of(self._settings, body)
        self._require_file(spec.training_file, "training_file")
        if spec.validation_file is not None:
            self._require_file(spec.validation_file, "validation_file")
        job_id, at = f"job_{stable_id}" if stable_id else new_id("job"), now()
        record = {"id": job_id, "kind": KIND, "spec": spec.model_dump(mode="json"), "status": "queued"}
        with self._database.write() as session:
            if jobs.get(session, job_id) is None:
                jobs.add(session, {**record, "created_by": actor.id, "created_at": at})
                jobs.add_event(session, job_id, "created", {}, at)
            return _shown(session, jobs.get(session, job_id) or {})

    def show(self, job_id: str) -> dict[str, Any]:
        """Raises FineTuneNotFound."""
        with self._database.read() as session:
            return _shown(session, _record(session, job_id))

    def page(self, *, after: str | None, limit: int, metadata: Mapping[str, str] | None) -> dict[str, Any]:
        """Jobs behind the job `after`, newest first; `metadata` are pairs that they hold, {} for none at all, None for any."""
        with self._database.read() as session:
            behind = _record(session, after) if after else None
            found: list[dict[str, Any]] = []
            while len(found) <= limit:
                batch = jobs.page(session, KIND, behind, _BATCH)
                found += [record for record in batch if _holds(record["spec"]["metadata"], metadata)]
                if len(batch) < _BATCH:
                    break
                behind = batch[-1]
            shown = [_shown(session, record) for record in found[:limit]]
        return shapes.page(shown, has_more=len(found) > limit)

    def cancel(self, job_id: str, actor: Principal) -> dict[str, Any]:
        """Ask for a job's end. Raises FineTuneNotFound, Conflict where it has ended, Forbidden for another's."""
        with self._database.write() as session:
            record = _own(session, job_id, actor)
            if _status(session, record) in ENDED:
                raise Conflict(f"fine-tuning job {job_id!r} has ended: there is nothing to cancel")
            return _shown(session, cancel(session, record))

    def pause(self, job_id: str, actor: Principal) -> dict[str, Any]:
        """Let a job keep its newest checkpoint and wait for `resume`. Raises as `cancel` does, also where it is being cancelled."""
        with self._database.write() as session:
            return _shown(session, pause(session, _own(session, job_id, actor), job_id))

    def resume(self, job_id: str, actor: Principal) -> dict[str, Any]:
        """Go on with a paused, failed or cancelled job where it stood. Raises FineTuneNotFound, Conflict, Forbidden."""
        with self._database.write() as session:
            return _shown(session, resume(session, _own(session, job_id, actor), job_id))

    def _require_file(self, file_id: str, param: str) -> None:
        try:
            purpose = self._files.show(file_id)["purpose"]
        except NoSuchFile as error:
            raise BadInput(f"{param}: {error}", param=param) from error
        if purpose != FINE_TUNE:
            raise BadInput(f"{param}: file {file_id} has the purpose {purpose!r}, not {FINE_TUNE!r}", param=param)

    # ---------------------------------------------------------------------------- what is told of them

    def events(self, job_id: str, *, after: str | None, limit: int) -> dict[str, Any]:
        """Events behind the event `after`, newest first, as OpenAI lists them."""
        own = own_job_id(job_id)
        before = _number_of(own, after)
        found: list[dict[str, Any]] = []
        with self._database.read() as session:
            _record(session, job_id)
            while len(found) <= limit:
                batch = jobs.events_before(session, own, before, _BATCH)
                told = (event for event in batch if not _is_pause(session, own, event))
                found += [shown for event in told if (shown := shapes.event_object(own, event))]
                if len(batch) < _BATCH:
                    break
                before = batch[-1]["number"]
        return shapes.page(found[:limit], has_more=len(found) > limit)

    def checkpoints(self, job_id: str, *, after: str | None, limit: int) -> dict[str, Any]:
        """A job's checkpoints that are served, the newest first. Raises BadInput for an `after` that is none of them."""
        with self._database.read() as session:
            record = _record(session, job_id)
            named = tuned.of_job(session, record["id"])
        shown = [shapes.checkpoint_object(one) for one in named if one["step"] is not None]
        if after is not None:
            ids = [one["id"] for one in shown]
            if after not in ids:
                raise BadInput(
                    f"after: {after[:80]!r} is no checkpoint that this job has: begin the list anew", param="after"
                )
            shown = shown[ids.index(after) + 1 :]
        return shapes.page(shown[:limit], has_more=len(shown) > limit)

    # ---------------------------------------------------------------------------- models

    def delete_model(self, name: str, actor: Principal) -> None:
        """Serve an `ft:` name no longer. Raises NotFound, BadInput for what is no such name, Forbidden for another's."""
        if not name.startswith(PREFIX):
            raise BadInput(f"model {name[:100]!r}: only fine-tuned models ({PREFIX}…) can be deleted", param="model")
        with self._database.write() as session:
            record = tuned.get(session, name)
            if record is None:
                raise NotFound("model", name, "`GET /v1/models` lists those that there are")
            actor.require_own(record["created_by"], f"model {name!r}", "delete")
            tuned.remove(session, name)
            bump_revision(session)


def _record(session: Session, job_id: str, *, lock: bool = False) -> dict[str, Any]:
    record = jobs.get(session, own_job_id(job_id), lock=lock)
    if record is None or record["kind"] != KIND:
        raise FineTuneNotFound("fine-tuning job", job_id, "`GET /v1/fine_tuning/jobs` lists those that there are")
    return record


def _own(session: Session, job_id: str, actor: Principal) -> dict[str, Any]:
    """The job, locked, where `actor` may change it."""
    record = _record(session, job_id, lock=True)
    actor.require_own(record["created_by"], f"fine-tuning job {job_id!r}", "change")
    return record


def _status(session: Session, record: dict[str, Any]) -> str:
    told = {f"is_{kind}": jobs.last_event(session, record["id"], kind) is not None for kind in ("validated", "planned")}
    return shapes.status_of(record, newest_asked(session, record["id"]), **told)


def _shown(session: Session, record: dict[str, Any]) -> dict[str, Any]:
    job_id = record["id"]
    planned = jobs.last_event(session, job_id, "planned")
    fault = jobs.last_event(session, job_id, "fault") if record["status"] == "failed" else None
    finish = None
    if planned is not None and record["status"] == "running":
        finish = _estimated_finish(planned, jobs.last_event(session, job_id, "training"))
    data = [event["data"] if event else None for event in (planned, fault)]
    return shapes.job_object(record, _status(session, record), data[0], data[1], finish)


def _estimated_finish(planned: Mapping[str, Any], newest: Mapping[str, Any] | None) -> int:
    """Unix seconds: by the pace since training began where a step was told last, else as the plan has it."""
    began = datetime.fromisoformat(planned["at"]).timestamp()
    event = newest["data"]["event"] if newest else {}
    if newest is None or event.get("type") != "step":
        return round(began + float(planned["data"]["training_s"]))
    at = datetime.fromisoformat(newest["at"]).timestamp()
    return round(at + (at - began) * (int(event["of"]) - int(event["step"])) / int(event["step"]))


def _holds(found: Mapping[str, str] | None, wanted: Mapping[str, str] | None) -> bool:
    if wanted is None:
        return True
    return not found if not wanted else all((found or {}).get(name) == value for name, value in wanted.items())


def _number_of(job_id: str, event_id: str | None) -> int | None:
    if event_id is None:
        return None
    number = event_id.rpartition("-")[2]
    is_number = number.isascii() and number.isdigit() and len(number) < 10
    if not is_number or event_id != shapes.event_id(job_id, int(number)):
        raise BadInput(f"after: {event_id[:80]!r} is no event of this job: give an id of its list", param="after")
    return int(number)


def _is_pause(session: Session, job_id: str, event: Mapping[str, Any]) -> bool:
    """Whether this is the end that a pause comes to, which was told as a pause."""
    return event["type"] == "cancelled" and newest_asked(session, job_id, before=event["number"]) == "paused"
