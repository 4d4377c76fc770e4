"""Rows packed into one sequence that holds their common prefix once.

`[prefix | own tokens of row 1 | own tokens of row 2 | …]`: each row sees the prefix and itself, at the positions that
it would have alone, so logits and gradients are those of the rows one by one. Rows of one prompt share most of their
tokens: 8 tickets of 40 tokens under a prefix of 100 make 420 tokens in place of 1,120.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch

from finetune.attention import Spans
from finetune.encoding import EncodedRow

_PASS_TOKENS = 32  # what one more pass costs beside its tokens, in tokens of SmolLM2-135M on a CPU, about


@dataclass(frozen=True, slots=True)
class Pack:
    """T tokens of R rows in one sequence, and the N positions whose next token is labelled.

    `labels` and `label_at` are in the order of the rows; `label_counts` says how many belong to each.
    """

    ids: torch.Tensor  # (1, T)
    positions: torch.Tensor  # (1, T)
    mask: torch.Tensor  # (1, 1, T, T) bool, [query, key]: may it be seen
    label_at: torch.Tensor  # (N,)
    labels: torch.Tensor  # (N,)
    label_counts: tuple[int, ...]  # (R,)
    spans: Spans  # the same as the mask, in few numbers

    @property
    def tokens(self) -> int:
        return int(self.ids.shape[1])

    @property
    def prefix_tokens(self) -> int:
        return self.spans.prefix


def shared_prefix(rows: Sequence[EncodedRow]) -> int:
    """How many tokens all rows begin with, leaving each at least the last of its prompt: what the first label needs."""
    low, high = min(row.ids for row in rows), max(row.ids for row in rows)
    longest = min(row.prompt_tokens for row in rows) - 1
    differs = (at for at, (one, other) in enumerate(zip(low, high, strict=False)) if one != other)
    return min(longest, next(differs, longest))


def pack(rows: Sequence[EncodedRow], device: torch.device | str = "cpu") -> Pack:
    """One sequence of all `rows`. The last label of each is predicted, never read, and so not in the sequence."""
    prefix = shared_prefix(rows)
    own = [row.ids[prefix:-1] for row in rows]
    owner = [0] * prefix + [number for number, ids in enumerate(own, start=1) for _ in ids]  # 0: the prefix
    positions = [*range(prefix), *(prefix + at for ids in own for at in range(len(ids)))]
    ends = [*accumulate(map(len, own), initial=prefix)]
    label_at = [at for row, end in zip(rows, ends[1:], strict=True) for at in range(end - len(row.labels), end)]
    return Pack(
        ids=torch.tensor([[*rows[0].ids[:prefix], *(token for ids in own for token in ids)]], device=device),
        positions=torch.tensor([positions], device=device),
        mask=_mask(torch.tensor(owner, device=device)),
        label_at=torch.tensor(label_at, device=device),
        labels=torch.tensor([token for row in rows for token in row.labels], device=device),
        label_counts=tuple(len(row.labels) for row in rows),
        spans=Spans(prefix, tuple(pairwise(ends))),
    )


def _mask(owner: torch.Tensor) -> torch.Tensor:
    """(T,) owners to (1, 1, T, T): a query sees earlier keys of the prefix and of its own row."""
    seen = (owner[None, :] == 0) | (owner[None, :] == owner[:, None])  # (T, T)
    return seen.tril()[None, None]


def packs(rows: Sequence[EncodedRow], tokens_at_most: int, device: torch.device | str = "cpu") -> Iterator[Pack]:
    """Packs of the rows in their order, each within `tokens_at_most` unless a single row exceeds it."""
    for group in _groups(rows, tokens_at_most):
        yield pack(group, device)


def fewest_packs(rows: Sequence[EncodedRow], tokens_at_most: int, device: torch.device | str = "cpu") -> Iterator[Pack]:
    """Packs of the rows in an order that computes the fewest tokens: rows of one prompt together, the longest first."""
    for alike in _alike(rows):
        for group in _fitted(alike, tokens_at_most):
            yield pack(group, device)


def _groups(rows: Sequence[EncodedRow], tokens_at_most: int) -> Iterator[list[EncodedRow]]:
    prefix = shared_prefix(rows) if rows else 0
    group: list[EncodedRow] = []
    tokens = prefix
    for row in rows:
        own = len(row.ids) - 1 - prefix
        if group and tokens + own > tokens_at_most:
            yield group
            group, tokens = [], prefix
        group.append(row)
        tokens += own
    if group:
        yield group


def _fitted(rows: Sequence[EncodedRow], tokens_at_most: int) -> list[list[EncodedRow]]:
    """First fit by decreasing length, which takes at most 11/9 of the fewest possible groups (Johnson, 1973)."""
    prefix = shared_prefix(rows)
    groups: list[list[EncodedRow]] = []
    free: list[int] = []  # own tokens that each group can still take
    for row in sorted(rows, key=lambda row: len(row.ids), reverse=True):
        own = len(row.ids) - 1 - prefix
        at = next((at for at, room in enumerate(free) if own <= room), len(groups))
        if at == len(groups):
            groups.append([])
            free.append(tokens_at_most - prefix)
        groups[at].append(row)
        free[at] -= own
    return groups


def _alike(rows: Sequence[EncodedRow]) -> list[list[EncodedRow]]:
    """The rows apart by prompt where that computes fewer tokens: those of two prompts have but a short prefix in common."""
    prefix = shared_prefix(rows)
    branches: dict[int, list[EncodedRow]] = {}
    for row in rows:
        branches.setdefault(row.ids[prefix], []).append(row)
    if len(branches) == 1:
        return [list(rows)]
    parts = [part for branch in branches.values() for part in _alike(branch)]
    apart = sum(_packed_tokens(part) + _PASS_TOKENS for part in parts)
    return parts if apart < _packed_tokens(rows) + _PASS_TOKENS else [list(rows)]


def _packed_tokens(rows: Sequence[EncodedRow]) -> int:
    prefix = shared_prefix(rows)
    return prefix + sum(len(row.ids) - 1 - prefix for row in rows)
