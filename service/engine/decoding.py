"""Rows of tokens through the model: prompts in together, then one token a step for all rows at once.

Layout of a batch's columns, left to right: the shared prefix, padding up to the longest row, each row's own tokens, the
tokens generated. Positions are counted without the padding, so a row computes what it would alone, up to the order in
which a matrix product adds its terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache

from service.engine.cache import (
    NO_PREFIX,
    Ids,
    Prefix,
    PrefixCache,
    common_length,
    empty_cache,
    expanded,
    joined,
    padded_left,
    pairs,
    selected,
)
from service.engine.model import LoadedModel

LEAST_PREFIX = 8  # tokens; below, computing it apart costs more than it saves


@dataclass(slots=True)
class Rows:
    """Rows being decoded with one adapter.

    `mask` [rows, columns] is False at padding, `positions` [rows] is the position of each row's next token, `logits`
    [rows, vocabulary] are of that next token.
    """

    adapter: str | None
    cache: Cache
    mask: Tensor
    positions: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return int(self.mask.shape[0])


def prefill(model: LoadedModel, adapter: str | None, prompts: Sequence[Ids], prefix: Prefix = NO_PREFIX) -> Rows:
    """Compute `prompts`, all of which begin with `prefix` and go on after it."""
    shared = len(prefix.ids)
    own = [prompt[shared:] for prompt in prompts]
    width = max(map(len, own))
    ids = np.zeros((len(own), width), dtype=np.int64)
    real = np.zeros((len(own), shared + width), dtype=bool)
    real[:, :shared] = True
    for row, tokens in enumerate(own):
        ids[row, width - len(tokens) :] = tokens
        real[row, shared + width - len(tokens) :] = True
    mask = torch.from_numpy(real).to(model.device)
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    cache = expanded(prefix.pairs, len(own)) if shared else empty_cache(model.layers)
    logits = model.logits(adapter, torch.from_numpy(ids).to(model.device), mask, positions[:, shared:], cache)
    return Rows(adapter, cache, mask, positions[:, -1] + 1, logits)


def advance(model: LoadedModel, rows: Rows, tokens: Sequence[int]) -> Rows:
    """One more token in each row."""
    ids = torch.tensor(tokens, device=model.device)[:, None]
    mask = torch.nn.functional.pad(rows.mask, (0, 1), value=True)
    logits = model.logits(rows.adapter, ids, mask, rows.positions[:, None], rows.cache)
    return Rows(rows.adapter, rows.cache, mask, rows.positions + 1, logits)


def keep(rows: Rows, indexes: Sequence[int]) -> Rows:
    """Only these rows, without the leading columns that are padding in all of them."""
    kept = torch.tensor(indexes, device=rows.mask.device)
    mask = rows.mask[kept]
    first = int(mask.any(0).int().argmax())
    cache = selected(rows.cache, indexes, first)
    return Rows(rows.adapter, cache, mask[:, first:], rows.positions[kept], rows.logits[kept])


def join(first: Rows, second: Rows) -> Rows:
    """The rows of both, which have the same adapter."""
    width = max(first.mask.shape[1], second.mask.shape[1])
    mask = torch.cat([padded_left(first.mask, width), padded_left(second.mask, width)])
    positions = torch.cat([first.positions, second.positions])
    logits = torch.cat([first.logits, second.logits])
    return Rows(first.adapter, joined(first.cache, second.cache), mask, positions, logits)


def compute_prefix(model: LoadedModel, adapter: str | None, ids: Ids, begun: Prefix = NO_PREFIX) -> Prefix:
    """Keys and values of `ids`, going on from `begun`, which they begin with."""
    rows = prefill(model, adapter, [ids], begun)
    return Prefix(ids, pairs(rows.cache))


def shared_prefix(
    model: LoadedModel, held: PrefixCache, adapter: str | None, prompts: Sequence[Ids], hint: int = 0
) -> tuple[Prefix, int]:
    """What `prompts` all begin with, from `held` as far as it goes and then kept there; and how much was held.

    At least one own token is left to each prompt. A single prompt has no other to share with: `hint` says how many of
    its tokens earlier prompts began with.
    """
    most = min(map(len, prompts)) - 1
    shared = min(most, *(common_length(prompts[0], other) for other in prompts[1:])) if len(prompts) > 1 else most
    if len(prompts) == 1:
        shared = min(most, max(hint, held.reach(adapter, prompts[0])))
    if shared < LEAST_PREFIX:
        return NO_PREFIX, 0
    ids = prompts[0][:shared]
    begun = held.find(adapter, ids)
    if len(begun.ids) >= shared:
        return begun, shared
    prefix = compute_prefix(model, adapter, ids, begun)
    held.put(adapter, prefix)
    return prefix, len(begun.ids)


# ------------------------------------------------------------------------------------------------ tolerance


_QUESTIONS = ("Name one colour.", "What is 17 + 25?", "Write a short line about the sea and the ships on it.")
_STEPS = 2


def probes(model: LoadedModel) -> list[Ids]:
    """Fixed prompts that share a beginning."""
    rule = "Answer the question in few words. "
    return [model.encode([{"role": "user", "content": rule + question}]) for question in _QUESTIONS]


def measure_noise(model: LoadedModel, adapter: str | None) -> float:
    """The largest absolute difference of a logit between prompts computed alone and together after a shared prefix."""
    prompts = probes(model)
    alone = [prefill(model, adapter, [prompt]) for prompt in prompts]
    prefix, _ = shared_prefix(model, PrefixCache(0), adapter, prompts)
    together = prefill(model, adapter, prompts, prefix)
    noise = _difference(alone, together)
    for _ in range(_STEPS):
        tokens = [int(rows.logits.argmax()) for rows in alone]
        alone = [advance(model, rows, [token]) for rows, token in zip(alone, tokens, strict=True)]
        together = advance(model, together, tokens)
        noise = max(noise, _difference(alone, together))
    return noise


def _difference(alone: Sequence[Rows], together: Rows) -> float:
    return float((torch.cat([rows.logits for rows in alone]) - together.logits).abs().max())
