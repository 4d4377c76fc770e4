"""A job's curves for TensorBoard and MLflow, from its events: for jobs under way, as they come, and for those that have ended."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from prompts.errors import BadInput
from service.errors import CannotRun

_OF_STEP = {
    "loss": "train/loss",
    "lr": "train/lr",
    "tokens_per_s": "train/tokens_per_s",
    "memory_bytes": "train/memory_bytes",
}
_OF_EVALUATION = {
    "dev_loss": "dev/loss",
    "dev_exact": "dev/exact",
    "dev_token_accuracy": "dev/token_accuracy",
    "train_token_accuracy": "train/token_accuracy",
}
_SUFFIX = ".turnout"  # of our event files, so that an export that is made again replaces its own alone
_LONGEST_PARAM = 500  # characters, of every MLflow server
_ID_TAG = "turnout.job_id"
_ENDS = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}  # a job's last event, and MLflow's state
Take = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Scalar:
    """One figure of one training run (`seed-0`, `trial-1-2`) at one of its steps."""

    run: str
    name: str
    step: int
    value: float
    at_s: float


def scalars(event: Mapping[str, Any]) -> Iterator[Scalar]:
    """The figures that a job's event holds, if any."""
    inner = event["data"].get("event") if event["type"] == "training" else None
    names = {"step": _OF_STEP, "evaluated": _OF_EVALUATION}.get(inner["type"], {}) if inner else {}
    if not inner or not names:
        return
    attempt = event["data"].get("attempt", 1)
    run = inner["run"] if attempt == 1 else f"attempt-{attempt}-{inner['run']}"
    at_s = datetime.fromisoformat(event["at"]).timestamp()
    for key, name in names.items():
        if inner.get(key) is not None:
            yield Scalar(run, name, inner["step"], float(inner[key]), at_s)


# ------------------------------------------------------------------------------------------------ TensorBoard


@contextmanager
def tensorboard(folder: Path, job_id: str) -> Iterator[Take]:
    """Writes event files to `folder/JOB/RUN`, in place of those of an earlier export of the job.

    Raises BadInput where TensorBoard's writer is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise BadInput(f"--tensorboard: {error}; install `turnout[tensorboard]`", param="tensorboard") from error
    writers: dict[str, Any] = {}

    def take(event: dict[str, Any]) -> None:
        for one in scalars(event):
            if one.run not in writers:
                place = folder / job_id / one.run
                _remove_own(place)
                writers[one.run] = EventFileWriter(str(place), filename_suffix=_SUFFIX)
            summary = Summary(value=[Summary.Value(tag=one.name, simple_value=one.value)])
            writers[one.run].add_event(Event(wall_time=one.at_s, step=one.step, summary=summary))
            if one.name.startswith("dev/"):
                writers[one.run].flush()

    try:
        yield take
    finally:
        for writer in writers.values():
            writer.close()


def _remove_own(place: Path) -> None:
    for old in place.glob(f"events.out.tfevents.*{_SUFFIX}"):
        old.unlink()


# ------------------------------------------------------------------------------------------------ MLflow


@contextmanager
def mlflow(uri: str, job: Mapping[str, Any]) -> Iterator[Take]:
    """Writes one MLflow run for the job, with its parameters, tags and digests, and one below it for each training run.

    They stand in the experiment `turnout`, in the state that the job came to: a job that is no longer watched goes on, and
    so do they. An export that was made before is replaced. Raises BadInput where the package is not installed, CannotRun
    where the server cannot be reached.
    """
    os.environ.setdefault(
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"
    )  # else a server that is not there is asked for minutes
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise BadInput(f"--mlflow: {error}; install `turnout[mlflow]`", param="mlflow") from error
    try:
        tracker = _Tracker(MlflowClient(uri), job)
        yield tracker.take
        tracker.end()
    except MlflowException as error:
        raise CannotRun(f"MLflow at {uri}: {str(error)[:300]}") from error


class _Tracker:
    """One job's runs in MLflow."""

    def __init__(self, client: Any, job: Mapping[str, Any]) -> None:
        self._client = client
        self._runs: dict[str, str] = {}
        self._ended: str | None = None
        found = client.get_experiment_by_name("turnout")
        self._experiment = found.experiment_id if found else client.create_experiment("turnout")
        self._remove_earlier(job["job_id"])
        spec = job["spec"]
        tags = {_ID_TAG: job["job_id"], "turnout.kind": job["kind"], "turnout.created_by": job["created_by"]}
        tags |= {f"turnout.{key}": str(spec[key]) for key in ("suite", "base", "asked_model") if spec.get(key)}
        self._parent = self._make(job["job_id"], tags)

    def take(self, event: dict[str, Any]) -> None:
        """Write what an event tells: figures to the training run's own, the plan and what came of it to the job's."""
        self._ended = _ENDS.get(event["type"])  # of a job that was resumed only the last end counts
        for one in scalars(event):
            run_id = self._runs.get(one.run)
            if run_id is None:
                run_id = self._runs[one.run] = self._make(one.run, {"mlflow.parentRunId": self._parent})
            self._client.log_metric(run_id, one.name, one.value, round(one.at_s * 1000), one.step)
        if event["type"] == "planned":
            for name, value in _params(event["data"]).items():
                self._client.log_param(self._parent, name, value[:_LONGEST_PARAM])
        elif event["type"] == "training" and event["data"]["event"]["type"] == "finished":
            self._finish(event["data"]["event"])
        elif event["type"] in ("adapter", "model", "decided"):
            self._tag(event["type"], event["data"])

    def end(self) -> None:
        """Give the runs the state of a job that has ended."""
        for run_id in (*self._runs.values(), self._parent) if self._ended else ():
            self._client.set_terminated(run_id, self._ended)

    def _finish(self, event: Mapping[str, Any]) -> None:
        for name in ("dev_exact", "dev_loss", "train_loss", "seconds"):
            if event.get(name) is not None:
                self._client.log_metric(self._parent, name, float(event[name]))
        self._client.set_tag(self._parent, "turnout.adapter_digest", event.get("digest", ""))

    def _tag(self, kind: str, data: Mapping[str, Any]) -> None:
        for name in ("name", "digest", "verdict", "evidence_id"):
            if data.get(name):
                self._client.set_tag(self._parent, f"turnout.{kind}.{name}", str(data[name]))

    def _make(self, name: str, tags: Mapping[str, str]) -> str:
        made = self._client.create_run(self._experiment, run_name=name, tags=dict(tags))
        return str(made.info.run_id)

    def _remove_earlier(self, job_id: str) -> None:
        for run in self._client.search_runs([self._experiment], f"tags.`{_ID_TAG}` = '{job_id}'"):
            below = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
            for one in (*self._client.search_runs([self._experiment], below), run):
                self._client.delete_run(one.info.run_id)


def _params(planned: Mapping[str, Any]) -> dict[str, str]:
    """The recipe, the numbers of rows and the digest of what was trained on."""
    found = {f"recipe.{name}": value for name, value in (planned.get("recipe") or {}).items()}
    found |= {name: planned[name] for name in ("train", "dev", "heldout", "dataset", "seed") if name in planned}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}
