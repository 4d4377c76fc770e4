"""A LoRA's weights as products beside the base model's, read from what PEFT saves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NoReturn

import torch
from torch import Tensor

from prompts.errors import BadInput
from service.engine.adapters import AdapterFiles
from service.engine.layers import Block, Linear, Lora, Low

_PREFIX = "base_model.model."  # what PEFT puts before the names of the model's parts


def read_lora(files: AdapterFiles, blocks: Sequence[Block]) -> Lora:
    """A and B of every layer that the adapter is for, in the precision and on the device of the base weights.

    Raises BadInput where a layer is missing, is in none of `blocks`, has another shape, or is not finite.
    """
    from safetensors.torch import load_file

    weights = load_file(files.weights)
    kept = [tuple(one for one in block.parts if _is_target(one.name, files.target_modules)) for block in blocks]
    _check_names(files, [one for block in kept for one in block], weights)
    check_finite(files, weights)
    return {name: low for block in kept if block for name, low in _lows(files, block, weights)}


def _lows(files: AdapterFiles, parts: Sequence[Linear], weights: Mapping[str, Tensor]) -> list[tuple[str, Low]]:
    pairs = [_pair(files, one, weights) for one in parts]
    a, rank = torch.cat([a for a, _ in pairs], 1), files.rank
    return [
        (one.name, Low(a, at * rank, (at + 1) * rank, b))
        for at, (one, (_, b)) in enumerate(zip(parts, pairs, strict=True))
    ]


def _is_target(name: str, targets: Sequence[str]) -> bool:
    """As PEFT takes a list of module names: the whole name, or its end after a dot."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _keys(one: Linear) -> tuple[str, str]:
    return f"{_PREFIX}{one.name}.lora_A.weight", f"{_PREFIX}{one.name}.lora_B.weight"


def _check_names(files: AdapterFiles, targets: Sequence[Linear], weights: Mapping[str, Tensor]) -> None:
    expected = {key for one in targets for key in _keys(one)}
    for key in sorted(set(weights) - expected):
        _refuse(files, key, "which this model does not have")
    for key in sorted(expected - set(weights)):
        _refuse(files, key, f"which {files.weights.name} does not hold")


def _refuse(files: AdapterFiles, key: str, why: str) -> NoReturn:
    raise BadInput(f"adapter {files.folder} is for {key!r}, {why}: train it on this model", param="lora_path")


def check_finite(files: AdapterFiles, weights: Mapping[str, Tensor]) -> None:
    """Raises BadInput, naming the first tensor that is not."""
    for key, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise BadInput(f"adapter {files.folder}: {key} is not finite; train it again", param="lora_path")


def _pair(files: AdapterFiles, one: Linear, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    a, b = (weights[key] for key in _keys(one))
    shapes = (files.rank, one.weight.shape[1]), (one.weight.shape[0], files.rank)
    for key, tensor, shape in zip(_keys(one), (a, b), shapes, strict=True):
        if tuple(tensor.shape) != shape:
            raise BadInput(
                f"adapter {files.folder} does not fit the model: {key} is {tuple(tensor.shape)}, {shape} is needed",
                param="lora_path",
            )
    scaling = files.alpha / (math.sqrt(files.rank) if files.rank_stabilized else files.rank)
    a, b = (each.to(one.weight.device, one.weight.dtype) for each in (a, b))
    return a.t(), (b * scaling).t().contiguous()
