"""A LoRA as llama.cpp loads it beside its base: `general.type` adapter, and the pair of each layer by llama.cpp's names."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from finetune.export.families import Layout
from finetune.export.gguf_model import About
from finetune.export.weights import Lora
from prompts.errors import BadInput

_TYPES = {"f32": np.float32, "f16": np.float16}


def write(lora: Lora, layout: Layout, about: About, path: Path, out_type: str) -> None:
    """Write the file: `NAME.lora_a` is (rank, in), `NAME.lora_b` (out, rank), scaled by alpha / rank where it is loaded."""
    writer = gguf.GGUFWriter(path, layout.arch_name)
    try:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_name(about.name)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, lora.scale * lora.rank)  # of any scaling of its own
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, about.base_name)
        if about.licence:
            writer.add_license(about.licence)
        for layer, pair in lora.pairs.items():
            name = layout.name_of(f"{layer}.weight")
            b = layout.laid_out(f"{layer}.weight", pair.b)
            for suffix, tensor in (("lora_a", pair.a), ("lora_b", b)):
                writer.add_tensor(f"{name}.{suffix}", tensor.numpy().astype(_TYPES[out_type]))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def check(lora: Lora, layout: Layout, path: Path, out_type: str) -> int:
    """Read the file back; gives how many layers it has. Raises BadInput where a tensor is not what was given."""
    held = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    for layer, pair in lora.pairs.items():
        name = layout.name_of(f"{layer}.weight")
        wanted = {"lora_a": pair.a, "lora_b": layout.laid_out(f"{layer}.weight", pair.b)}
        for suffix, tensor in wanted.items():
            found = held.pop(f"{name}.{suffix}", None)
            given = tensor.numpy().astype(_TYPES[out_type])
            if found is None or not np.array_equal(found, given):
                raise BadInput(f"{path.name}: {name}.{suffix} was not written as it is: nothing was kept")
    if held:
        raise BadInput(f"{path.name} holds {next(iter(held))}, which the adapter has none of: nothing was kept")
    return len(lora.pairs)
