"""The fallback as a DBOS workflow: each step's result is recorded, so that a kill at any point resumes there.

Imported by workers alone. A workflow runs only in the worker that holds the job's claim: it is started, or resumed
onto that worker's own queue, by `run_durably`.
"""

from __future__ import annotations

import json
from typing import Any

from dbos import DBOS, DBOSConfig, SetWorkflowID
from dbos._serialization import Serializer  # it has no public home; the default one is pickle

from service import fallback
from service.fallback import Claim
from service.settings import Settings

POLL_S = 0.1
_claims: dict[str, Claim] = {}


class JSONSerializer(Serializer):
    """Plain JSON: a database that somebody else wrote to can put no code into a worker."""

    def serialize(self, data: Any) -> str:
        if isinstance(data, BaseException):
            data = {"error": type(data).__name__, "message": str(data)}
        return json.dumps(data)

    def deserialize(self, serialized_data: str) -> Any:
        data = json.loads(serialized_data)
        if isinstance(data, dict) and data.keys() == {"error", "message"}:
            return StepFailed(f"{data['error']}: {data['message']}")
        return data

    def name(self) -> str:
        return "turnout_json"


class StepFailed(Exception):
    """A step's error as it was recorded; the live error is raised where the step ran."""


@DBOS.step()
def _plan(job_id: str) -> dict[str, Any]:
    return fallback.plan(_claims[job_id])


@DBOS.step()
def _train(job_id: str) -> dict[str, Any]:
    return fallback.run_training(_claims[job_id])


@DBOS.step()
def _install(job_id: str) -> dict[str, Any]:
    return fallback.install(_claims[job_id])


@DBOS.step()
def _score_dev(job_id: str) -> dict[str, Any]:
    return fallback.score_dev(_claims[job_id])


@DBOS.step()
def _take_look(job_id: str) -> dict[str, Any]:
    return fallback.take_look(_claims[job_id])


@DBOS.step()
def _run_heldout(job_id: str, variant: str, name: str) -> dict[str, Any]:
    return fallback.run_heldout(_claims[job_id], variant, name)


@DBOS.step()
def _decide(job_id: str, look: dict[str, Any]) -> dict[str, Any]:
    return fallback.decide(_claims[job_id], look)


@DBOS.step()
def _move_route(job_id: str, evidence_id: str, rivals: list[str]) -> dict[str, Any]:
    return fallback.move_route(_claims[job_id], evidence_id, rivals)


@DBOS.workflow()
def finetune_workflow(job_id: str) -> dict[str, Any]:
    """One fine-tune from its examples to the route, or to the plain word that it did not help."""
    planned = _plan(job_id)
    if planned.get("refused"):
        return _result(planned, verdict="refused", reasons=planned["refused"])
    claim = _claims[job_id]
    work = fallback.material(claim)
    if work.spec.dry_run:
        return _result(planned, verdict="planned", reasons=["a dry run: nothing was trained"])
    trained = _train(job_id)
    if trained["type"] == "refused":
        return _result(planned, verdict="refused", reasons=trained["reasons"])
    adapter = _install(job_id)["adapter"]
    dev = _score_dev(job_id)
    if dev["after"] <= dev["before"]:
        reason = f"no gain on dev: {dev['before']} of {dev['total']} before, {dev['after']} after; no look was spent"
        return _result(planned, verdict="no_gain", reasons=[reason], adapter=adapter, dev=dev)
    look = _take_look(job_id)
    befores = [_run_heldout(job_id, rival, fallback.run_name(i)) for i, rival in enumerate(look["rivals"])]
    after = _run_heldout(job_id, str(work.after), "after")
    decision = _decide(job_id, look)
    result = _result(planned, **decision, adapter=adapter, dev=dev, before=befores[0], after=after)
    if decision["verdict"] == "pass":
        result["routed"] = _move_route(job_id, decision["evidence_id"], look["rivals"])
        result["route"] = result["routed"]["variants"]
        if result["route"] is None:
            result["reasons"] = [*result["reasons"], f"the route did not move: {result['routed']['reason']}"]
    return result


def _result(planned: dict[str, Any], **known: Any) -> dict[str, Any]:
    blank = {"adapter": None, "evidence_id": None, "before": None, "after": None, "route": None}
    kept = {name: planned[name] for name in ("examples", "train", "dev", "recipe", "plan") if name in planned}
    return {**blank, "planned": kept, **known}


class Durable:
    """DBOS in this worker, with a queue of its own and its own name as executor."""

    def __init__(self, settings: Settings, worker_id: str) -> None:
        self._queue = f"worker-{worker_id}"
        config: DBOSConfig = {
            "name": "turnout",
            "system_database_url": settings.jobs_url.replace("postgresql+psycopg://", "postgresql://", 1),
            "executor_id": worker_id,
            "application_version": "1",
            "serializer": JSONSerializer(),
            "log_level": "ERROR",
            "use_listen_notify": False,
            "enable_otlp": False,
        }
        DBOS(config=config)
        DBOS.listen_queues([self._queue])
        DBOS.launch()
        DBOS.register_queue(self._queue, polling_interval_sec=POLL_S)

    def run(self, claim: Claim, attempt: int) -> dict[str, Any]:
        """Start this attempt's workflow, or resume it where a dead worker left it; returns its result."""
        workflow_id = f"{claim.job_id}.{attempt}"
        _claims[claim.job_id] = claim
        try:
            if DBOS.get_workflow_status(workflow_id) is None:
                with SetWorkflowID(workflow_id):
                    handle = DBOS.start_workflow(finetune_workflow, claim.job_id)
            else:
                handle = DBOS.resume_workflow(workflow_id, queue_name=self._queue)
            result: dict[str, Any] = handle.get_result(polling_interval_sec=POLL_S)
            return result
        finally:
            _claims.pop(claim.job_id, None)

    def close(self) -> None:
        DBOS.delete_queue(self._queue)
        DBOS.destroy()
