"""Attention of packed rows on the CPU, computing only what is seen.

A pack `[prefix | row 1 | row 2 | …]` sees far less than T × T: the prefix itself (causal), every own token the whole
prefix, and each row itself (causal). These are computed apart by torch's flash kernel, and put together by their
logarithms of summed exponentials, as FlashAttention does with its blocks (Dao et al., 2022, section 3.1): for one query,
out = Σ outᵢ · exp(lseᵢ - lse) with lse = log Σ exp(lseᵢ). The backward pass of each part takes the lse and the output of
the whole, so that its probabilities are those of the whole. At a prefix of 530 tokens and 8 rows of 28 this is 0.4 of T².
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "turnout_packed"  # as transformers' registry of attentions knows it
_PLAIN = {"sliding_window"}  # rows are no longer than a window, so it hides nothing from them
_TRIANGLE = 160  # tokens: below it more calls cost more than the half of a triangle that they spare
_FLASH = "_scaled_dot_product_flash_attention_for_cpu"  # what SDPA itself calls; gives (output, lse)
_flash: Any = getattr(torch.ops.aten, _FLASH, None)  # no public name: a torch that has another one goes SDPA's way
_flash_backward: Any = getattr(torch.ops.aten, f"{_FLASH}_backward", None)
_NO_ATTENTION = {"position_ids", "use_cache", "cache_position", "output_attentions", "output_hidden_states"}


class Spans(NamedTuple):
    """Where the tokens of a pack belong: the first `prefix` to all rows, then each row's own, from start to end."""

    prefix: int
    rows: tuple[tuple[int, int], ...]


def use_packed_attention(base: Any) -> None:
    """Let a model of transformers compute packs this way; others, and all other calls, go on with SDPA.

    Not a model that was loaded with attention written out, because SDPA cannot do what it does (Gemma 2).
    """
    plain = base.config.get_text_config()._attn_implementation == "sdpa"
    if plain and getattr(base, "_supports_attention_backend", False) and _flash and _flash_backward:
        AttentionInterface.register(NAME, _attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        base.set_attn_implementation(NAME)


def takes_spans(base: Any) -> bool:
    return bool(base.config.get_text_config()._attn_implementation == NAME)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    spans: Spans | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' signature: query (1, H, T, D), key and value (1, G, T, D) to (1, T, H, D), and no weights."""
    if spans is None or not _is_plain(module, query, value, kwargs):
        mixed: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return mixed
    scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
    return _PackedAttention.apply(query, key, value, spans, scale), None  # type: ignore[no-untyped-call]


def _is_plain(module: Any, query: torch.Tensor, value: torch.Tensor, kwargs: dict[str, Any]) -> bool:
    """Whether it is softmax attention on the CPU and nothing else: no soft cap, no sinks, no dropout, no bias."""
    asked = {name for name, setting in kwargs.items() if setting is not None}
    extra = asked - _PLAIN - _NO_ATTENTION - {"scaling", "dropout", "is_causal"}
    causal = kwargs.get("is_causal", getattr(module, "is_causal", True)) in (None, True)
    same = query.shape[-1] == value.shape[-1] and query.shape[0] == 1 and query.device.type == "cpu"
    return not extra and causal and same and not kwargs.get("dropout")


class Block(NamedTuple):
    """Queries and the keys that they see: all of them, or of the same tokens those that are not later."""

    asks: slice
    seen: slice
    causal: bool


def blocks(spans: Spans) -> list[Block]:
    """All that is seen in a pack, each pair of a query and a key once; first the causal ones, which hold every query."""
    ends = [(0, spans.prefix), *spans.rows]
    parts = [block for at, to in ends for block in _causal(at, to)]
    own = slice(spans.prefix, ends[-1][1])
    if spans.prefix and own.start < own.stop:
        parts.append(Block(own, slice(0, spans.prefix), causal=False))
    return sorted(parts, key=lambda block: not block.causal)


def label_blocks(spans: Spans, label_counts: Sequence[int]) -> list[Block]:
    """The same where only the last tokens of each row ask, so many as it has labels; queries are counted among these."""
    triangles, squares, at = [], [], 0
    for (start, end), count in zip(spans.rows, label_counts, strict=True):
        asks, first = slice(at, at + count), end - count
        triangles.append(Block(asks, slice(first, end), causal=True))
        squares += [Block(asks, slice(start, first), causal=False)] if first > start else []
        at += count
    squares += [Block(slice(0, at), slice(0, spans.prefix), causal=False)] if spans.prefix else []
    return triangles + squares


def _causal(at: int, to: int) -> list[Block]:
    """Triangles along the diagonal and the squares below: the kernel computes the upper half of a triangle, too."""
    if to - at <= _TRIANGLE:
        return [Block(slice(at, to), slice(at, to), causal=True)] if to > at else []
    middle = (at + to + 1) // 2
    return [*_causal(at, middle), *_causal(middle, to), Block(slice(middle, to), slice(at, middle), causal=False)]


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, spans: Spans, scale: float) -> torch.Tensor:
        parts = blocks(spans)
        q, k, v = _by_group(query, key, value)
        out, lse = attend(q, k, v, parts, scale)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.parts, ctx.scale = parts, scale
        return out.permute(2, 0, 1, 3).reshape(1, query.shape[2], query.shape[1], query.shape[3])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        g = grad.reshape(out.shape[2], *out.shape[:2], out.shape[3]).permute(1, 2, 0, 3)
        q, k, v = _by_group(query, key, value)
        grad_q, grad_k, grad_v = attend_backward(g, q, k, v, out, lse, ctx.parts, ctx.scale)
        return grad_q.reshape(query.shape), grad_k[None], grad_v[None], None, None


def attend(q: Any, k: Any, v: Any, parts: Sequence[Block], scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """q (G, H / G, Tq, D), k and v (G, H / G, T, D) to the output, as q but laid out as (Tq, H × D), and its lse.

    `parts` begin with the causal blocks, and these hold every query.
    """
    groups, heads, tokens, width = q.shape
    out = q.new_empty(tokens, groups, heads, width).permute(1, 2, 0, 3)
    lse = q.new_empty(groups, heads, tokens)
    for asks, seen, causal in parts:
        part = _flash(q[:, :, asks], k[:, :, seen], v[:, :, seen], 0.0, causal, scale=scale)
        if causal:
            out[:, :, asks], lse[:, :, asks] = part
        else:
            _add(out[:, :, asks], lse[:, :, asks], *part)
    return out, lse


def attend_backward(
    grad: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, parts: Sequence[Block], scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of `attend` by q (G, H / G, Tq, D) and by the k and v that heads of a group share (G, T, D)."""
    grad_q, grad_k, grad_v = (q.new_zeros(shape) for shape in (q.shape, k[:, 0].shape, v[:, 0].shape))
    for asks, seen, causal in parts:
        asking = (grad[:, :, asks], q[:, :, asks], k[:, :, seen], v[:, :, seen], out[:, :, asks], lse[:, :, asks])
        by_q, by_k, by_v = _flash_backward(*asking, 0.0, causal, scale=scale)
        grad_q[:, :, asks] += by_q
        grad_k[:, seen] += by_k.sum(1)
        grad_v[:, seen] += by_v.sum(1)
    return grad_q, grad_k, grad_v


def _by_group(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """(G, H / G, T, D) views: the heads of a group share its keys and values, which are not copied."""
    groups = key.shape[1]
    heads = query.shape[1] // groups
    q = query[0].view(groups, heads, *query.shape[2:])
    return q, key[0].unsqueeze(1).expand(-1, heads, -1, -1), value[0].unsqueeze(1).expand(-1, heads, -1, -1)


def _add(out: torch.Tensor, lse: torch.Tensor, more_out: torch.Tensor, more_lse: torch.Tensor) -> None:
    """Let queries see another block of keys, too: `out` and `lse` are changed in place."""
    both = torch.logaddexp(lse, more_lse)
    out.mul_((lse - both).exp()[..., None]).addcmul_(more_out, (more_lse - both).exp()[..., None])
    lse.copy_(both)
