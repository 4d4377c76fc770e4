"""A job as its worker does it: files → rows → plan → training → adapters under their `ft:` names → the file of metrics.

Every step may run again after a kill at any moment: it finds what it did by a name made from the job's id, or does
nothing twice by its nature. So this needs no journal of its own.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finetune import adapter as adapters
from prompts.errors import BadInput
from service.adapters.registry import Adapters
from service.fine_tuning import planning
from service.fine_tuning.files import Files
from service.fine_tuning.material import Data, FileRefused, read_data
from service.fine_tuning.metrics import checkpoint_metrics, result_csv, trained_tokens
from service.fine_tuning.names import adapter_name, model_name
from service.fine_tuning.request import FineTuneSpec
from service.ids import now
from service.store import adapters as stored
from service.store import jobs, routes, tuned
from service.store.database import bump_revision
from service.store.session import Session
from service.training import train
from service.tuning.claim import Claim


def run(claim: Claim, spec: FineTuneSpec) -> dict[str, Any]:
    """Do the job to its end, or go on with it; returns its result. Raises what it fails of, having told OpenAI's code."""
    files = Files(claim.database)
    data = _read(claim, spec, files)
    claim.check()
    claim.tell_once("validated", examples=data.examples, in_both=data.in_both)
    try:
        claim.tell_once("planned", **planning.plan(claim, spec, data))
    except BadInput as error:
        raise _fail(claim, data, str(error), of_model=error.param == "model") from error
    finished = _train(claim, spec, data)
    return _publish(claim, spec, files, data, finished)


def _read(claim: Claim, spec: FineTuneSpec, files: Files) -> Data:
    """The job's rows; those of its plan where a file was deleted since: a killed job ends as it would have."""
    try:
        return read_data(files, spec)
    except FileRefused as error:
        planned = planning.planned_data(claim.folder)
        if planned is None:
            claim.tell_once("fault", code=error.code, message=str(error), param=error.param)
            raise
        return planned


def _fail(claim: Claim, data: Data, said: str, *, of_model: bool) -> FileRefused:
    """Tell why the job fails, as OpenAI's do; returns what it fails of."""
    code, param = ("invalid_model", "model") if of_model else ("invalid_training_file", "training_file")
    error = FileRefused(code, data.in_words(said), param)
    claim.tell_once("fault", code=code, message=str(error), param=param)
    return error


def _train(claim: Claim, spec: FineTuneSpec, data: Data) -> dict[str, Any]:
    """The training process to its end; each snapshot that it leaves is served from the moment it is told."""

    def tell(kind: str, /, **told: Any) -> None:
        if kind == "training" and told["event"]["type"] == "snapshot":
            _publish_checkpoints(claim, spec)
        claim.tell(kind, **told)

    finished = train(claim.folder, claim.settings.run_dir, tell, claim.check, _last_line(claim))
    said = "; ".join(finished.get("reasons", ()))
    if finished["type"] == "diverged":
        fix = f"{said}; give a lower learning_rate_multiplier"
        claim.tell_once("fault", code="training_diverged", message=fix, param="hyperparameters")
        raise FileRefused("training_diverged", fix, "hyperparameters")
    if finished["type"] != "finished":
        raise _fail(claim, data, said, of_model=finished.get("param") == "model")
    return finished


def _last_line(claim: Claim) -> int:
    """How many lines of the training process were passed on before."""
    with claim.database.read() as session:
        last = jobs.last_event(session, claim.job_id, "training")
    return int(last["data"]["line"]) if last else 0


# ------------------------------------------------------------------------------------------------ what is served


def _publish_checkpoints(claim: Claim, spec: FineTuneSpec) -> None:
    """Serve the snapshots that the training process keeps, each once, and delete what was served of those before them."""
    folder = claim.folder / "training" / "snapshots"
    if not folder.is_dir():
        return  # none yet, or they were all served and cleared
    kept = dict(_snapshots(folder))
    if not kept:
        return
    with claim.database.read() as session:
        events = stored.events_of(session, claim.job_id, ["checkpoint"])
        told = {event["data"]["step"]: event["data"] for event in events}
        stale = [one for step, one in told.items() if step < min(kept) and _is_here(session, one)]
    for step, path in kept.items():
        if step not in told:  # one that was told and is served no longer was deleted by somebody
            _serve(claim, spec, path, step)
    if stale:
        _drop(claim, stale)


def _is_here(session: Session, told: dict[str, Any]) -> bool:
    return tuned.get(session, told["name"]) is not None or routes.adapter(session, told["adapter"]) is not None


def _drop(claim: Claim, stale: Sequence[dict[str, Any]]) -> None:
    """Serve these checkpoints no longer, and delete their adapters, which would stay for weeks: a hundred epochs leave as many.

    An adapter that a route, evidence or an engine needs is looked at again behind the next epoch.
    """
    with claim.database.write() as session:
        jobs.require_claim(session, claim.job_id, claim.token)
        for one in stale:
            tuned.remove(session, one["name"])
        bump_revision(session)
    names = [one["adapter"] for one in stale]
    Adapters(claim.database, claim.settings).supersede(names, claim.actor, claim.job_id)


def _snapshots(folder: Path) -> Iterator[tuple[int, Path]]:
    """The steps of complete snapshots; one may be deleted while this looks."""
    for path in sorted(folder.glob("step-*")):
        if adapters.is_complete(path):
            yield int(path.name.partition("-")[2]), path


def _serve(claim: Claim, spec: FineTuneSpec, folder: Path, step: int | None) -> str:
    """Take an adapter into the shelf and serve it; returns its `ft:` name."""
    name = adapter_name(claim.short_id, step)
    shelf = Path(getattr(claim.settings.model(spec.base), "adapter_dir", None) or claim.settings.adapters_dir)
    manifest = adapters.verify(adapters.install(folder, shelf, name))
    shown = model_name(spec.asked_model, spec.organization, spec.suffix, claim.short_id, step)
    at = now()
    of_job = {"job_id": claim.job_id, "base_model": spec.base, "created_at": at}
    metrics = checkpoint_metrics(manifest.scores) if step is not None else {}
    with claim.database.write() as session:
        jobs.require_claim(session, claim.job_id, claim.token)
        known = {"name": name, "prompt": "", "version": 0, "digest": manifest.digest}
        routes.add_adapter(session, {**known, **of_job, "manifest": manifest.model_dump(mode="json")})
        record = {"name": shown, "adapter": name, "step": step, "metrics": metrics, "created_by": claim.actor.id}
        if tuned.add(session, {**record, **of_job}):
            kind = "model" if step is None else "checkpoint"
            jobs.add_event(session, claim.job_id, kind, {"name": shown, "adapter": name, "step": step}, at)
        bump_revision(session)
    return shown


def _publish(claim: Claim, spec: FineTuneSpec, files: Files, data: Data, finished: dict[str, Any]) -> dict[str, Any]:
    _publish_checkpoints(claim, spec)
    name = _serve(claim, spec, claim.folder / "training" / "adapter", None)
    events = _events(claim.folder / "training" / "events.jsonl")
    result_id = f"file-{claim.short_id}results"
    files.keep_result(result_id, "step_metrics.csv", result_csv(events), claim.actor)
    _clear(claim.folder / "training" / "snapshots")
    kept = ("steps", "dev_loss", "dev_exact", "train_loss", "seconds", "digest")
    return {
        "fine_tuned_model": name,
        "adapter": adapter_name(claim.short_id),
        "result_files": [result_id],
        "trained_tokens": trained_tokens(events),
        "examples": data.examples,
        "scores": {key: finished.get(key) for key in kept},
    }


def _clear(folder: Path) -> None:
    """Delete a folder that may not be there: it vanishes under its own name at once."""
    doomed = folder.with_name(f".{folder.name}.doomed")
    with contextlib.suppress(FileNotFoundError):
        folder.replace(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _events(path: Path) -> list[dict[str, Any]]:
    """All that the training process told; U+2028 ends no line."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
