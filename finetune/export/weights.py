"""The weights of a base model with a LoRA added, one tensor at a time: 8B parameters need the memory of one tensor."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from finetune import adapter
from prompts.errors import BadInput

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Pair:
    """The LoRA of one linear layer: `a` is (rank, in), `b` (out, rank), both fp32."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True)
class Lora:
    """A plain LoRA: the pair of each layer by the layer's name in the base model, and what their product is scaled by."""

    pairs: dict[str, Pair]
    rank: int
    scale: float


def read_lora(folder: Path) -> Lora:
    """The LoRA of an adapter folder that was verified. Raises BadInput where it holds other tensors than pairs."""
    config = json.loads((folder / adapter.CONFIG).read_bytes())
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    with safe_open(folder / adapter.WEIGHTS, framework="pt") as file:
        held = {name: file.get_tensor(name).float() for name in adapter.tensor_header(folder / adapter.WEIGHTS)}
    layers = {name.removesuffix(_A).removesuffix(_B) for name in held}
    for layer in sorted(layers):
        if not layer.startswith(_PREFIX) or layer + _A not in held or layer + _B not in held:
            raise BadInput(f"adapter {folder}: {layer} is not the LoRA of a linear layer", param="adapter")
    pairs = {layer.removeprefix(_PREFIX): Pair(held[layer + _A], held[layer + _B]) for layer in sorted(layers)}
    return Lora(pairs, rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


class MergedWeights:
    """The tensors of a base model's folder, a LoRA's product added where it has one, in fp32."""

    def __init__(self, base_folder: Path, lora: Lora) -> None:
        """Raises BadInput for a quantised base, or a LoRA on layers that the base does not have."""
        self.config: dict[str, Any] = json.loads((base_folder / "config.json").read_bytes())
        if self.config.get("quantization_config"):
            method = self.config["quantization_config"].get("quant_method", "some")
            raise BadInput(f"{base_folder} is quantised ({method}): nothing can be added to its weights", param="base")
        self._lora = lora
        self.files = weight_files(base_folder)
        self._headers = {path: adapter.tensor_header(path) for path in self.files}
        self._of = {name: path for path, header in self._headers.items() for name in header}
        missing = [name for name in lora.pairs if f"{name}.weight" not in self._of]
        if missing:
            raise BadInput(
                f"the adapter has a LoRA on {missing[0]!r}, and {base_folder} no weights of that name", param="base"
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._of)

    def names_in(self, path: Path) -> tuple[str, ...]:
        """The tensors of one of `files`."""
        return tuple(self._headers[path])

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._headers[self._of[name]][name]["shape"])

    def count(self) -> int:
        """Parameters of all tensors."""
        return sum(math.prod(self.shape(name)) for name in self.names)

    def base_type(self) -> str:
        """The type of most of the base's weights, as safetensors writes it: F32, F16 or BF16."""
        sizes: dict[str, int] = {}
        for header in self._headers.values():
            for entry in header.values():
                sizes[entry["dtype"]] = sizes.get(entry["dtype"], 0) + math.prod(entry["shape"])
        return max(sizes, key=lambda kind: sizes[kind])

    def merged(self, name: str) -> Tensor:
        """A tensor in fp32; of a layer with a LoRA: weight + scale · B·A."""
        with safe_open(self._of[name], framework="pt") as file:
            weight: Tensor = file.get_tensor(name).float()
        pair = self._lora.pairs.get(name.removesuffix(".weight"))
        if pair is None or not name.endswith(".weight"):
            return weight
        return weight.addmm_(pair.b, pair.a, alpha=self._lora.scale)


def weight_files(base_folder: Path) -> tuple[Path, ...]:
    """The weights' files that transformers reads: some folders hold the same weights a second time."""
    if (base_folder / _INDEX).is_file():
        listed = json.loads((base_folder / _INDEX).read_bytes())["weight_map"].values()
        return tuple(base_folder / name for name in sorted(set(listed)))
    if (base_folder / _SINGLE).is_file():
        return (base_folder / _SINGLE,)
    return tuple(sorted(base_folder.glob("*.safetensors")))
