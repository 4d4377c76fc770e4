"""Tiny random models of the families that the engine serves, each by transformers' own configuration.

Windows are shorter than the prompts of the tests, so that an attention that counts them wrongly shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny_model import make_tiny_model

WINDOW = 12
_SHAPE: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "tie_word_embeddings": True,
    "initializer_range": 0.3,
}
_ALTERNATING = ["sliding_attention", "full_attention"]
_LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 6, "long_factor": [4.0] * 6, "rope_theta": 10000.0}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "qwen2": {"model_type": "qwen2"},
    "qwen2-windows": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 1,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "gemma2": {
        "model_type": "gemma2",
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": WINDOW,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": WINDOW,
        "layer_types": _ALTERNATING,
    },
    "mistral": {"model_type": "mistral", "sliding_window": WINDOW},
    "mistral-no-window": {"model_type": "mistral", "sliding_window": None},
    "phi3": {"model_type": "phi3", "sliding_window": WINDOW},
    "phi4": {  # as Phi-4-mini: rotary positions for short and for long texts
        "model_type": "phi3",
        "sliding_window": None,
        "original_max_position_embeddings": 256,
        "rope_parameters": {**_LONGROPE, "original_max_position_embeddings": 256},
    },
}


def make_tiny_family(folder: Path, family: str, *, seed: int = 0, **changes: Any) -> Path:
    """Write a tiny random model of `family` with the tokenizer of `make_tiny_model`; returns the folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    make_tiny_model(folder)
    settings = {**_SHAPE, **FAMILIES[family], **changes}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(seed)
    network = AutoModelForCausalLM.from_config(config)
    for name, weight in network.named_parameters():
        if "embed_tokens" in name:  # which Gemma multiplies: the last token would be said again and again
            torch.nn.init.normal_(weight, std=0.02 if "gemma" in family else 0.5)
        elif "norm" in name:
            torch.nn.init.normal_(weight, mean=0.0 if "gemma" in family else 1.0, std=0.3)
    network.to(torch.float32).save_pretrained(folder)
    return folder
