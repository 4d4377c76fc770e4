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
from service.settings import Settings
from service.tuning.claim import Claim

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
def _train(job_id: str, attempt: int, train_at: list[int]) -> dict[str, Any]:
    return fallback.run_training(_claims[job_id], attempt, train_at)


@DBOS.step()
def _install(job_id: str, attempt: int) -> dict[str, Any]:
    return fallback.install(_claims[job_id], attempt)


@DBOS.step()
def _score_dev(job_id: str, attempt: int, known_before: int | None) -> dict[str, Any]:
    return fallback.score_dev(_claims[job_id], attempt, known_before)


@DBOS.step()
def _take_look(job_id: str, attempt: int) -> dict[str, Any]:
    return fallback.take_look(_claims[job_id], attempt)


@DBOS.step()
def _run_heldout(job_id: str, attempt: int, variant: str) -> dict[str, Any]:
    return fallback.run_heldout(_claims[job_id], attempt, variant)


@DBOS.step()
def _decide(job_id: str, attempt: int, look: dict[str, Any]) -> dict[str, Any]:
    return fallback.decide(_claims[job_id], attempt, look)


@DBOS.step()
def _reflect(job_id: str, attempt: int, tried: list[dict[str, Any]], planned: dict[str, Any]) -> dict[str, Any]:
    return fallback.reflect(_claims[job_id], attempt, tried, planned)


@DBOS.step()
def _move_route(job_id: str, attempt: int, evidence_id: str, rivals: list[str]) -> dict[str, Any]:
    return fallback.move_route(_claims[job_id], attempt, evidence_id, rivals)


@DBOS.workflow()
def finetune_workflow(job_id: str) -> dict[str, Any]:
    """One fine-tune from its examples to the route, or to the plain word that it did not help."""
    planned = _plan(job_id)
    if planned.get("refused"):
        return _result(planned, [], verdict="refused", reasons=planned["refused"])
    if planned["dry_run"]:
        return _result(planned, [], verdict="planned", reasons=["a dry run: nothing was trained"])
    tried: list[dict[str, Any]] = []
    for attempt in range(1, planned["budget"]["attempts"] + 1):
        tried.append(_attempt(job_id, attempt, planned, tried))
        if tried[-1]["verdict"] in ("pass", "refused"):
            break
        tried[-1]["diagnosis"] = _reflect(job_id, attempt, tried, planned)
        if not tried[-1]["diagnosis"]["again"]:
            break
    return _result(planned, tried, **_routed(job_id, tried[-1], len(tried)))


def _attempt(job_id: str, attempt: int, planned: dict[str, Any], former: list[dict[str, Any]]) -> dict[str, Any]:
    """One training and, where dev shows a gain, one look at the held-out cases."""
    trained = _train(job_id, attempt, planned["train_at"])
    if trained["type"] != "finished":
        return {"verdict": trained["type"], "reasons": trained["reasons"]}
    installed = _install(job_id, attempt)
    known = next((one["dev"]["before"] for one in former if "dev" in one), None)
    dev = _score_dev(job_id, attempt, known)
    found = {name: installed[name] for name in ("adapter", "recipe", "scores")}
    found |= {"seconds": trained["seconds"], "dev": dev}
    if dev["after"] <= dev["before"]:
        reason = f"no gain on dev: {dev['before']} of {dev['total']} before, {dev['after']} after; no look was spent"
        return {**found, "verdict": "no_gain", "reasons": [reason]}
    look = _take_look(job_id, attempt)
    befores = [_run_heldout(job_id, attempt, rival) for rival in look["rivals"]]
    after = _run_heldout(job_id, attempt, fallback.candidate(_claims[job_id], attempt))
    decision = _decide(job_id, attempt, look)
    return {**found, **decision, **look, "before": _compared(befores, decision), "after": after}


def _compared(befores: list[dict[str, Any]], decision: dict[str, Any]) -> dict[str, Any]:
    """The run of the rival that decided; of a decision from before rivals were named, the prompt's alone."""
    return next((run for run in befores if run["variant"] == decision.get("against")), befores[0])


def _routed(job_id: str, last: dict[str, Any], attempt: int) -> dict[str, Any]:
    """What the last attempt comes to: where it passed, the route moves."""
    shown = {name: last[name] for name in _SHOWN if name in last}
    if last["verdict"] != "pass":
        return shown
    routed = _move_route(job_id, attempt, last["evidence_id"], last["rivals"])
    shown |= {"routed": routed, "route": routed["variants"]}
    if routed["variants"] is None:
        shown["reasons"] = [*last["reasons"], f"the route did not move: {routed['reason']}"]
    return shown


_SHOWN = ("verdict", "reasons", "adapter", "evidence_id", "before", "after", "dev", "p_value", "alpha", "alpha_left",
          "against", "newly_broken", "newly_mended")  # fmt: skip
_OF_AN_ATTEMPT = (
    "verdict",
    "reasons",
    "adapter",
    "evidence_id",
    "recipe",
    "scores",
    "seconds",
    "dev",
    "look",
    "diagnosis",
)


def _result(planned: dict[str, Any], tried: list[dict[str, Any]], **known: Any) -> dict[str, Any]:
    blank = {"adapter": None, "evidence_id": None, "before": None, "after": None, "route": None}
    attempts = [{name: one[name] for name in _OF_AN_ATTEMPT if name in one} for one in tried]
    return {**blank, "planned": planned, "attempts": attempts, **known}


class Durable:
    """DBOS in this worker, with a queue of its own and its own name as executor."""

    def __init__(self, settings: Settings, worker_id: str) -> None:
        self._queue = f"worker-{worker_id}"
        config: DBOSConfig = {
            "name": "turnout",
            "system_database_url": settings.jobs_url.replace("postgresql+psycopg://", "postgresql://", 1),
            "executor_id": worker_id,
            "application_version": "2",
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
