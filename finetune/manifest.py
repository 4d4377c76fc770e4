"""What an adapter's folder says of the LoRA that a job holds: PEFT's configuration, and our manifest."""

from __future__ import annotations

from typing import Any

import peft

from finetune import adapter
from finetune.bench import Bench
from finetune.canary import canary_of
from finetune.plan import Recipe


def manifest_of(
    bench: Bench, recipe: Recipe, scores: dict[str, Any], suffix: str = "", *, with_canary: bool = True
) -> adapter.Manifest:
    """What is known of the LoRA that the model holds; its name is the job's adapter's with `suffix` behind it."""
    spec = bench.spec
    return adapter.Manifest(
        name=(spec.adapter_name or spec.job_id) + suffix,
        base=adapter.describe_base(spec.base_folder),
        created_at=spec.created_at,
        lineage=spec.lineage,
        code_version=adapter.code_version(),
        recipe=recipe.model_dump(),
        scores=scores,
        canary=canary_of(bench) if with_canary else None,
    )


def peft_config(bench: Bench) -> dict[str, Any]:
    """What peft and vLLM need to know, without the fields in which others may name code."""
    lora = bench.model.peft_config["default"]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": lora.r,
        "lora_alpha": int(lora.lora_alpha) if lora.lora_alpha == int(lora.lora_alpha) else lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "target_modules": sorted(lora.target_modules),
        "bias": "none",
        "inference_mode": True,
        "base_model_name_or_path": bench.spec.base_folder.name,
        "peft_version": peft.__version__,
    }
