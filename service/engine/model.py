"""A causal language model held once, and LoRA adapters laid over its weights one at a time."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prompts.chat import encode_prompt, end_of_turn
from prompts.errors import BadInput
from service.engine.adapters import AdapterFiles
from service.engine.cache import Ids
from service.errors import CannotRun


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

    `stop_ids` end an answer, `context` is the most tokens that prompt and answer may have together.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder = folder
        self.device = device
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.tokenizer, self.network = _load(folder, device, self.dtype)
        config = self.network.config
        self.layers = int(config.num_hidden_layers)
        self.context = int(config.max_position_embeddings)
        self.vocabulary = int(config.vocab_size)
        self.stop_ids = _stop_ids(self.tokenizer, self.network)
        self._over: _Adapters | None = None
        self._active: str | None = None

    @property
    def bytes_per_token(self) -> int:
        """Of keys and values, over all layers."""
        config = self.network.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(2 * self.layers * config.num_key_value_heads * head_dim * self.dtype.itemsize)

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(sorted(self._over.names)) if self._over else ()

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> Ids:
        """Raises BadInput where the chat template refuses the messages."""
        return np.asarray(encode_prompt(self.tokenizer, messages), dtype=np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def logits(self, adapter: str | None, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """Of each row's last token, [rows, vocabulary] in fp32.

        `ids` and `positions` are [rows, new columns], `mask` [rows, all columns] is False at padding; the cache gets
        the new columns.
        """
        self._use(adapter)
        with torch.inference_mode():
            out = self.network(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        last: Tensor = out.logits[:, -1].float()
        return last

    def add_adapter(self, name: str, files: AdapterFiles) -> None:
        """Lay an adapter over the weights, inactive. Raises BadInput where its weights do not fit this model."""
        if self._over is None:
            self._over = _Adapters(self.network)
        try:
            self._over.add(name, files)
        finally:
            self._over.activate(None)  # peft makes the first adapter active, whether it was wanted or not
            self._active = None

    def remove_adapter(self, name: str) -> None:
        if self._over is not None:
            self._over.remove(name)
            self._over.activate(None)
            self._active = None
            gc.collect()

    def _use(self, adapter: str | None) -> None:
        if adapter != self._active:
            if self._over is not None:
                self._over.activate(adapter)
            self._active = adapter


def _load(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    safe = {"trust_remote_code": False, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True, **safe)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CannotRun(f"the model in {folder} cannot be loaded: {error}") from error
    _refuse_unknown_attention(folder, network.config)
    network.eval().requires_grad_(False)
    return tokenizer, network.to(device)


def _refuse_unknown_attention(folder: Path, config: Any) -> None:
    # Windows count columns, and padding columns would be counted with them: answers would be wrong, not slow.
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or (getattr(config, "sliding_window", None) and not hasattr(config, "layer_types")):
        raise CannotRun(
            f"the model in {folder} attends through a sliding window or without attention ({', '.join(sorted(kinds))}),"
            " which the embedded engine does not do: serve it with vLLM and name its base_url in turnout.yaml"
        )


def _stop_ids(tokenizer: Any, network: Any) -> frozenset[int]:
    configured = network.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    found = [end_of_turn(tokenizer), tokenizer.eos_token_id, *several]
    return frozenset(int(index) for index in found if index is not None)


class _Adapters:
    """The LoRA layers that peft puts into a network, and which adapter they compute with."""

    def __init__(self, network: Any) -> None:
        self.names: dict[str, str] = {}  # ours → peft's, which may not hold a dot
        self._network = network
        self._peft: Any = None
        self._made = 0

    def add(self, name: str, files: AdapterFiles) -> None:
        from peft import LoraConfig, get_peft_model
        from peft.utils import set_peft_model_state_dict
        from safetensors.torch import load_file

        config = LoraConfig(
            r=files.rank,
            lora_alpha=files.alpha,
            use_rslora=files.rank_stabilized,
            target_modules=list(files.target_modules),
            inference_mode=True,
        )
        self._made += 1
        inner = f"adapter{self._made}"
        weights = load_file(files.weights)
        try:
            if self._peft is None:
                self._peft = get_peft_model(self._network, config, inner, autocast_adapter_dtype=False)
            else:
                self._peft.add_adapter(inner, config, autocast_adapter_dtype=False)
            result = set_peft_model_state_dict(self._peft, weights, adapter_name=inner)
            _check_fit(files, inner, weights, result)
        except (ValueError, RuntimeError, KeyError, BadInput) as error:
            self._forget(inner)
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"adapter {files.folder} does not fit the model: {error}", param="lora_path") from error
        self._network.eval().requires_grad_(False)
        self.names[name] = inner

    def remove(self, name: str) -> None:
        self._forget(self.names.pop(name))

    def activate(self, name: str | None) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        for layer in self._network.modules():
            if isinstance(layer, BaseTunerLayer):
                layer.enable_adapters(name is not None)
                if name is not None:
                    layer.set_adapter([self.names[name]], inference_mode=True)

    def _forget(self, inner: str) -> None:
        # Not by peft's delete_adapter, which makes another adapter active by itself. The configuration stays: peft
        # looks up that of its active adapter when the next one comes.
        from peft.tuners.tuners_utils import BaseTunerLayer

        for layer in self._network.modules():
            if isinstance(layer, BaseTunerLayer):
                for kind in (*layer.adapter_layer_names, *layer.other_param_names):
                    held: Any = getattr(layer, kind, {})
                    if hasattr(held, "pop") and inner in held:
                        held.pop(inner)


def _check_fit(files: AdapterFiles, inner: str, weights: Mapping[str, Tensor], result: Any) -> None:
    missing = [key for key in result.missing_keys if inner in key.split(".")]
    for key, why in [(key, "which this model does not have") for key in result.unexpected_keys] + [
        (key, f"which {files.weights.name} does not hold") for key in missing
    ]:
        raise BadInput(f"adapter {files.folder} is for {key!r}, {why}: train it on this model", param="lora_path")
    for key, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise BadInput(f"adapter {files.folder}: {key} is not finite; train it again", param="lora_path")
