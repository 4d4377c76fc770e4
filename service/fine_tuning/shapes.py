"""Records as OpenAI's objects, field by field as the `openai` package types them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from service.fine_tuning.names import public_job_id
from service.jobs import ENDED, is_paused

_UNTIL_PLANNED = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}


def seconds_of(at: str | None) -> int | None:
    """A time as Unix seconds."""
    return int(datetime.fromisoformat(at).timestamp()) if at else None


def page(items: Sequence[Mapping[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A page of a list."""
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return {"object": "list", "data": list(items), "first_id": first, "last_id": last, "has_more": has_more}


def file_object(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `stored_file`."""
    return {
        "id": record["id"],
        "object": "file",
        "bytes": record["size_bytes"],
        "created_at": seconds_of(record["created_at"]),
        "expires_at": seconds_of(record["expires_at"]),
        "filename": record["filename"],
        "purpose": record["purpose"],
        "status": record["status"],
        "status_details": record["status_details"],
    }


def status_of(record: Mapping[str, Any], asked: str, *, is_validated: bool, is_planned: bool) -> str:
    """A job's state; `asked` is what was asked of it last: a paused job waits, as one that is queued does."""
    status: str = record["status"]
    if status in ENDED:
        return "queued" if is_paused(record, asked) else status
    if not is_validated and not asked:
        return "validating_files"
    return "running" if status == "running" and is_planned else "queued"


def job_object(
    record: Mapping[str, Any],
    status: str,
    planned: Mapping[str, Any] | None,
    fault: Mapping[str, Any] | None,
    estimated_finish: int | None,
) -> dict[str, Any]:
    """A row of `job` with what its newest events say: `planned` and `fault` are the data of these."""
    spec, result = record["spec"], record["result"] or {}
    numbers = dict(planned["hyperparameters"]) if planned else _UNTIL_PLANNED | _given(spec["hyperparameters"])
    return {
        "id": public_job_id(record["id"]),
        "object": "fine_tuning.job",
        "created_at": seconds_of(record["created_at"]),
        "finished_at": seconds_of(record["finished_at"]) if status in ENDED else None,
        "model": spec["asked_model"],
        "fine_tuned_model": result.get("fine_tuned_model"),
        "organization_id": spec["organization"],
        "status": status,
        "hyperparameters": numbers,
        "method": {"type": "supervised", "supervised": {"hyperparameters": numbers}},
        "training_file": spec["training_file"],
        "validation_file": spec["validation_file"],
        "result_files": result.get("result_files", []),
        "trained_tokens": result.get("trained_tokens"),
        "error": _error(record, fault),
        "user_provided_suffix": spec["suffix"] or None,
        "seed": spec["seed"],
        "estimated_finish": estimated_finish,
        "integrations": [],
        "metadata": spec["metadata"],
    }


def _given(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in numbers.items() if value is not None}


def _error(record: Mapping[str, Any], fault: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if record["status"] != "failed":
        return None
    if fault is not None:
        return {"code": fault["code"], "message": fault["message"], "param": fault["param"]}
    return {"code": "server_error", "message": record["error"] or "the job failed", "param": None}


def checkpoint_object(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `tuned_model` that has a step."""
    short_id = record["job_id"].partition("_")[2]
    return {
        "id": f"ftckpt-{short_id}-{record['step']}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": seconds_of(record["created_at"]),
        "fine_tuned_model_checkpoint": record["name"],
        "fine_tuning_job_id": public_job_id(record["job_id"]),
        "metrics": record["metrics"],
        "step_number": record["step"],
    }


# ------------------------------------------------------------------------------------------------ events


def event_object(job_id: str, event: Mapping[str, Any]) -> dict[str, Any] | None:
    """A job's event in OpenAI's words; None for one that OpenAI's API has no like of."""
    level, message, metrics = _told(job_id, event)
    if not message:
        return None
    return {
        "id": event_id(job_id, event["number"]),
        "object": "fine_tuning.job.event",
        "created_at": seconds_of(event["at"]),
        "level": level,
        "message": message,
        "data": metrics,
        "type": "metrics" if metrics else "message",
    }


def event_id(job_id: str, number: int) -> str:
    """The id of a job's event, which tells its number."""
    return f"ftevent-{job_id.partition('_')[2]}-{number}"


def _told(job_id: str, event: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    kind, data = event["type"], event["data"]
    if kind == "training":
        return ("info", *_trained(data["event"]))
    if kind == "validated":
        both = data["in_both"]
        warns = f"; {both} of the validation file's examples stand in the training file, too" if both else ""
        return ("warn" if both else "info"), f"Files validated, moving job to queued state{warns}", {}
    if kind == "restarted":
        return "warn", f"The training process died (exit {data['exit']}) and goes on from its newest checkpoint", {}
    if kind == "failed":
        return "error", f"The job failed: {data.get('error')}", {}
    return "info", _MESSAGES.get(kind, "").format(id=public_job_id(job_id), **data), {}


_MESSAGES = {
    "created": "Created fine-tuning job: {id}",
    "planned": "Fine-tuning job started",
    "checkpoint": "Checkpoint created at step {step} with Snapshot ID: {name}",
    "model": "New fine-tuned model created: {name}",
    "paused": "The job is paused",
    "resumed": "The job is resumed",
    "succeeded": "The job has successfully completed",
    "cancelled": "The job was cancelled",
}


def _trained(event: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if event["type"] == "step":
        metrics = {"step": event["step"], "total_steps": event["of"], "train_loss": event["loss"]}
        return f"Step {event['step']}/{event['of']}: training loss={event['loss']:.2f}", metrics
    if event["type"] == "evaluated":
        metrics = {"step": event["step"], "train_loss": event["train_loss"], "full_valid_loss": event["dev_loss"]}
        metrics["full_valid_mean_token_accuracy"] = event.get("dev_token_accuracy")
        metrics["train_mean_token_accuracy"] = event.get("train_token_accuracy")
        said = f"Step {event['step']}: training loss={event['train_loss']:.2f}"
        return f"{said}, full validation loss={event['dev_loss']:.2f}", metrics
    return "", {}
