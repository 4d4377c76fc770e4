"""The model families that a GGUF can be written of, by llama.cpp's names: its documentation calls them architectures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import gguf
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prompts.errors import BadInput


@dataclass(frozen=True)
class Family:
    """`permutes`: llama.cpp turns pairs of neighbouring rows of queries and keys where transformers turns halves."""

    arch: gguf.MODEL_ARCH
    permutes: bool = False


FAMILIES = {
    "llama": Family(gguf.MODEL_ARCH.LLAMA, permutes=True),
    "mistral": Family(gguf.MODEL_ARCH.LLAMA, permutes=True),
    "qwen2": Family(gguf.MODEL_ARCH.QWEN2),
    "qwen3": Family(gguf.MODEL_ARCH.QWEN3),
}
_ROPES = ("default", "linear", "llama3")


@dataclass(frozen=True)
class Layout:
    """How a base model's tensors are called and laid out in a GGUF; `config` is its config.json."""

    config: Mapping[str, Any]
    family: Family

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Layout:
        """Raises BadInput, saying what cannot be written and why."""
        kind = config.get("model_type")
        if kind not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise BadInput(
                f"no GGUF of model_type {kind!r}: its tensors have a layout of their own; {known} can be written. Export"
                " --format merged, and convert that with llama.cpp's convert_hf_to_gguf.py",
                param="format",
            )
        layout = cls(config, FAMILIES[kind])
        if layout.rope_type not in _ROPES:
            _refuse(f"rotary positions of type {layout.rope_type!r} (only {', '.join(_ROPES)})")
        if config.get("use_sliding_window"):
            _refuse("a sliding window of attention")
        if config.get("mlp_bias"):
            _refuse("biases in its MLP")
        return layout

    @property
    def arch_name(self) -> str:
        return str(gguf.MODEL_ARCH_NAMES[self.family.arch])

    @property
    def layers(self) -> int:
        return int(self.config["num_hidden_layers"])

    @property
    def heads(self) -> int:
        return int(self.config["num_attention_heads"])

    @property
    def kv_heads(self) -> int:
        return int(self.config.get("num_key_value_heads") or self.heads)

    @property
    def head_dim(self) -> int:
        return int(self.config.get("head_dim") or self.config["hidden_size"] // self.heads)

    @property
    def rope(self) -> Mapping[str, Any]:
        """Of `rope_parameters`, as transformers 5 writes them, or of `rope_scaling` and `rope_theta`, as those before did."""
        given = self.config.get("rope_parameters") or self.config.get("rope_scaling") or {}
        return {"rope_theta": self.config.get("rope_theta", 10_000.0), **given}

    @property
    def rope_type(self) -> str:
        return str(self.rope.get("rope_type") or self.rope.get("type") or "default")

    def name_of(self, tensor: str) -> str:
        """A tensor's name in the GGUF. Raises BadInput for one that the family does not have."""
        known = gguf.get_tensor_name_map(self.family.arch, self.layers)
        found = known.get_name(tensor, try_suffixes=(".weight", ".bias"))
        if found is None:
            _refuse(f"a tensor {tensor!r}, which {self.arch_name} has none of")
        return str(found)

    def laid_out(self, tensor: str, rows: Tensor) -> Tensor:
        """The rows of a weight, of a bias or of a LoRA's B in llama.cpp's order."""
        for projection, heads in (("q_proj", self.heads), ("k_proj", self.kv_heads)):
            if self.family.permutes and f".{projection}." in f"{tensor}.":
                halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
                return halves.transpose(1, 2).reshape(rows.shape).contiguous()
        return rows

    def rope_factors(self) -> npt.NDArray[np.float32] | None:
        """By what llama3's scaling divides each frequency, None without it.

        As in Meta's reference: waves longer than the context it was trained on are slowed by `factor`, those much shorter
        are left, and those between go from one to the other in a straight line.
        """
        if self.rope_type != "llama3":
            return None
        rope = self.rope
        exponents = torch.arange(0, self.head_dim, 2, dtype=torch.float64) / self.head_dim
        waves = 2 * math.pi * float(rope["rope_theta"]) ** exponents
        context = float(rope["original_max_position_embeddings"])
        low, high, factor = (float(rope[name]) for name in ("low_freq_factor", "high_freq_factor", "factor"))
        smooth = ((context / waves - low) / (high - low)).clamp(0, 1)
        factors: npt.NDArray[np.float32] = (1 / ((1 - smooth) / factor + smooth)).float().numpy()
        return factors


def _refuse(what: str) -> NoReturn:
    raise BadInput(f"the base model has {what}: no GGUF of it can be written; use --format merged", param="format")
