"""From logits to the next token of each row.

A sample is the token with the largest logit once each has noise added to it (Gumbel's, times the temperature), which
draws each token with its softmax probability (Maddison, Tarlow, Minka, arXiv 1411.0030). The noise is a function of the
seed, the prompt and the number of the choice. So a sample is as sure, or as close to call, as a greedy answer is.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from prompts.errors import BadInput
from service.engine.asks import Ask
from service.engine.cache import Ids
from service.engine.guided import Guide

LEAST_TEMPERATURE = 1e-5  # below, sampling and taking the likeliest token are the same


@dataclass(frozen=True, slots=True)
class Pick:
    """A token, by how much it leads the one it could be mistaken for, and what was asked of log-probabilities:
    its own and those of the likeliest. `error` is why there is none."""

    token: int
    lead: float
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()
    error: BadInput | None = None


class Row(Protocol):
    """What the next token of a row hangs on."""

    @property
    def ask(self) -> Ask: ...
    @property
    def tokens(self) -> list[int]: ...
    @property
    def generator(self) -> torch.Generator | None: ...
    @property
    def guide(self) -> Guide | None: ...


def is_greedy(ask: Ask) -> bool:
    return ask.temperature < LEAST_TEMPERATURE


def is_repeatable(ask: Ask) -> bool:
    """Whether the same request has to get the same answer."""
    return is_greedy(ask) or ask.seed is not None


def make_generator(ask: Ask, seed: int, prompt: Ids, index: int) -> torch.Generator | None:
    """The noise of choice `index`; None where greedy.

    The same for a base model and its adapters, so that two variants are compared under the same luck.
    """
    if is_greedy(ask):
        return None
    told = hashlib.blake2b(b"%d:%d:" % (seed, index) + prompt.tobytes(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(told) % 2**63)


def next_picks(logits: Tensor, rows: Sequence[Row | None], tolerances: Sequence[float]) -> list[Pick]:
    """A pick for each row of `logits` [rows, vocabulary]; of rows that are None it means nothing.

    `tolerances` are the differences of logits that each row has to bear.
    """
    best = logits.topk(2, dim=-1)
    tokens: list[int] = best.indices[:, 0].tolist()
    leads: list[float] = (best.values[:, 0] - best.values[:, 1]).tolist()
    picks = [Pick(token, lead) for token, lead in zip(tokens, leads, strict=True)]
    for index, row in enumerate(rows):
        if row is None or _is_plain(row):
            continue
        try:
            picks[index] = _pick(logits[index].cpu(), row, tolerances[index])
        except BadInput as error:  # a guide that became too much for its limits; the other rows go on
            picks[index] = Pick(picks[index].token, math.inf, error=error)
    return picks


def _is_plain(row: Row) -> bool:
    ask = row.ask
    changed = ask.presence_penalty or ask.frequency_penalty or ask.logit_bias or row.guide
    return row.generator is None and not changed and ask.top_logprobs is None


def _pick(logits: Tensor, row: Row, tolerance: float) -> Pick:
    ask = row.ask
    changed = _changed(logits, row)
    if row.generator is None:
        token, lead = _best(changed)
    else:
        token, lead = _sample(changed / ask.temperature, ask.top_p, row.generator, tolerance / ask.temperature)
        lead *= ask.temperature
    if ask.top_logprobs is None:
        return Pick(token, lead)
    chances = logits.log_softmax(-1)
    likeliest = chances.topk(ask.top_logprobs) if ask.top_logprobs else None
    top = tuple(zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)) if likeliest else ()
    return Pick(token, lead, float(chances[token]), top)


def _changed(logits: Tensor, row: Row) -> Tensor:
    """With penalties and biases as OpenAI and vLLM have them, and without what the guide does not allow."""
    ask = row.ask
    if ask.presence_penalty or ask.frequency_penalty or ask.logit_bias:
        logits = logits.clone()
        for token, count in Counter(row.tokens).items():
            logits[token] -= ask.presence_penalty + ask.frequency_penalty * count
        for token, bias in ask.logit_bias:
            logits[token] += bias
    if row.guide is None:
        return logits
    allowed = row.guide.allowed(len(logits))
    refused = torch.nn.functional.pad(~allowed, (0, len(logits) - len(allowed)), value=True)
    return logits.masked_fill(refused, -math.inf)


def _best(logits: Tensor) -> tuple[int, float]:
    values, indices = logits.topk(2)
    first, second = values.tolist()
    return int(indices[0]), math.inf if second == -math.inf else first - second


def _sample(scaled: Tensor, top_p: float, noise: torch.Generator, tolerance: float) -> tuple[int, float]:
    """A token and its lead, both of logits divided by the temperature."""
    gumbel = -torch.empty_like(scaled).exponential_(generator=noise).log()
    if top_p >= 1:
        return _best(scaled + gumbel)
    slack = math.expm1(min(tolerance, 1.0))  # by so much can the noise of a batch move what tokens add up to
    narrow, nominal, wide = _nucleus(scaled.softmax(-1), (top_p - slack, top_p, top_p + slack))
    perturbed = scaled + gumbel
    token, lead = _best(perturbed.masked_fill(~nominal, -math.inf))
    likeliest, _ = _best(perturbed.masked_fill(~wide, -math.inf))
    return token, lead if token == likeliest and narrow[token] else 0.0


def _nucleus(chances: Tensor, levels: Sequence[float]) -> list[Tensor]:
    """For each of `levels` the likeliest tokens that together reach it (Holtzman et al., arXiv 1904.09751); always one."""
    ordered, order = chances.sort(descending=True)
    before = ordered.cumsum(-1) - ordered
    found = []
    for level in levels:
        kept = before < level
        kept[0] = True
        found.append(torch.zeros_like(kept).scatter(0, order, kept))
    return found
