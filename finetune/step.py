"""The gradient of one batch, within the memory there is."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from finetune import scoring
from finetune.encoding import EncodedRow
from finetune.model import precision
from finetune.packing import Pack, fewest_packs, shared_prefix
from prompts.errors import TurnoutError

_MESSAGES = ("not enough memory", "can't allocate memory", "DefaultCPUAllocator", "out of memory")


class OutOfMemoryError(TurnoutError):
    """Not even one row a pass fits."""


class Gradient(NamedTuple):
    """What one batch gave beside its gradient, which is in the parameters.

    `loss` is the mean over the batch's labelled tokens. `pack_tokens` is below what was asked for where memory ran out:
    use it from here on, tell `out_of_memory`, and keep it with the progress.
    """

    loss: float
    packed_tokens: int  # that were computed: a shared prefix counts once a pack
    pack_tokens: int


def accumulate(base: Any, rows: Sequence[EncodedRow], pack_tokens: int) -> Gradient:
    """Put the gradient of the mean loss of `rows` into the trainable parameters of `base`, in place of what is there.

    Where memory runs out the step is taken again from its beginning with half as many own tokens a pass. The gradient
    is the same beyond rounding. Raises OutOfMemoryError where a single row does not fit.
    """
    while True:
        full = None
        try:
            return _accumulate(base, rows, pack_tokens)
        except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not is_out_of_memory(error):
                raise
            full = str(error)
        # after the handler: until then the error's traceback holds the tensors of the failed pass
        pack_tokens = halved(rows, pack_tokens, full)
        _drop_gradient(base)
        gc.collect()
        torch.cuda.empty_cache()  # does nothing where there is no CUDA


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: CUDA and Python have a type for it, the CPU's allocator only its message."""
    typed = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return typed or (isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES))


def _accumulate(base: Any, rows: Sequence[EncodedRow], pack_tokens: int) -> Gradient:
    base.train()
    _drop_gradient(base)
    device = next(base.parameters()).device
    labels = sum(len(row.labels) for row in rows)
    total, tokens = torch.zeros((), device=device), 0
    for one in fewest_packs(rows, pack_tokens, device):
        total += _backward(base, one, labels)
        tokens += one.tokens
    return Gradient(float(total), tokens, pack_tokens)


def _backward(base: Any, one: Pack, labels: int) -> torch.Tensor:
    with precision(one.ids.device):
        loss = scoring.loss_sum(base, one) / labels
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return loss.detach()


def _drop_gradient(base: Any) -> None:
    for param in base.parameters():
        param.grad = None


def halved(rows: Sequence[EncodedRow], pack_tokens: int, why: str) -> int:
    """Half of what the largest pack holds beside its prefix, and never less than the longest row."""
    made = list(fewest_packs(rows, pack_tokens))
    largest = max(made, key=lambda one: one.tokens)
    if all(len(one.spans.rows) == 1 for one in made):
        raise OutOfMemoryError(
            f"memory ran out ({why[:200]}) at a single row of {largest.tokens} tokens: free memory, shorten the longest "
            "example, choose a smaller base model, or turn gradient checkpointing on"
        )
    return largest.prefix_tokens + (largest.tokens - largest.prefix_tokens) // 2


def longest_batch(rows: Sequence[EncodedRow], batch_size: int) -> list[EncodedRow]:
    """The rows that make the largest batch: the worst that a step can meet."""
    prefix = shared_prefix(rows)
    return sorted(rows, key=lambda row: len(row.ids) - prefix, reverse=True)[:batch_size]
