"""From logits to the next token of each row."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import torch
from torch import Tensor

from service.engine.asks import Ask

LEAST_TEMPERATURE = 1e-5  # below, sampling and taking the likeliest token are the same


def is_greedy(ask: Ask) -> bool:
    return ask.temperature < LEAST_TEMPERATURE


def make_generator(ask: Ask) -> torch.Generator | None:
    """A row's own source of randomness, so that its sample does not hang on its neighbours; None where greedy."""
    if is_greedy(ask):
        return None
    seed = ask.seed if ask.seed is not None else secrets.randbits(63)
    return torch.Generator().manual_seed(seed % 2**63)


def next_tokens(
    logits: Tensor, rows: Sequence[tuple[Ask, torch.Generator | None] | None]
) -> tuple[list[int], list[float]]:
    """A token for each row of `logits` [rows, vocabulary], and by how much the best logit leads the second."""
    tokens: list[int] = logits.argmax(-1).tolist()
    best = logits.topk(2, dim=-1).values
    leads: list[float] = (best[:, 0] - best[:, 1]).tolist()
    for index, row in enumerate(rows):
        ask, generator = row or (None, None)
        if ask is not None and generator is not None:
            tokens[index] = _sample(logits[index].cpu(), ask, generator)
    return tokens, leads


def _sample(logits: Tensor, ask: Ask, generator: torch.Generator) -> int:
    chances = (logits / ask.temperature).softmax(-1)
    if ask.top_p < 1:
        chances = _nucleus(chances, ask.top_p)
    return int(torch.multinomial(chances, 1, generator=generator))


def _nucleus(chances: Tensor, top_p: float) -> Tensor:
    """Only the likeliest tokens that together reach `top_p` (Holtzman et al., arXiv 1904.09751); always one."""
    ordered, order = chances.sort(descending=True)
    before = ordered.cumsum(-1) - ordered
    ordered[before >= top_p] = 0
    ordered[0] = max(float(ordered[0]), 1e-30)
    return torch.zeros_like(chances).scatter(0, order, ordered)
