"""A whole model as one GGUF file: weights, tokenizer and chat template, for llama.cpp, Ollama and what builds on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, LlamaFileType
from gguf.quants import quant_shape_to_byte_shape, quantize

from finetune.export.families import Layout
from finetune.export.vocabulary import Vocabulary
from finetune.export.weights import MergedWeights

_TYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
_BLOCK = 32  # weights that Q8_0 rounds together
_HEAD, _ROPE = "lm_head.weight", "rope_freqs.weight"


@dataclass(frozen=True)
class About:
    """What the file says of the model beside its layout; `licence` may be empty."""

    name: str
    base_name: str
    licence: str


@dataclass(frozen=True)
class _Planned:
    """One tensor of the file, in the order in which they are written. `source` is its name in the base."""

    name: str
    source: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType


def needed_bytes(weights: MergedWeights, out_type: str) -> int:
    """Amply: the vocabulary is a few megabytes more."""
    return int(weights.count() * {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 1.0625}[out_type]) + 16_000_000


def write(
    weights: MergedWeights, layout: Layout, vocabulary: Vocabulary, about: About, path: Path, out_type: str
) -> None:
    """Write the file, one tensor in memory at a time. Norms and biases stay in fp32, as llama.cpp has them."""
    kind, file_type = _TYPES[out_type]
    writer = gguf.GGUFWriter(path, layout.arch_name)
    try:
        _describe(writer, about)
        _shape(writer, layout)
        writer.add_file_type(file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        vocabulary.write(writer)
        plan = _plan(weights, layout, kind)
        for tensor in plan:
            _announce(writer, tensor)
        factors = layout.rope_factors()
        if factors is not None:
            writer.add_tensor_info(_ROPE, factors.shape, factors.dtype, factors.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for data in _data(weights, layout, plan):
            writer.write_tensor_data(data)
        if factors is not None:
            writer.write_tensor_data(factors)
    finally:
        writer.close()


def _describe(writer: gguf.GGUFWriter, about: About) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(about.name)
    writer.add_finetune(about.name)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, about.base_name)
    if about.licence:
        writer.add_license(about.licence)


def _shape(writer: gguf.GGUFWriter, layout: Layout) -> None:
    config = layout.config
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(layout.layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(layout.heads)
    writer.add_head_count_kv(layout.kv_heads)
    writer.add_key_length(layout.head_dim)
    writer.add_value_length(layout.head_dim)
    writer.add_rope_dimension_count(layout.head_dim)
    writer.add_rope_freq_base(float(layout.rope["rope_theta"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    if layout.rope_type == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(layout.rope["factor"]))


def _plan(weights: MergedWeights, layout: Layout, kind: GGMLQuantizationType) -> list[_Planned]:
    is_tied = bool(layout.config.get("tie_word_embeddings"))
    names = [name for name in weights.names if not (is_tied and name == _HEAD)]
    found = []
    for name in names:
        if name.endswith("rotary_emb.inv_freq"):  # of old folders; it follows from the configuration
            continue
        shape = weights.shape(name)
        found.append(_Planned(layout.name_of(name), name, shape, _kind_of(shape, kind)))
    return found


def _kind_of(shape: tuple[int, ...], kind: GGMLQuantizationType) -> GGMLQuantizationType:
    if len(shape) < 2:
        return GGMLQuantizationType.F32
    if kind == GGMLQuantizationType.Q8_0 and shape[-1] % _BLOCK:
        return GGMLQuantizationType.F16
    return kind


def _announce(writer: gguf.GGUFWriter, tensor: _Planned) -> None:
    held = quant_shape_to_byte_shape(tensor.shape, tensor.kind)
    plain: Any = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}.get(tensor.kind)
    shape, dtype = (held, np.uint8) if plain is None else (tensor.shape, plain)
    writer.add_tensor_info(tensor.name, shape, np.dtype(dtype), int(np.prod(held)), raw_dtype=tensor.kind)


def _data(weights: MergedWeights, layout: Layout, plan: list[_Planned]) -> Iterator[npt.NDArray[Any]]:
    for tensor in plan:
        rows = layout.laid_out(tensor.source, weights.merged(tensor.source))
        yield quantize(rows.numpy(), tensor.kind)
