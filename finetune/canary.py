"""What the trained model answers to a fixed prompt, as it will be served: on the base model in full precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from finetune import adapter, memory, plan, ranks
from finetune.bench import Bench
from finetune.checkpoint import Tensors
from finetune.model import load, precision, weights_dtype
from prompts import chat
from prompts.errors import BadInput

TEXT = "The quick brown fox jumps over the lazy dog."
_LOGITS = 16
_ROOM = 1.2  # times the weights: what 12 tokens and the reading of the largest weight take beside them, amply


@torch.no_grad()
def canary_of(bench: Bench) -> adapter.Canary | None:
    """The canary of the LoRA that the model holds.

    A base in 4 bits answers otherwise than the full one that the adapter will be served on. So the full one is loaded on
    the CPU, for this alone; where it does not fit there the adapter has no canary, and a `decision` says so.
    """
    model = _as_served(bench) if bench.spec.four_bit else bench.model
    if model is None:
        return None
    model.eval()
    ids = _ids(bench.tokenizer)
    logits = _first_logits(model, ids)
    with model.disable_adapter():
        base_logits = _first_logits(model, ids)
    exact = next(model.get_base_model().parameters()).dtype == torch.float32
    rounding = None if exact or ranks.count() > 1 else _rounding(model, ids, logits)
    precision_name = "float32" if exact else "bfloat16"
    return adapter.Canary(ids=ids, logits=logits, base_logits=base_logits, precision=precision_name, rounding=rounding)


def _rounding(model: Any, ids: tuple[int, ...], logits: tuple[float, ...]) -> float:
    """How far `logits` are from those of the same weights in fp32: what an engine that computes so will find."""
    device = next(model.parameters()).device
    with _in_full_precision(model), torch.compiler.set_stance("force_eager"):
        found = model.get_base_model()(input_ids=torch.tensor([ids], device=device), use_cache=False).logits
    exact: list[float] = found[0, -1, : len(logits)].float().tolist()
    return max(abs(one - other) for one, other in zip(logits, exact, strict=True))


@contextlib.contextmanager
def _in_full_precision(model: Any) -> Iterator[None]:
    """Let each part of the model compute with its weights in fp32, one part at a time: all at once may not fit."""
    base = model.get_base_model()
    body = getattr(base, base.base_model_prefix)
    parts = [*body.layers, *(one for one in body.children() if one is not body.layers), base.get_output_embeddings()]
    held: dict[torch.nn.Parameter, torch.Tensor] = {}

    def widen(part: torch.nn.Module, _: Any) -> None:
        for param in part.parameters():
            held[param] = param.data
            param.data = param.data.float()

    def give_back(part: torch.nn.Module, *_: Any) -> None:
        for param in part.parameters():
            param.data = held.pop(param)

    hooks = [part.register_forward_pre_hook(widen) for part in parts]
    hooks += [part.register_forward_hook(give_back) for part in parts]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _as_served(bench: Bench) -> Any:
    """The full base model with a copy of the LoRA, on the CPU; none where there is no room."""
    cpu, dtype = torch.device("cpu"), weights_dtype(bench.device)
    needed = int(_ROOM * plan.read_shape(bench.spec.base_folder).weights_bytes(dtype.itemsize))
    free = memory.free_bytes(cpu)
    if needed > free:
        because = f"the full base model needs {needed} bytes of main memory, {free} are free: the adapter has no canary"
        bench.events.tell("decision", what="canary", run="adapter", because=because)
        return None
    model = load(bench.spec.model_copy(update={"four_bit": False, "gradient_checkpointing": False}), cpu, dtype)
    _copy_lora(bench.params, model)
    return model


def _copy_lora(trained: Tensors, model: Any) -> None:
    for name, param in model.named_parameters():
        if param.requires_grad:
            param.copy_(trained[name.replace(".default.", ".")])


def _first_logits(model: Any, ids: tuple[int, ...]) -> tuple[float, ...]:
    device = next(model.parameters()).device
    with precision(device):
        logits = model.get_base_model()(input_ids=torch.tensor([ids], device=device), use_cache=False).logits
    return tuple(logits[0, -1, :_LOGITS].float().tolist())


def _ids(tokenizer: Any) -> tuple[int, ...]:
    try:
        return tuple(chat.encode_prompt(tokenizer, [{"role": "user", "content": TEXT}]))
    except BadInput:  # a template that asks for more than a user's message; plain text will do
        return tuple(tokenizer(TEXT, add_special_tokens=False)["input_ids"])
