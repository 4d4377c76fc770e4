"""The base model with its LoRA, as a training holds it."""

from __future__ import annotations

import contextlib
import math
import warnings
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from finetune import quantize, scoring
from finetune.attention import use_packed_attention
from finetune.encoding import EncodedRow, RefusedError
from finetune.lora import make_lean
from finetune.packing import pack
from finetune.plan import JobSpec, reach
from finetune.plan.loading import lacking_weights
from prompts.errors import BadInput

_SAME_FP32 = 1e-3  # how far packed hidden states may be from the same rows alone, as a share of their norm
_SAME_BF16 = 0.05


def context_tokens(base_folder: Path) -> int:
    """The longest row: what the positions reach, and no more than a sliding window sees at once."""
    config = transformers.AutoConfig.from_pretrained(base_folder, local_files_only=True).to_dict()
    return int(min(reach.context_tokens(config), reach.window_tokens(config) or math.inf))


def weights_dtype(device: torch.device) -> torch.dtype:
    """bf16 on CUDA, else fp32."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def load(spec: JobSpec, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """The base model with a fresh LoRA on every linear layer but the head; the LoRA fp32.

    What is not quantised has `dtype`, by default `weights_dtype`. For several devices the model stays in main memory, and
    as transformers and peft have it: what computes by other ways than a layer's own call would find its weights in shards.
    """
    dtype = dtype or weights_dtype(device)
    base, found = transformers.AutoModelForCausalLM.from_pretrained(
        spec.base_folder,
        dtype=dtype,
        attn_implementation=_attention(spec.base_folder),
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        **(quantize.load_options(device, dtype) if spec.four_bit else {}),
    )
    if lacking := lacking_weights(found):
        said = f"{spec.base_folder} cannot be trained: its weights lack {lacking}; get the model anew"
        raise BadInput(said, param="model")
    if spec.four_bit:
        quantize.keep_one_format(base)
    ours = device.type == "cpu" and spec.devices == 1 and not spec.compile
    if ours:
        use_packed_attention(base)
    recipe = spec.recipe
    lora = peft.LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=sorted(_linear_names(base)),
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 for a property by its former name
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        model = peft.get_peft_model(base, lora)
    if ours:
        make_lean(model)
    if spec.gradient_checkpointing:
        checkpoint_layers(model)
    reset_lora(model, recipe.seed)
    is_placed = spec.four_bit or spec.devices > 1  # a quantised one was loaded to where it is
    return model if is_placed else model.to(device)


def _attention(base_folder: Path) -> str:
    """SDPA, but for families that cap their scores (Gemma 2), which only the attention written out does."""
    config = transformers.AutoConfig.from_pretrained(base_folder, local_files_only=True).get_text_config()
    return "eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa"


def checkpoint_layers(model: Any) -> None:
    """Keep the inputs of the decoder layers alone for the backward pass, which computes the rest again; in place."""
    base = model.get_base_model()
    enable = getattr(base, "activation_checkpointing_enable", None)  # so called by transformers 5.23; before, as below
    (enable or base.gradient_checkpointing_enable)({"use_reentrant": False})


@torch.no_grad()
def reset_lora(model: Any, seed: int) -> None:
    """Begin anew in place: the LoRA that a fresh `load` with this seed has, whatever was trained before.

    A is Kaiming's uniform with a = √5, B zero, as peft has it; drawn on the CPU, so that every device begins alike.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, param in model.named_parameters():
        if "lora_A" in name:
            drawn = torch.empty(param.shape, dtype=torch.float32)
            torch.nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            param.copy_(drawn)
        elif "lora_B" in name:
            param.zero_()


def set_dropout(model: Any, share: float) -> None:
    """Let the LoRA drop this share of its inputs while it trains, in place; 0 for none."""
    config = model.peft_config["default"]
    if config.lora_dropout == share:
        return
    config.lora_dropout = share
    for module in model.modules():
        if isinstance(getattr(module, "lora_dropout", None), torch.nn.ModuleDict):
            module.lora_dropout["default"] = torch.nn.Dropout(share) if share else torch.nn.Identity()


def _linear_names(base: Any) -> set[str]:
    """Last parts of the names of all linear layers but the head, which is how adapters of others name them too."""
    head = base.get_output_embeddings()
    linears = (
        name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear) and module is not head
    )
    return {name.rpartition(".")[2] for name in linears}


@torch.no_grad()
def check_packing(model: Any, rows: list[EncodedRow]) -> None:
    """Refuse a model that, packed, does not see what it sees row by row: a recurrent one, say."""
    base, two = model.get_base_model().eval(), sorted(rows, key=lambda row: len(row.ids))[:2]
    device = next(base.parameters()).device
    with precision(device):
        packed = scoring.label_hidden(base, pack(two, device)).float()
        alone = torch.cat([_alone(base, row) for row in two]).float()
    difference = float((packed - alone).norm() / alone.norm())
    if not difference <= (_SAME_BF16 if device.type == "cuda" else _SAME_FP32):
        reason = f"this model's architecture cannot be packed: its states differ by {difference:.1%}"
        raise RefusedError([reason])


def _alone(base: Any, row: EncodedRow) -> torch.Tensor:
    """Hidden states (N, D) of one row's labels by the model's own forward pass, which knows nothing of packs."""
    ids = torch.tensor([row.ids[:-1]], device=next(base.parameters()).device)
    states = getattr(base, base.base_model_prefix)(input_ids=ids, use_cache=False).last_hidden_state
    return states[0, -len(row.labels) :]  # type: ignore[no-any-return]  # bodies of transformers are untyped


def precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """On CUDA the LoRA is computed in bf16 from its fp32 master."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()
