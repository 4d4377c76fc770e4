"""Adapters of a run's newest evaluations, each complete: what a job that is asked for several keeps beside the one it ships."""

from __future__ import annotations

import safetensors.torch

from finetune import adapter, durable, ranks
from finetune.bench import Bench
from finetune.job import state_of
from finetune.manifest import manifest_of, peft_config
from finetune.plan import Point, Recipe

FOLDER = "snapshots"


def keep(bench: Bench, recipe: Recipe, point: Point) -> None:
    """Write the LoRA that the model holds to `snapshots/step-N`, tell it, and delete all but the newest few.

    Done again after a kill, it writes the same. Raises DiskFullError.
    """
    cheap = not bench.spec.four_bit  # whose canary takes loading the full base model
    manifest = manifest_of(bench, recipe, point.model_dump(), f"-step-{point.step}", with_canary=cheap)
    if not ranks.is_first():
        return
    folder = bench.spec.output_dir / FOLDER
    weights = safetensors.torch.save(state_of(bench), {"format": "pt"})
    adapter.write(folder / f"step-{point.step:08d}", weights, peft_config(bench), manifest)
    bench.events.tell("snapshot", step=point.step)
    for old in sorted(folder.glob("step-*"), reverse=True)[bench.spec.snapshots :]:
        durable.remove(old)
