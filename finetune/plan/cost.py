"""What a training will take: memory, disk and steps, from the files of the base model and the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from finetune.adapter import tensor_header
from finetune.plan.reach import context_tokens
from finetune.plan.recipe import Recipe, steps_per_epoch, total_steps
from finetune.plan.spec import Row
from prompts.errors import BadInput

_CHARACTERS_PER_TOKEN = 3  # fewer than most tokenizers have, so that a plan errs on the safe side
_NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8  # a weight: 4 bits, with scales in 8 bits a 64, theirs in 32 a 16,384
_GATHERED_LAYERS = 2
_FRAME_TOKENS = 8  # what a chat template puts around a message, about


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a base model's files say about its size. `linears` are (out, in) of every layer that LoRA adapts."""

    parameter_count: int
    linears: tuple[tuple[int, int], ...]
    vocabulary: int
    context_tokens: int
    layers: int = 1
    width: int = 0  # of the hidden states between two layers

    def lora_parameter_count(self, rank: int) -> int:
        return sum(rank * (out + into) for out, into in self.linears)

    def weights_bytes(self, width: int, *, four_bit: bool = False, devices: int = 1) -> int:
        """The weights on one device at `width` bytes a number, or with their linear layers in NF4 with double quantisation.

        Where several devices share them, each holds its part of the linear layers, all of the rest, and for the moment
        two whole layers: the one that is computed and the one that comes next.
        Source: Dettmers et al., QLoRA, 2023, section 3: 0.127 bits a weight for the scales.
        """
        linear = sum(out * into for out, into in self.linears)
        rest = (self.parameter_count - linear) * width
        if four_bit:
            return rest + math.ceil(linear * _NF4_BYTES)
        if devices == 1:
            return rest + linear * width
        return rest + math.ceil(linear * width * (1 / devices + _GATHERED_LAYERS / self.layers))


def read_shape(base_folder: Path) -> ModelShape:
    """The shape of a model from its config and the headers of its weights; loads nothing. Raises BadInput."""
    try:
        config = json.loads((base_folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{base_folder} is no model folder: {error}", param="base_folder") from error
    shapes = {
        name: tuple(entry["shape"])
        for path in sorted(base_folder.glob("*.safetensors"))
        for name, entry in tensor_header(path).items()
    }
    if not shapes:
        raise BadInput(f"{base_folder} holds no safetensors weights", param="base_folder")
    linears = tuple((shape[0], shape[1]) for name, shape in shapes.items() if _is_adapted(name, shape))
    return ModelShape(
        parameter_count=sum(math.prod(shape) for shape in shapes.values()),
        linears=linears,
        vocabulary=int(config.get("vocab_size", 0)),
        context_tokens=context_tokens(config),
        layers=int(config.get("num_hidden_layers", 1)),
        width=int(config.get("hidden_size", 0)),
    )


def _is_adapted(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and name.endswith(".weight") and not any(word in name for word in ("embed", "lm_head"))


class Plan(BaseModel):
    """What a job will take. Bytes of memory are estimates for each training process; counts of steps are exact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameter_count: int
    trainable_count: int
    steps: int
    steps_per_epoch: int
    devices: int = 1  # a process each; they share the base model's weights and the rows of a batch
    pack_tokens: int  # the estimated tokens of one batch, or a device's share of it, with its prefix held once
    weights_bytes: int
    adapter_bytes: int  # fp32 with its gradient
    optimizer_bytes: int
    activation_bytes: int
    memory_bytes: int  # all of the above
    checkpointed_bytes: int  # of activations with gradient checkpointing, in place of `activation_bytes`
    disk_bytes: int  # two checkpoints, one being written, and the adapter


def make_plan(
    shape: ModelShape,
    recipe: Recipe,
    rows: Sequence[Row],
    *,
    on_cuda: bool = False,
    four_bit: bool = False,
    devices: int = 1,
) -> Plan:
    """Estimate the memory, the disk and the steps of training on `rows`. Weights are bf16 on CUDA, else fp32."""
    width = 2 if on_cuda else 4
    trainable = shape.lora_parameter_count(recipe.rank)
    batch_size = math.ceil(recipe.batch_size / devices)
    tokens = _batch_tokens(rows, batch_size)
    labelled = batch_size * max((_tokens(row.answer) for row in rows), default=0)
    memory = {
        "weights_bytes": shape.weights_bytes(width, four_bit=four_bit, devices=devices),
        "adapter_bytes": trainable * 4 * 2,
        "optimizer_bytes": trainable * 4 * 2,
        "activation_bytes": activation_bytes(shape, recipe.rank, tokens, labelled, width=width),
    }
    return Plan(
        parameter_count=shape.parameter_count,
        trainable_count=trainable,
        steps=total_steps(recipe, len(rows)),
        steps_per_epoch=steps_per_epoch(recipe, len(rows)),
        devices=devices,
        pack_tokens=tokens,
        **memory,
        memory_bytes=sum(memory.values()),
        checkpointed_bytes=activation_bytes(shape, recipe.rank, tokens, labelled, width=width, checkpointed=True),
        disk_bytes=disk_bytes(trainable),
    )


def disk_bytes(trainable_count: int) -> int:
    """Room for three checkpoints of adapter, best adapter and two moments, and for the adapter itself; fp32."""
    return trainable_count * 4 * (3 * 4 + 1)


def activation_bytes(
    shape: ModelShape, rank: int, tokens: int, labelled: int, *, width: int = 4, checkpointed: bool = False
) -> int:
    """What the backward pass of so many packed tokens needs, `labelled` of them with logits; `width` bytes a number.

    Inputs and outputs of every linear layer stand for all that a decoder layer keeps: norms and products by element
    keep as much as the layers that read the same input share. With checkpointing each layer keeps its input, and one
    layer at a time keeps all. Logits exist twice, with their gradient, in fp32.
    """
    per_token = sum(out + into + rank for out, into in shape.linears) * width
    if checkpointed:
        per_token = per_token // shape.layers + shape.layers * shape.width * width
    return tokens * per_token + labelled * shape.vocabulary * 4 * 2


def _batch_tokens(rows: Sequence[Row], batch_size: int) -> int:
    """Tokens of the largest packed batch: the prefix common to all rows, and the longest rows' own parts."""
    texts = ["\n".join([*map(_content, row.messages), row.answer]) for row in rows]
    prefix = _shared_length(min(texts), max(texts)) if len(texts) > 1 else 0
    longest = sorted((len(text) - prefix for text in texts), reverse=True)[:batch_size]
    return prefix // _CHARACTERS_PER_TOKEN + sum(own // _CHARACTERS_PER_TOKEN + _FRAME_TOKENS for own in longest)


def _shared_length(first: str, last: str) -> int:
    """Characters that the first and the last of sorted texts share, and so all of them."""
    pairs = enumerate(zip(first, last, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(last)))


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else _joined(content or ())


def _joined(parts: Iterable[Any]) -> str:
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, Mapping))


def _tokens(text: str) -> int:
    return len(text) // _CHARACTERS_PER_TOKEN + 1
