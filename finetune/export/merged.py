"""A folder of merged weights in safetensors, as transformers and vLLM load a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import safetensors.torch
import torch

from finetune import durable
from finetune.adapter.exporting import copy_tokenizer
from finetune.export.weights import MergedWeights

_TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_BASE_TYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
_INDEX = "model.safetensors.index.json"


def out_type_of(weights: MergedWeights, asked: str) -> str:
    """What is asked for; auto is the base's own type, or f32 where that is none of ours."""
    return _BASE_TYPES.get(weights.base_type(), "f32") if asked == "auto" else asked


def needed_bytes(weights: MergedWeights, out_type: str) -> int:
    return weights.count() * _TYPES[out_type].itemsize


def write(weights: MergedWeights, base_folder: Path, draft: Path, out_type: str) -> None:
    """Write weights, in as many files as the base has, configuration and tokenizer to `draft`."""
    for path in weights.files:
        held = {name: weights.merged(name).to(_TYPES[out_type]) for name in weights.names_in(path)}
        safetensors.torch.save_file(held, draft / path.name, {"format": "pt"})
    if (base_folder / _INDEX).is_file():
        index = json.loads((base_folder / _INDEX).read_bytes())
        index["metadata"] = {**(index.get("metadata") or {}), "total_size": needed_bytes(weights, out_type)}
        (draft / _INDEX).write_bytes(durable.as_json(index))
    config = {key: value for key, value in weights.config.items() if key != "torch_dtype"}
    (draft / "config.json").write_bytes(durable.as_json({**config, "dtype": _NAMES[out_type]}))
    if (base_folder / "generation_config.json").is_file():
        shutil.copyfile(base_folder / "generation_config.json", draft / "generation_config.json")
    copy_tokenizer(base_folder, draft)
