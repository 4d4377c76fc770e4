"""LoRA's forward and backward pass with the fewest passes over memory; parameters and file names stay peft's."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch.autograd.function import once_differentiable

from finetune.products import product

_ADAPTER = "default"  # the name under which peft keeps the one that is trained


class LeanLinear(Linear):  # type: ignore[misc]  # peft is not followed
    """peft's linear layer with LoRA, y = xWᵀ + s·xAᵀBᵀ, as one function: two products more than the base layer takes.

    peft's own graph writes xAᵀBᵀ, its product with s and the sum as tensors of their own, forward and backward; here
    each is added into what is there. Whatever is not plain training of one adapter (dropout, a merged or switched-off
    adapter, autocast) goes peft's way. Layers of a 4-bit base are of another class of peft's, and stay as they are.
    """

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if args or kwargs or not self.is_plain(x.dtype):
            return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
        base, lora_a, lora_b = self.get_base_layer(), self.lora_A[_ADAPTER].weight, self.lora_B[_ADAPTER].weight
        flat = x.reshape(-1, x.shape[-1])
        out = _LeanLora.apply(flat, base.weight, base.bias, lora_a, lora_b, self.scaling[_ADAPTER])  # type: ignore[no-untyped-call]
        return out.reshape(*x.shape[:-1], out.shape[-1])  # type: ignore[no-any-return]

    def is_plain(self, dtype: torch.dtype) -> bool:
        """Whether it is to compute plain training of one adapter for inputs of `dtype`."""
        ours = self.active_adapters == [_ADAPTER] and not self.disable_adapters and not self.merged
        drops = self.training and not isinstance(self.lora_dropout[_ADAPTER], torch.nn.Identity)
        return ours and not drops and dtype == self.lora_A[_ADAPTER].weight.dtype


class _LeanLora(torch.autograd.Function):
    """x (T, in), W (out, in), bias (out) or none, A (r, in), B (out, r) to (T, out). W and the bias get no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, lora_a: Any, lora_b: Any, scaling: float) -> torch.Tensor:
        low = x @ lora_a.t()  # (T, r)
        out = product(x, weight, bias)
        out.addmm_(low, lora_b.t(), alpha=scaling)
        ctx.save_for_backward(x, low, weight, lora_a, lora_b)
        ctx.scaling = scaling
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        x, low, weight, lora_a, lora_b = ctx.saved_tensors
        back = grad @ lora_b  # (T, r)
        grad_x = None
        if ctx.needs_input_grad[0]:  # not where the embeddings, which are frozen, come in
            grad_x = product(grad, weight.t()).addmm_(back, lora_a, alpha=ctx.scaling)
        grad_a, grad_b = (back.t() @ x).mul_(ctx.scaling), (grad.t() @ low).mul_(ctx.scaling)
        return grad_x, None, None, grad_a, grad_b, None


def make_lean(model: Any) -> None:
    """Let every LoRA layer of plain weights compute this way, in place; what they hold and are called stays."""
    for module in model.modules():
        if type(module) is Linear and not getattr(module, "lora_variant", None):  # a variant is DoRA or the like
            module.__class__ = LeanLinear
