"""What a job leaves: the adapter, and a manifest that says how it was found and how well it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import safetensors.torch

from finetune import adapter, ranks
from finetune.bench import Bench
from finetune.job import state_of
from finetune.manifest import manifest_of, peft_config
from finetune.plan import SeedResult
from finetune.trials import Found


def write(bench: Bench, found: Found, chosen: SeedResult, seeds: Sequence[SeedResult]) -> adapter.Manifest:
    """Write the adapter that the model holds, its manifest last; of several ranks only the first does. Raises DiskFullError."""
    recipe = found.recipe.model_copy(update={"seed": chosen.seed})
    manifest = manifest_of(bench, recipe, scores_of(bench, found, chosen, seeds))
    if not ranks.is_first():
        return manifest
    config = peft_config(bench)
    weights = safetensors.torch.save(state_of(bench), {"format": "pt"})
    with bench.guard.changing:  # else a cancel could tear what is a moment's work
        return adapter.write(bench.spec.output_dir / "adapter", weights, config, manifest)


def scores_of(bench: Bench, found: Found, chosen: SeedResult, seeds: Sequence[SeedResult]) -> dict[str, Any]:
    """All that a diagnosis asks for (`plan.figures_of` reads it), the same for the same spec whatever was killed."""
    return {
        "train_count": len(bench.train),
        "steps": chosen.steps,
        "best_step": chosen.best_step,
        "dev_exact": chosen.dev_exact,
        "dev_loss": chosen.dev_loss,
        "train_loss": chosen.train_loss_last,
        "train_loss_first": chosen.train_loss_first,
        "train_loss_last": chosen.train_loss_last,
        "evaluations": [one.model_dump() for one in chosen.points],
        "seeds": [one.model_dump(include={"seed", "dev_exact", "dev_loss", "diverged"}) for one in seeds],
        "trials": [one.model_dump() for one in found.table],
        "mislabelled": list(found.mislabelled),
    }
