"""Rows of tokens through the model: prompts in together, then one token a step for all rows at once.

How they are computed is behind `forward.Forward`. Rows of the base model and of any adapters may be joined and decoded
together; a row computes what it would alone, up to the order in which a matrix product adds its terms.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from service.engine.cache import NO_PREFIX, Ids, Prefix, PrefixCache, common_length
from service.engine.forward import Rows
from service.engine.model import LoadedModel

LEAST_PREFIX = 8  # tokens; below, computing it apart costs more than it saves


def prefill(model: LoadedModel, adapter: str | None, prompts: Sequence[Ids], prefix: Prefix = NO_PREFIX) -> Rows:
    """Compute `prompts`, all of which begin with `prefix` and go on after it."""
    rows: Rows = model.forward.prefill(adapter, [prompt[len(prefix.ids) :] for prompt in prompts], prefix)
    return rows


def advance(model: LoadedModel, rows: Rows, tokens: Sequence[int]) -> Rows:
    """One more token in each row. `rows` must not be used again."""
    after: Rows = model.forward.advance(rows, tokens)
    return after


def keep(rows: Rows, indexes: Sequence[int]) -> Rows:
    """These rows, in this order; a row named several times goes on in several ways."""
    return rows.keep(indexes)


def join(several: Sequence[Rows]) -> Rows:
    """The rows of all, in this order; they may be of different adapters."""
    return several[0].join(several[1:])


def compute_prefix(model: LoadedModel, adapter: str | None, ids: Ids, begun: Prefix = NO_PREFIX) -> Prefix:
    """Keys and values of `ids`, going on from `begun`, which they begin with."""
    rows = prefill(model, adapter, [ids], begun)
    return model.forward.prefix_of(rows, ids)


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
    """The largest absolute difference of a logit between prompts computed alone and together after a shared prefix.

    Not finite where a logit is not.
    """
    prompts = probes(model)
    alone = [prefill(model, adapter, [prompt]) for prompt in prompts]
    prefix, _ = shared_prefix(model, PrefixCache(0), adapter, prompts)
    together = prefill(model, adapter, prompts, prefix)
    noise = _difference(alone, together)
    for _ in range(_STEPS):
        tokens = [int(rows.logits.argmax()) for rows in alone]
        alone = [advance(model, rows, [token]) for rows, token in zip(alone, tokens, strict=True)]
        together = advance(model, together, tokens)
        noise = torch.maximum(noise, _difference(alone, together))  # unlike `max`, keeps what is no number
    return float(noise)


def _difference(alone: Sequence[Rows], together: Rows) -> torch.Tensor:
    return (torch.cat([rows.logits for rows in alone]) - together.logits).abs().max()
