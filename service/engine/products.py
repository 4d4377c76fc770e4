"""x Wᵀ of the base model's layers in fp32 on a CPU by oneDNN, which torch asks for narrower numbers only.

The BLAS that torch's wheels bring for fp32 packs the weights at each call and is not made for every processor. On two cores
of an AMD EPYC with AVX-512 oneDNN takes 0.8 to 0.95 of its time at hundreds of rows, half at four, and a fifth for the head
of a vocabulary of 49,152 at two; with weights `packed` for it another fifth less. torch has no public name for it: one that
has no such operator, or whose operator does not give what `linear` gives, goes the public way. Training has its own
(`finetune/products.py`), with derivatives and without packing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  torch's documentation and users call it so

Tensor = torch.Tensor
_ROWS = 64  # that weights are packed for; they serve any number


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (T, in) and weight (out, in) to x Wᵀ + bias (T, out)."""
    if _is_for_onednn(x, weight):
        return _onednn()(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]  # operators are untyped
    return F.linear(x, weight, bias)


def added_product(to: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """`to` (T, out) + x Wᵀ. The memory of `to` may hold it: it is not to be read again."""
    if _is_for_onednn(x, weight):
        return _onednn()(x, to, weight, None, "add")  # type: ignore[no-any-return]  # operators are untyped
    return to.addmm_(x, weight.t())


def packed(weight: Tensor) -> Tensor:
    """A copy of a weight in the order in which oneDNN reads it, for these functions alone; itself where they go another way.

    Only for what is computed without derivatives.
    """
    with torch.no_grad():
        return _pack(weight) if _is_for_onednn(weight, weight) else weight


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    """The operator knows no derivative, and no fp64."""
    is_fp32 = x.dtype is weight.dtype is torch.float32
    return is_fp32 and x.device.type == "cpu" and not torch.is_grad_enabled() and _onednn() is not None


def _pack(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)  # type: ignore[no-any-return]  # operators are untyped


@cache
def _onednn() -> Any:
    """The operator, or None where it is not there or gives something else."""
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if operator is None or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    x, weight, to = torch.ones(2, 3), torch.arange(12.0).view(4, 3), torch.full((2, 4), 0.5)
    wanted = F.linear(x, weight)
    try:
        plain = operator(x, weight, None, "none", [], "")
        added = operator(x, to, weight, None, "add")
        of_packed = operator(x, _pack(weight), None, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return None
    found = (plain, added - 0.5, of_packed)
    return operator if all(torch.equal(one, wanted) for one in found) else None
