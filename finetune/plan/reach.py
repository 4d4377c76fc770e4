"""How far a model reads, from its `config.json`: how many tokens it may be given, and what each of them attends to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")  # older families name it otherwise
_BY_LENGTH = ("longrope", "su", "yarn_dynamic", "dynamic")


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part about text of a configuration that may have parts about images."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def context_tokens(config: Mapping[str, Any]) -> int:
    """The most tokens that prompt and answer may have together; 0 where the configuration does not say.

    Some models turn all positions by other angles once a text is longer than what they were first trained on (`longrope`
    of Phi-3 and Phi-4-mini, `dynamic`). Keys that were computed before, and other rows of a batch, are then those of
    another model: such a model is used up to that length, where every way of computing it agrees.
    """
    text = text_config(config)
    most = next((int(text[name]) for name in _LENGTHS if text.get(name)), 0)
    ends = [_first_length(rope, text) for rope in _ropes(text) if _rope_type(rope) in _BY_LENGTH]
    return min([most, *(end for end in ends if end)])


def window_tokens(config: Mapping[str, Any]) -> int | None:
    """How many tokens a layer with a sliding window sees, itself included; None where every layer sees all."""
    text = text_config(config)
    window = text.get("sliding_window") if text.get("use_sliding_window", True) else None
    kinds = text.get("layer_types")
    if kinds and "sliding_attention" not in kinds:
        return None
    return int(window) if window else None


def _ropes(text: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name in ("rope_parameters", "rope_scaling"):
        held = text.get(name)
        if isinstance(held, Mapping):
            inner = [value for value in held.values() if isinstance(value, Mapping)]  # one for each kind of layer
            yield from inner or [held]


def _rope_type(rope: Mapping[str, Any]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _first_length(rope: Mapping[str, Any], text: Mapping[str, Any]) -> int:
    given = rope.get("original_max_position_embeddings") or text.get("original_max_position_embeddings")
    return int(given or text.get("max_position_embeddings") or 0)
