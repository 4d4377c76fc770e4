"""What the trained model answers to a fixed prompt, as it will be served: on the base model in full precision."""

from __future__ import annotations

from typing import Any

import torch

from finetune import adapter, memory, plan
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
    return adapter.Canary(ids=ids, logits=logits, base_logits=base_logits)


def _as_served(bench: Bench) -> Any:
    """The full base model with a copy of the LoRA, on the CPU; none where there is no room."""
    cpu, dtype = torch.device("cpu"), weights_dtype(bench.device)
    needed = int(_ROOM * plan.read_shape(bench.spec.base_folder).weights_bytes(dtype.itemsize))
    free = memory.free_bytes(cpu)
    if needed > free:
        because = f"the full base model needs {needed} bytes of main memory, {free} are free: the adapter has no canary"
        bench.events.tell("decision", what="canary", because=because)
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
