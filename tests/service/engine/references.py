"""What the engine's answers are held against: what transformers and PEFT compute by themselves, and choices scored whole."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any


@lru_cache(maxsize=4)
def load_alone(base: Path, adapter: Path | None) -> Any:
    """A network of transformers, with PEFT's layers of one adapter where one is given."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(base).eval()
    if adapter is None:
        return network
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # peft 0.21's call
        return PeftModel.from_pretrained(network, adapter).eval()


def generate_alone(base: Path, adapter: Path | None, ids: Any, new_tokens: int) -> list[int]:
    """The greedy answer of `generate` to one prompt."""
    import torch

    asked = torch.as_tensor(ids)[None]
    out = load_alone(base, adapter).generate(
        input_ids=asked,
        attention_mask=torch.ones_like(asked),
        max_new_tokens=new_tokens,
        do_sample=False,
        pad_token_id=2,
    )
    return [int(token) for token in out[0, asked.shape[1] :]]


def score_choices(
    model: Any,
    adapter: str | None,
    prompts: Sequence[Any],
    choices: Sequence[Sequence[Any]],
) -> list[Any]:
    """For each prompt, the log-probabilities [its choices] with which a decode that may only say these says them.

    `choices[i]` are the token ids of what may follow `prompts[i]`, without the end of the turn, which is put behind
    each. At every token the probabilities of what may come next are brought to a sum of one; where only one token may
    come nothing is computed. So choices that differ in their first token take the pass over the prompts alone, and
    others one more token for each place in which they part ways later.
    """
    import torch

    from service.engine.decoding import advance, keep, prefill

    ended = [[(*map(int, choice), model.end_of_turn) for choice in several] for several in choices]
    scores = [torch.zeros(len(several)) for several in ended]
    rows = prefill(model, adapter, prompts)
    forks = [_Fork(index, 0, tuple(range(len(several)))) for index, several in enumerate(ended)]
    while True:
        parted = [_parted(fork, ended[fork.prompt]) for fork in forks]
        for row, (fork, ways) in enumerate(zip(forks, parted, strict=True)):
            if len(ways) > 1:
                shares = rows.logits[row, list(ways)].log_softmax(0).cpu()
                for share, members in zip(shares, ways.values(), strict=True):
                    scores[fork.prompt][list(members)] += share
        going = [
            (row, token, _Fork(fork.prompt, fork.depth + 1, members))
            for row, (fork, ways) in enumerate(zip(forks, parted, strict=True))
            for token, members in ways.items()
            if len(members) > 1 and len({ended[fork.prompt][index] for index in members}) > 1
        ]
        if not going:
            return scores
        rows = advance(model, keep(rows, [row for row, _, _ in going]), [token for _, token, _ in going])
        forks = [fork for _, _, fork in going]


@dataclass(frozen=True, slots=True)
class _Fork:
    """A beginning of `depth` tokens that several choices of a prompt have in common: `members`, by their numbers."""

    prompt: int
    depth: int
    members: tuple[int, ...]


def _parted(fork: _Fork, choices: Sequence[tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """The tokens that may come next, and the choices that go on with each."""
    ways: dict[int, tuple[int, ...]] = {}
    for index in fork.members:
        token = choices[index][fork.depth]
        ways[token] = (*ways.get(token, ()), index)
    return ways
