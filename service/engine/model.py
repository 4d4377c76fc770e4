"""A causal language model held once, its tokenizer, and the forward pass that its family allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetune.plan import main_memory
from finetune.plan.loading import lacking_weights
from finetune.plan.reach import context_tokens
from prompts.chat import encode_prompt, end_of_turn
from service.engine.adapters import AdapterFiles
from service.engine.cache import Ids
from service.engine.forward import Forward
from service.engine.layers import Decoder, is_known
from service.engine.own import OwnForward
from service.engine.whole import WholeForward
from service.engine.windows import Windows
from service.errors import CannotRun

_PACKING_LEAVES = 4  # times what the packed weights take: the rest is for answers, and for whoever else is here


def choose_device(wanted: str) -> torch.device:
    """`auto` is CUDA, else MPS, else the CPU. Raises CannotRun where a device named outright is absent."""
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(name for name, here in present.items() if here))
    if not present.get(wanted, False):
        raise CannotRun(f"device {wanted!r} is not on this machine; here are: {[k for k, v in present.items() if v]}")
    return torch.device(wanted)


class LoadedModel:
    """The base model, its tokenizer and its adapters. Used by one thread only.

    `stop_ids` end an answer, `context` is the most tokens that prompt and answer may have together, `bytes_per_token` are
    those of keys and values over all layers.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder = folder
        self.device = device
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.tokenizer, self.network = _load(folder, device, self.dtype)
        config = self.network.config
        self.windows = Windows.of(config, str(folder))
        self.layers = int(config.num_hidden_layers)
        self.context = context_tokens(config.to_dict())
        if not self.context:
            raise CannotRun(
                f"{folder / 'config.json'} does not say how many tokens the model reads: set its"
                " max_position_embeddings"
            )
        self.vocabulary = int(config.vocab_size)
        self.stop_ids = _stop_ids(self.tokenizer, self.network)
        self.end_of_turn = end_of_turn(self.tokenizer)
        self.bytes_per_token = 2 * self.layers * _keys_width(config) * self.dtype.itemsize
        self.forward = choose_forward(self.network, self.windows)

    @property
    def weights_bytes(self) -> int:
        """Of the base model, tied weights counted once, and of PEFT's layers where adapters are such."""
        return _weights_bytes(self.network)

    @property
    def adapters(self) -> tuple[str, ...]:
        return self.forward.adapters

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> Ids:
        """Raises BadInput where the chat template refuses the messages."""
        return np.asarray(encode_prompt(self.tokenizer, messages), dtype=np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def add_adapter(self, name: str, files: AdapterFiles) -> None:
        """Raises BadInput where its weights do not fit this model."""
        self.forward.add_adapter(name, files)

    def remove_adapter(self, name: str) -> None:
        self.forward.remove_adapter(name)


def choose_forward(network: Any, windows: Windows) -> Forward[Any]:
    """Our own layers on a CPU where the family is known and nothing is hidden by a window; else transformers' own.

    Our own have no kernel of a GPU behind them: they compute there, too, but more slowly than those of transformers.
    """
    if network.device.type == "cpu" and windows.window is None and is_known(network):
        decoder = Decoder(network)
        if _weights_bytes(network) <= main_memory.free_bytes() // _PACKING_LEAVES:
            decoder.pack()
        return OwnForward(decoder)
    return WholeForward(network, windows)


def _keys_width(config: Any) -> int:
    """Of one layer's keys of a token, over all heads that have their own; older families have them all."""
    heads = int(config.num_attention_heads)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int((getattr(config, "num_key_value_heads", None) or heads) * width)


def _weights_bytes(network: Any) -> int:
    return sum(weight.numel() * weight.element_size() for weight in network.parameters())


def _load(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    safe = {"trust_remote_code": False, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        network, found = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **safe
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise CannotRun(f"the model in {folder} cannot be loaded: {error}") from error
    if lacking := lacking_weights(found):
        raise CannotRun(f"the model in {folder} cannot be loaded: its weights lack {lacking}; get it anew")
    network.eval().requires_grad_(False)
    return tokenizer, network.to(device)


def _stop_ids(tokenizer: Any, network: Any) -> frozenset[int]:
    configured = network.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    found = [end_of_turn(tokenizer), tokenizer.eos_token_id, *several]
    return frozenset(int(index) for index in found if index is not None)
