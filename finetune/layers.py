"""Hidden states of packs by decoder layers written out, for the families whose layers are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from finetune.attention import blocks, label_blocks, takes_spans
from finetune.halves import Half, Linear, Place, attention_half, mlp_half
from finetune.lora import LeanLinear
from finetune.packing import Pack

_FAMILIES = {"LlamaModel", "MistralModel", "Qwen2Model"}  # bodies of transformers whose layers are as in `halves`
_ADAPTER = "default"


def label_hidden(model: Any, pack: Pack) -> torch.Tensor | None:
    """Hidden states (N, C) where a label is predicted; None for a model, or a way to train it, that is not known here.

    The last layer is computed for these N tokens alone: of the others it needs keys and values only.
    """
    body = getattr(model, model.base_model_prefix)
    if not takes_spans(model) or not _is_known(body):
        return None
    halves = [(_attention_of(layer), _mlp_of(layer)) for layer in body.layers]
    x = body.embed_tokens(pack.ids)
    place = _place(body, pack, x)
    x = x[0]
    for number, (attention, mlp) in enumerate(halves, start=1):
        if number == len(halves):
            place = replace(place, parts=label_blocks(pack.spans, pack.label_counts), asking=pack.label_at)
        x = mlp_half(attention_half(x, attention, place), mlp)
    return body.norm(x)  # type: ignore[no-any-return]  # bodies of transformers are untyped


def _place(body: Any, pack: Pack, x: torch.Tensor) -> Place:
    cos, sin = body.rotary_emb(x, position_ids=pack.positions)  # (1, T, D), both halves of D the same
    attention, half = body.layers[0].self_attn, cos.shape[-1] // 2
    return Place(
        cos=cos[0, :, :half],
        sin=sin[0, :, :half],
        parts=blocks(pack.spans),
        groups=attention.k_proj.out_features // attention.head_dim,
        scale=attention.scaling,
    )


def _is_known(body: Any) -> bool:
    """Whether each part is of the shape written out here, and trained in the plain way."""
    config = body.config
    if type(body).__name__ not in _FAMILIES or not type(body).__module__.startswith("transformers.models."):
        return False
    dropped = body.training and getattr(config, "attention_dropout", 0)
    checkpointed = body.training and any(getattr(layer, "gradient_checkpointing", False) for layer in body.layers)
    if config.hidden_act != "silu" or dropped or checkpointed:
        return False
    width = body.embed_tokens.weight.dtype
    return all(_is_lean(layer, width) for layer in body.layers)


def _is_lean(layer: Any, dtype: torch.dtype) -> bool:
    linears = [*_attention_linears(layer), *_mlp_linears(layer)]
    return all(type(one) is LeanLinear and one.is_plain(dtype) and one.scaling == linears[0].scaling for one in linears)


def _attention_linears(layer: Any) -> list[Any]:
    attention = layer.self_attn
    return [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]


def _mlp_linears(layer: Any) -> list[Any]:
    return [layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj]


def _attention_of(layer: Any) -> Half:
    return _half(layer.input_layernorm, _attention_linears(layer))


def _mlp_of(layer: Any) -> Half:
    return _half(layer.post_attention_layernorm, _mlp_linears(layer))


def _half(norm: Any, linears: list[Any]) -> Half:
    parts = tuple(_linear(one) for one in linears)
    return Half(norm.weight, norm.variance_epsilon, parts, linears[0].scaling[_ADAPTER])


def _linear(layer: LeanLinear) -> Linear:
    base = layer.get_base_layer()
    return Linear(base.weight, base.bias, layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight)
