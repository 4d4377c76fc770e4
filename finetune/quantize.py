"""A base model in 4 bits, for one that does not fit otherwise: NF4 with double quantisation, by bitsandbytes.

The linear layers alone are quantised, the LoRA on them is trained in fp32 (Dettmers et al., QLoRA, 2023).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
import transformers

EXTRA = "turnout[quantize]"
_DEVICES = ("cuda", "cpu")  # what bitsandbytes has kernels for, and what is tested


def is_possible(device: torch.device) -> bool:
    """Whether a base model can be held in 4 bits here. Imports nothing: bitsandbytes takes seconds."""
    return device.type in _DEVICES and importlib.util.find_spec("bitsandbytes") is not None


def way_out(device: torch.device) -> str:
    """What would make it possible, in words; empty where it is, and where nothing would."""
    missing = device.type in _DEVICES and not is_possible(device)
    return f"install {EXTRA} for a 4-bit base" if missing else ""


def load_options(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What `from_pretrained` must be given; it quantises each weight as it reads it, and puts it on the device."""
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_one_format(base: Any) -> None:
    """Let scoring read the very weights that training reads, in place.

    On CPUs with AVX512-BF16 bitsandbytes repacks them at the first pass without a gradient: refused where their rows are
    not 32 by 32, lossy in bf16, and slower to take back for the next step.
    """
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
