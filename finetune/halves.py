"""The two halves of a decoder layer, x + attention(norm(x)) and x + mlp(norm(x)), as one function each on the CPU.

Every product is added into what is there: the residual into the output, the LoRA's into the base layer's, gradients that
meet into one another; what autograd would keep and write between them is left out. The formulas are those of Llama as
transformers computes it, of RMSNorm (Zhang and Sennrich, 2019), rotary positions (Su et al., 2021), SwiGLU (Shazeer,
2020) and LoRA (Hu et al., 2021), and their derivatives; `tests/finetune/test_layers.py` holds them to the plain way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  torch's documentation and users call it so
from torch.autograd.function import once_differentiable

from finetune.attention import Block, attend, attend_backward
from finetune.products import added_product, product

Tensor = torch.Tensor


@dataclass(frozen=True)
class Linear:
    """A frozen linear layer, weight (out, in) and bias (out) or none, with its LoRA: A (r, in), B (out, r)."""

    weight: Tensor
    bias: Tensor | None
    lora_a: Tensor
    lora_b: Tensor


@dataclass(frozen=True)
class Half:
    """One half's frozen norm and its linear layers: q, k, v, o, or gate, up, down. They share their scaling."""

    norm_weight: Tensor  # (C,)
    norm_epsilon: float
    linears: tuple[Linear, ...]
    scaling: float

    @property
    def loras(self) -> list[Tensor]:
        """A and B of each linear layer in turn: what autograd is to see."""
        return [part for one in self.linears for part in (one.lora_a, one.lora_b)]


@dataclass(frozen=True)
class Place:
    """Where the tokens of a pack stand, and what they see; the same for all layers but the last.

    `asking` are those whose output is wanted, None for all. cos and sin (T, D / 2) belong to one half of a head: the
    other half's are the same.
    """

    cos: Tensor
    sin: Tensor
    parts: Sequence[Block]
    groups: int  # of heads that share keys and values
    scale: float  # of the products of queries and keys
    asking: Tensor | None = None


def attention_half(x: Tensor, half: Half, place: Place) -> Tensor:
    """x (T, C) to x + attention(norm(x)) for the N tokens that ask (N, C)."""
    return _Attention.apply(x, half, place, *half.loras)  # type: ignore[no-any-return,no-untyped-call]


def mlp_half(x: Tensor, half: Half) -> Tensor:
    """x (T, C) to x + down(silu(gate(norm(x))) · up(norm(x)))."""
    return _Mlp.apply(x, half, *half.loras)  # type: ignore[no-any-return,no-untyped-call]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, half: Half, place: Place, *_: Tensor) -> Tensor:
        *into, last = half.linears
        h, rstd = _norm(x, half)
        asking = h if place.asking is None else h[place.asking]
        lows = _lows(h, into)
        lows[0] = lows[0] if place.asking is None else lows[0][place.asking]
        sources = (asking, h, h)
        q, k, v = (_linear(*one, half.scaling) for one in zip(sources, lows, into, strict=True))
        q, k = _turn(_heads(q, place), *_of(place)), _turn(_heads(k, place), place.cos, place.sin)
        out, lse = attend(q, *_shared(q, k, _heads(v, place)), place.parts, place.scale)
        flat = out.permute(2, 0, 1, 3).reshape(asking.shape[0], -1)
        low = flat @ last.lora_a.t()
        residual = x if place.asking is None else x[place.asking]
        ctx.save_for_backward(x, rstd, h, q, k, v, out, lse, low, *lows)
        ctx.half, ctx.place = half, place
        return _linear(flat, low, last, half.scaling, residual)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, rstd, h, q, k, v, out, lse, low, *lows = ctx.saved_tensors
        half, place = ctx.half, ctx.place
        *into, last = half.linears
        flat = out.permute(2, 0, 1, 3).reshape(grad.shape[0], -1)
        grad_flat, *by_last = _linear_backward(grad, flat, low, last, half.scaling)
        grad_out = grad_flat.view(out.shape[2], *out.shape[:2], out.shape[3]).permute(1, 2, 0, 3)
        by_q, by_k, by_v = attend_backward(
            grad_out, q, *_shared(q, k, _heads(v, place)), out, lse, place.parts, place.scale
        )
        cos, sin = _of(place)
        grads = [
            _turn_back(by_q, cos, sin),
            _turn_back(by_k[:, None], place.cos, place.sin),
            by_v.transpose(0, 1).reshape(len(h), -1),
        ]
        by_loras, backs = _lora_backward(grads, lows, h, into, half.scaling, place.asking)
        grad_x = None
        if ctx.needs_input_grad[0]:  # not where the embeddings, which are frozen, come in
            grad_x = _entering(grad, x, rstd, half, place, grads, backs)
        return grad_x, None, None, *by_loras, *by_last


def _entering(
    grad: Tensor, x: Tensor, rstd: Tensor, half: Half, place: Place, grads: Sequence[Tensor], backs: Sequence[Tensor]
) -> Tensor:
    """The gradient by x of the attention's half, from those by its output, and by q, k and v with theirs times B."""
    into = half.linears[:-1]
    if place.asking is None:
        grad_h = _input_gradient(grads, backs, into, half.scaling)
        return _norm_backward(grad_h, x, rstd, half).add_(grad)
    grad_h = _input_gradient(grads[1:], backs[1:], into[1:], half.scaling)
    grad_h.index_add_(0, place.asking, _input_gradient(grads[:1], backs[:1], into[:1], half.scaling))
    return _norm_backward(grad_h, x, rstd, half).index_add_(0, place.asking, grad)


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, half: Half, *_: Tensor) -> Tensor:
        *into, last = half.linears
        h, rstd = _norm(x, half)
        lows = _lows(h, into)
        gate, up = (_linear(h, low, one, half.scaling) for low, one in zip(lows, into, strict=True))
        opened = F.silu(gate)
        inner = opened * up
        low = inner @ last.lora_a.t()
        ctx.save_for_backward(x, rstd, h, gate, opened, up, low, *lows)
        ctx.half = half
        return _linear(inner, low, last, half.scaling, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, rstd, h, gate, opened, up, low, *lows = ctx.saved_tensors
        half = ctx.half
        *into, last = half.linears
        inner = opened * up  # again: a product takes less than silu, which would be needed in its place
        grad_inner, *by_last = _linear_backward(grad, inner, low, last, half.scaling)
        by_up = torch.mul(opened, grad_inner, out=inner)
        by_gate = torch.ops.aten.silu_backward(grad_inner.mul_(up), gate)
        by_loras, backs = _lora_backward([by_gate, by_up], lows, h, into, half.scaling)
        grad_h = _input_gradient([by_gate, by_up], backs, into, half.scaling)
        return _norm_backward(grad_h, x, rstd, half).add_(grad), None, *by_loras, *by_last


# ------------------------------------------------------------------------------------------------ norms and rotations


def _norm(x: Tensor, half: Half) -> tuple[Tensor, Tensor]:
    """RMSNorm of x (T, C), and what each token was multiplied with (T, 1)."""
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
    rstd = mean_square.add_(half.norm_epsilon).rsqrt_()
    return (x * rstd).mul_(half.norm_weight), rstd


def _norm_backward(grad: Tensor, x: Tensor, rstd: Tensor, half: Half) -> Tensor:
    """The gradient by x in place of that by the norm's output: rstd · (g - x · rstd² · mean(g · x)), g = grad · weight."""
    grad.mul_(half.norm_weight)
    along = (grad * x).sum(-1, keepdim=True).mul_(rstd.pow(3)).div_(-x.shape[-1])
    return grad.mul_(rstd).addcmul_(x, along)


def _of(place: Place) -> tuple[Tensor, Tensor]:
    if place.asking is None:
        return place.cos, place.sin
    return place.cos[place.asking], place.sin[place.asking]


def _turn(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of (G, H / G, T, D), into new memory."""
    return _turn_into(torch.empty(heads.shape, dtype=heads.dtype), heads, cos, sin)


def _turn_back(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The same backwards, which is also the derivative, to (T, H × D)."""
    groups, each, tokens, width = heads.shape
    flat = torch.empty(tokens, groups * each * width, dtype=heads.dtype)
    _turn_into(flat.view(tokens, groups, each, width).permute(1, 2, 0, 3), heads, cos, -sin)
    return flat


def _turn_into(turned: Tensor, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = torch.tensor_split(heads, 2, dim=-1)
    one, other = torch.tensor_split(turned, 2, dim=-1)
    torch.mul(first, cos, out=one).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=other).addcmul_(first, sin)
    return turned


def _heads(flat: Tensor, place: Place) -> Tensor:
    """(T, H × D) to a view (G, H / G, T, D); keys and values have one head a group."""
    width = 2 * place.cos.shape[-1]
    return flat.view(flat.shape[0], place.groups, -1, width).permute(1, 2, 0, 3)


def _shared(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values for each head of a group, which are not copied."""
    return k.expand(-1, q.shape[1], -1, -1), v.expand(-1, q.shape[1], -1, -1)


# ------------------------------------------------------------------------------------------------ linear layers


def _lows(h: Tensor, linears: Sequence[Linear]) -> list[Tensor]:
    """h Aᵀ (T, r) of several layers by one product."""
    every = h @ torch.cat([one.lora_a for one in linears]).t()
    return list(torch.split(every, [one.lora_a.shape[0] for one in linears], dim=1))


def _linear(x: Tensor, low: Tensor, one: Linear, scaling: float, residual: Tensor | None = None) -> Tensor:
    """residual + x Wᵀ + bias + scaling · low Bᵀ."""
    if residual is None:
        out = product(x, one.weight, one.bias)
    else:
        out = added_product(residual, x, one.weight)
        out = out if one.bias is None else out.add_(one.bias)
    return out.addmm_(low, one.lora_b.t(), alpha=scaling)


def _linear_backward(grad: Tensor, x: Tensor, low: Tensor, one: Linear, scaling: float) -> tuple[Tensor, ...]:
    """The gradients by x, A and B."""
    by_loras, backs = _lora_backward([grad], [low], x, [one], scaling)
    return _input_gradient([grad], backs, [one], scaling), *by_loras


def _input_gradient(
    grads: Sequence[Tensor], backs: Sequence[Tensor], linears: Sequence[Linear], scaling: float
) -> Tensor:
    """Σ grad W + scaling · back A over layers of one input."""
    total = product(grads[0], linears[0].weight.t())
    for grad, one in zip(grads[1:], linears[1:], strict=True):
        total = added_product(total, grad, one.weight.t(), reuse=True)
    return total.addmm_(torch.cat(list(backs), 1), torch.cat([one.lora_a for one in linears]), alpha=scaling)


def _lora_backward(
    grads: Sequence[Tensor],
    lows: Sequence[Tensor],
    x: Tensor,
    linears: Sequence[Linear],
    scaling: float,
    asking: Tensor | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """The gradients by A and B of layers of one input x, in turn, and their grad B (T, r).

    Where only some tokens ask, the first layer saw only these.
    """
    backs = [grad @ one.lora_b for grad, one in zip(grads, linears, strict=True)]
    if asking is None:
        every = (torch.cat(backs, 1).t() @ x).mul_(scaling)
        by_a = list(torch.split(every, [back.shape[1] for back in backs]))
    else:
        sources = [x[asking], *[x] * (len(backs) - 1)]
        by_a = [(back.t() @ source).mul_(scaling) for back, source in zip(backs, sources, strict=True)]
    by_b = [(grad.t() @ low).mul_(scaling) for grad, low in zip(grads, lows, strict=True)]
    return [part for pair in zip(by_a, by_b, strict=True) for part in pair], backs
