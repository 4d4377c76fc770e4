"""Whether an artefact computes what the adapter on its base does: both are loaded and asked the canary's tokens."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gguf
import peft
import torch
import transformers
from torch import Tensor

from finetune import adapter
from prompts import chat
from prompts.errors import BadInput, TurnoutError

TEXT = "The quick brown fox jumps over the lazy dog."
ALLOWED = {"f32": 1e-2, "f16": 0.25, "bf16": 2.0, "q8_0": 2.0}  # of any logit of any position, as weights are rounded
_LOADING: dict[str, Any] = {"dtype": torch.float32, "local_files_only": True, "trust_remote_code": False}


class CanaryFailed(TurnoutError):
    """What was written does not compute what the adapter does; nothing of it was kept."""


def canary_ids(manifest: adapter.Manifest, base_folder: Path) -> list[int]:
    """The tokens of the adapter's own canary, else of a sentence as the base model's user would say it."""
    if manifest.canary is not None:
        return list(manifest.canary.ids)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base_folder, local_files_only=True)
    try:
        return chat.encode_prompt(tokenizer, [{"role": "user", "content": TEXT}])
    except BadInput:  # no chat template, or one that asks for more than a user's message
        return list(tokenizer(TEXT, add_special_tokens=False)["input_ids"])


@torch.no_grad()
def reference(base_folder: Path, adapter_folder: Path, ids: list[int]) -> tuple[Tensor, Tensor]:
    """Logits (positions, vocabulary) of the adapter on its base as peft computes them, and of the base alone; fp32."""
    base = transformers.AutoModelForCausalLM.from_pretrained(base_folder, use_safetensors=True, **_LOADING)
    alone = _logits(base, ids)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of what peft asks transformers
        adapted = peft.PeftModel.from_pretrained(base, adapter_folder)
    return _logits(adapted, ids), alone


@torch.no_grad()
def of_folder(folder: Path, ids: list[int]) -> Tensor:
    """Logits of a folder of safetensors, computed in fp32."""
    return _logits(transformers.AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, **_LOADING), ids)


@torch.no_grad()
def of_gguf(path: Path, base_folder: Path, ids: list[int]) -> Tensor:
    """Logits of a GGUF as transformers reads it, computed in fp32.

    With the base's own configuration where the family's name is the same: transformers reads no scaled rotary frequencies
    from a GGUF.
    """
    config = transformers.AutoConfig.from_pretrained(base_folder, local_files_only=True, trust_remote_code=False)
    own = {"config": config} if config.model_type == _arch_of(path) else {}
    whole = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, quantization_config=whole, **own, **_LOADING
    )
    return _logits(model, ids)


def _arch_of(path: Path) -> str:
    return str(gguf.GGUFReader(path).fields["general.architecture"].contents())


def _logits(model: Any, ids: list[int]) -> Tensor:
    found: Tensor = model.eval()(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    return found


def compare(found: Tensor, expected: Tensor, alone: Tensor, out_type: str) -> dict[str, float]:
    """How far two models' logits are apart at the most, and how far the adapter moves the base's.

    Raises CanaryFailed above what rounding the weights to `out_type` explains, or above half of what the adapter does.
    """
    words = min(found.shape[-1], expected.shape[-1])  # a GGUF holds no words beyond the tokenizer's and the padding
    off = float((found[:, :words] - expected[:, :words]).abs().max())
    effect = float((expected - alone).abs().max())
    allowed = min(ALLOWED[out_type], max(ALLOWED["f32"], effect / 2))
    if not off <= allowed:
        raise CanaryFailed(
            f"what was written is off by {off:.3g} in the canary's logits, {allowed:.3g} is allowed for {out_type} and an"
            f" adapter that moves them by {effect:.3g}: nothing was kept; choose a finer --outtype, or --format peft"
        )
    return {"max_logit_difference": off, "adapter_effect": effect}
