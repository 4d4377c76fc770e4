"""What a training job will do, decided before it starts: its recipe, its cost, and the frozen spec that it runs."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune import durable
from finetune.adapter import tensor_header
from prompts.errors import BadInput

_BILLION = 1_000_000_000
_CHARACTERS_PER_TOKEN = 3  # fewer than most tokenizers have, so that a plan errs on the safe side
_FRAME_TOKENS = 8  # what a chat template puts around a message, about


class Recipe(BaseModel):
    """Every number that the result of a training job depends on, beside its rows and the base model.

    Learning rate: linear warm-up over `warmup_share` of the steps, then linear to 0. `patience` counts evaluations
    without a better one; 0 never stops early. `min_steps` wins over `epochs`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(16, ge=1, le=512)
    alpha: float = Field(32.0, gt=0)
    lr: float = Field(1e-3, gt=0, le=1)
    epochs: float = Field(5.0, gt=0)
    batch_size: int = Field(8, ge=1)
    warmup_share: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    patience: int = Field(3, ge=0)
    evals_per_epoch: int = Field(2, ge=1)
    seed: int = Field(0, ge=0, lt=2**63)
    min_steps: int = Field(60, ge=1)
    max_grad_norm: float = Field(1.0, gt=0)


class Row(BaseModel):
    """One rendered example: the messages as the model will see them, and the answer that it should give."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[dict[str, Any], ...] = Field(min_length=1)
    answer: str


class JobSpec(BaseModel):
    """All that one training job reads. Nothing else decides its result.

    `max_new_tokens` is how long an answer may get where it is served. `checkpoint_every_steps` 0 keeps checkpoints
    for cancelling alone. `threads` None leaves the number to torch; bit-identical results need the same number.
    `pack_tokens` bounds how many tokens one forward pass holds, and so the memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str = Field(min_length=1)
    base_folder: Path
    output_dir: Path
    train: tuple[Row, ...]
    dev: tuple[Row, ...] = ()
    recipe: Recipe = Recipe()
    max_new_tokens: int = Field(64, ge=1)
    lineage: dict[str, Any] = Field(default_factory=dict)
    checkpoint_every_steps: int = Field(20, ge=0)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = Field(None, ge=1)
    pack_tokens: int = Field(4096, ge=1)
    adapter_name: str = ""  # by default the job's id
    created_at: str = ""


def write_spec(spec: JobSpec, path: Path) -> None:
    """Write the spec of a job, whole or not at all. Raises DiskFullError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_file(path, spec.model_dump_json(indent=1).encode())


def read_spec(path: Path) -> JobSpec:
    """The spec in a file. Raises BadInput."""
    try:
        return JobSpec.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInput(f"cannot use the job spec {path}: {error}") from error


# ------------------------------------------------------------------------------------------------ the recipe


def make_recipe(parameter_count: int, train_count: int, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe for a base model of so many parameters and so many training rows.

    `overrides` replaces any field by name. Raises BadInput that names every unknown field and bad value.
    """
    chosen = {"lr": _learning_rate(parameter_count), "epochs": _epochs(train_count), **(overrides or {})}
    unknown = [_unknown(name) for name in chosen if name not in Recipe.model_fields]
    if unknown:
        raise BadInput("; ".join(unknown), param="recipe")
    try:
        return Recipe.model_validate(chosen)
    except ValidationError as error:
        faults = (f"{fault['loc'][0]} = {fault['input']!r}: {fault['msg']}" for fault in error.errors())
        raise BadInput("recipe: " + "; ".join(faults), param="recipe") from error


def _learning_rate(parameter_count: int) -> float:
    if parameter_count < 0.5 * _BILLION:
        return 1e-3
    return 5e-4 if parameter_count <= 4 * _BILLION else 3e-4


def _epochs(train_count: int) -> float:
    if train_count < 200:
        return 5.0
    return 3.0 if train_count < 1000 else 2.0


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, Recipe.model_fields, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(Recipe.model_fields)}"
    return f"a recipe has no field {name!r}: {hint}"


def steps_per_epoch(recipe: Recipe, train_count: int) -> int:
    """Batches that see every row once; the last may be smaller."""
    return max(1, math.ceil(train_count / recipe.batch_size))


def total_steps(recipe: Recipe, train_count: int) -> int:
    """Optimizer steps of a whole run, were it not stopped early."""
    return max(recipe.min_steps, math.ceil(recipe.epochs * steps_per_epoch(recipe, train_count)))


def learning_rate_at(recipe: Recipe, step: int, steps: int) -> float:
    """The rate of step 1 … `steps`: linear up over the warm-up, then linear down, 0 after the last."""
    warmup = max(1, math.ceil(recipe.warmup_share * steps))
    if step <= warmup:
        return recipe.lr * step / warmup
    return recipe.lr * (steps + 1 - step) / (steps + 1 - warmup)


# ------------------------------------------------------------------------------------------------ the cost


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a base model's files say about its size. `linears` are (out, in) of every layer that LoRA adapts."""

    parameter_count: int
    linears: tuple[tuple[int, int], ...]
    vocabulary: int
    context_tokens: int

    def lora_parameter_count(self, rank: int) -> int:
        return sum(rank * (out + into) for out, into in self.linears)


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
        context_tokens=int(config.get("max_position_embeddings", 0)),
    )


def _is_adapted(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and name.endswith(".weight") and not any(word in name for word in ("embed", "lm_head"))


class Plan(BaseModel):
    """What a job will take. Bytes of memory are estimates for the training process; counts of steps are exact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameter_count: int
    trainable_count: int
    steps: int
    steps_per_epoch: int
    pack_tokens: int  # the estimated tokens of one batch with its prefix held once
    weights_bytes: int
    adapter_bytes: int  # fp32 with its gradient
    optimizer_bytes: int
    activation_bytes: int
    memory_bytes: int  # all of the above
    disk_bytes: int  # two checkpoints, one being written, and the adapter


def make_plan(shape: ModelShape, recipe: Recipe, rows: Sequence[Row], *, on_cuda: bool = False) -> Plan:
    """Estimate the memory, the disk and the steps of training on `rows`. Weights are bf16 on CUDA, else fp32."""
    width = 2 if on_cuda else 4
    trainable = shape.lora_parameter_count(recipe.rank)
    tokens = _batch_tokens(rows, recipe.batch_size)
    memory = {
        "weights_bytes": shape.parameter_count * width,
        "adapter_bytes": trainable * 4 * 2,
        "optimizer_bytes": trainable * 4 * 2,
        "activation_bytes": _activation_bytes(shape, recipe, tokens, rows, width),
    }
    return Plan(
        parameter_count=shape.parameter_count,
        trainable_count=trainable,
        steps=total_steps(recipe, len(rows)),
        steps_per_epoch=steps_per_epoch(recipe, len(rows)),
        pack_tokens=tokens,
        **memory,
        memory_bytes=sum(memory.values()),
        disk_bytes=disk_bytes(trainable),
    )


def disk_bytes(trainable_count: int) -> int:
    """Room for three checkpoints of adapter, best adapter and two moments, and for the adapter itself; fp32."""
    return trainable_count * 4 * (3 * 4 + 1)


def _activation_bytes(shape: ModelShape, recipe: Recipe, tokens: int, rows: Sequence[Row], width: int) -> int:
    """What the backward pass needs: inputs and outputs of every linear, and logits with their gradient."""
    per_token = sum(out + into + recipe.rank for out, into in shape.linears) * width
    labelled = recipe.batch_size * max((_tokens(row.answer) for row in rows), default=0)
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
