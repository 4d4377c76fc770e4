"""The frozen spec of a job's training process, and the figures that are told of it."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from finetune.plan import (
    JobSpec,
    Recipe,
    learning_rates,
    make_recipe,
    read_shape,
    read_spec,
    steps_per_epoch,
    total_steps,
    write_spec,
)
from prompts.errors import BadInput
from service.child import require_local_packages
from service.engine import weights
from service.fine_tuning.material import Data
from service.fine_tuning.names import adapter_name
from service.fine_tuning.request import FineTuneSpec, Hyperparameters
from service.ids import now
from service.training import figures, measure
from service.tuning.claim import Claim
from service.tuning.material import model_source

CHECKPOINTS_KEPT = 3  # of the newest epochs, as OpenAI does
_PLANNED = "planned.json"


def plan(claim: Claim, spec: FineTuneSpec, data: Data) -> dict[str, Any]:
    """Write the spec unless an earlier process did; returns what was planned. Raises BadInput where it does not fit."""
    folder = claim.folder
    if (folder / "spec.json").exists():
        found: dict[str, Any] = json.loads((folder / _PLANNED).read_bytes())
        return found
    require_local_packages("training")
    draft = _draft(claim, spec, data)
    trial = folder / "trial"
    write_spec(draft.model_copy(update={"output_dir": trial / "training"}), trial / "spec.json")
    measured, engines = measure(trial, claim.settings.run_dir, claim.check)
    if not measured.fits:
        raise BadInput(measured.reason, param="model")
    ready = draft.model_copy(update=measured.ways())
    planned = {
        **figures(ready, measured, engines, measured.decisions),
        "examples": {"given": data.examples},
        "heldout": 0,
        "seed": spec.seed,
        "hyperparameters": _hyperparameters(ready),
    }
    _write(folder / _PLANNED, planned)  # before the spec, which says that both are there
    write_spec(ready, folder / "spec.json")
    return planned


def _write(path: Path, planned: dict[str, Any]) -> None:
    draft = path.with_suffix(".draft")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(planned, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def frozen(folder: Path) -> JobSpec:
    """The spec that `plan` wrote."""
    return read_spec(folder / "spec.json")


def planned_data(folder: Path) -> Data | None:
    """The rows of the spec that `plan` wrote, counted instead of named by their lines; None where there is no spec yet."""
    if not (folder / "spec.json").exists():
        return None
    spec = frozen(folder)
    places = {name: [f"{name} row {at}" for at in range(len(getattr(spec, name)))] for name in ("train", "dev")}
    examples, digest = int(spec.lineage["examples"]), str(spec.lineage["dataset_digest"])
    return Data(spec.train, spec.dev, examples, 0, digest, places)  # what stands in both files was told before the plan


def recipe_for(parameter_count: int, train_count: int, wanted: Hyperparameters, seed: int) -> Recipe:
    """The recipe of a job: an epoch is scored at its end, and so many as were asked for are trained, none is left out.

    `auto` epochs are the recipe's for so many rows, as whole passes over them; they may stop early.
    """
    fixed: dict[str, Any] = {"seed": seed, "evals_per_epoch": 1}
    if wanted.batch_size != "auto":
        fixed["batch_size"] = wanted.batch_size
    if wanted.learning_rate_multiplier != "auto":
        fixed["lr"] = min(1.0, learning_rates(parameter_count)[1] * wanted.learning_rate_multiplier)
    if wanted.n_epochs != "auto":
        exact = {"epochs": float(wanted.n_epochs), "min_steps": 1, "patience": 0}
        return make_recipe(parameter_count, train_count, fixed | exact)
    usual = make_recipe(parameter_count, train_count, fixed)
    passes = math.ceil(total_steps(usual, train_count) / steps_per_epoch(usual, train_count))
    return usual.model_copy(update={"epochs": float(passes), "min_steps": 1})


def _draft(claim: Claim, spec: FineTuneSpec, data: Data) -> JobSpec:
    source = model_source(claim.settings, spec.base)
    base_folder = weights.pull(source, weights.default_cache_dir())
    model_spec = claim.settings.model(spec.base)
    count = read_shape(base_folder).parameter_count
    longest = max(len(row.answer.encode()) for row in (*data.train, *data.dev))
    return JobSpec(
        job_id=claim.job_id,
        base_folder=base_folder,
        output_dir=claim.folder / "training",
        train=data.train,
        dev=data.dev,
        recipe=recipe_for(count, len(data.train), spec.hyperparameters, spec.seed),
        max_new_tokens=longest + 1,  # no token is shorter than a byte: every answer may be given whole
        lineage=_lineage(claim, spec, data),
        threads=getattr(model_spec, "threads", None),
        device=getattr(model_spec, "device", "auto"),
        adapter_name=adapter_name(claim.short_id),
        created_at=now(),
        snapshots=CHECKPOINTS_KEPT,
        ships="best" if spec.hyperparameters.n_epochs == "auto" else "last",
    )


def _lineage(claim: Claim, spec: FineTuneSpec, data: Data) -> dict[str, Any]:
    files = {"training_file": spec.training_file, "validation_file": spec.validation_file}
    return {"job_id": claim.job_id, "dataset_digest": data.digest, "examples": data.examples, **files}


def _hyperparameters(ready: JobSpec) -> dict[str, Any]:
    """What was chosen, in OpenAI's terms."""
    recipe = ready.recipe
    multiplier = recipe.lr / learning_rates(read_shape(ready.base_folder).parameter_count)[1]
    shown = {"n_epochs": round(recipe.epochs), "batch_size": recipe.batch_size}
    return {**shown, "learning_rate_multiplier": round(multiplier, 6)}
