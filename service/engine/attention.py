"""Softmax attention over some of the keys, with what is needed to add the others: the logarithm of its summed exponentials.

Keys that many rows share are computed apart from each row's own, once for all rows, and put together as FlashAttention
puts together its blocks (Dao et al., 2022, section 3.1): out = Σ outᵢ · exp(lseᵢ - lse) with lse = log Σ exp(lseᵢ).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# What SDPA itself calls on the CPU; gives (output, lse). It has no public name: a torch without it computes the plain way.
_flash: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


def attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float, *, causal: bool = False, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """q [B, H, Q, D], k and v [B, H, K, D] to the output [B, H, Q, D] and its lse [B, H, Q].

    `causal` counts queries and keys from the same first token; `mask` is added to the scores. H of k and v may be
    expanded: they are not copied.
    """
    if _flash is not None and q.device.type == "cpu":
        found: tuple[Tensor, Tensor] = _flash(q, k, v, 0.0, causal, attn_mask=mask, scale=scale)
        return found
    return attend_plainly(q, k, v, scale, causal=causal, mask=mask)


def attend_plainly(
    q: Tensor, k: Tensor, v: Tensor, scale: float, *, causal: bool = False, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same on any device."""
    scores = (q @ k.transpose(-1, -2)) * scale
    if mask is not None:
        scores = scores + mask
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    lse = scores.float().logsumexp(-1) if scores.dtype != torch.float64 else scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().to(v.dtype) @ v, lse


def put_together(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> Tensor:
    """Outputs [..., D] and lse [...] over two sets of keys to the output over both; in new memory."""
    share = torch.sigmoid(lse - other_lse).to(out.dtype)[..., None]
    return torch.lerp(other, out, share)
