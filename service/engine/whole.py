"""Rows of tokens through a model of transformers as it is, with PEFT's layers for adapters: for every family.

Layout of a part's columns, left to right: the shared prefix, padding up to the longest row, each row's own tokens, the
tokens generated. Positions are counted without the padding, so a row computes what it would alone, up to the order in
which a matrix product adds its terms. Rows of several adapters are several parts, computed one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache

from service.engine.adapters import AdapterFiles
from service.engine.cache import Ids, Prefix, empty_cache, expanded, joined, padded_left, pairs, selected
from service.engine.peft_layers import PeftLayers
from service.engine.windows import Windows


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one adapter. `rows` are their numbers among all, `mask` [rows, columns] is False at padding."""

    adapter: str | None
    rows: tuple[int, ...]
    cache: Cache
    mask: Tensor
    positions: Tensor  # [rows], of each row's next token


@dataclass(slots=True)
class WholeRows:
    """See `forward.Rows`."""

    parts: tuple[Part, ...]
    logits: Tensor

    def __len__(self) -> int:
        return int(self.logits.shape[0])

    @property
    def held_tokens(self) -> int:
        return sum(part.mask.numel() for part in self.parts)

    def keep(self, indexes: Sequence[int]) -> WholeRows:
        """Also without the leading columns that are padding in all rows of a part."""
        parts = []
        for part in self.parts:
            local = {row: place for place, row in enumerate(part.rows)}
            wanted = [(new, local[index]) for new, index in enumerate(indexes) if index in local]
            if wanted:
                parts.append(_kept(part, tuple(new for new, _ in wanted), [old for _, old in wanted]))
        return WholeRows(tuple(parts), self.logits[torch.tensor(indexes, device=self.logits.device)])

    def join(self, others: Sequence[WholeRows]) -> WholeRows:
        parts, count = {part.adapter: part for part in self.parts}, len(self)
        for other in others:
            for part in other.parts:
                moved = replace(part, rows=tuple(row + count for row in part.rows))
                parts[part.adapter] = _joined(parts[part.adapter], moved) if part.adapter in parts else moved
            count += len(other)
        return WholeRows(tuple(parts.values()), torch.cat([rows.logits for rows in (self, *others)]))


class WholeForward:
    """See `forward.Forward`."""

    def __init__(self, network: Any, windows: Windows) -> None:
        self._network = network
        self._windows = windows
        self._layers = int(network.config.num_hidden_layers)
        self._over = PeftLayers(network)

    @property
    def kind(self) -> str:
        return "whole"

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(sorted(self._over.names))

    def add_adapter(self, name: str, files: AdapterFiles) -> None:
        self._over.add(name, files)

    def remove_adapter(self, name: str) -> None:
        self._over.remove(name)

    def prefill(self, adapter: str | None, own: Sequence[Ids], prefix: Prefix) -> WholeRows:
        shared, width = len(prefix.ids), max(map(len, own))
        ids = np.zeros((len(own), width), dtype=np.int64)
        real = np.zeros((len(own), shared + width), dtype=bool)
        real[:, :shared] = True
        for row, tokens in enumerate(own):
            ids[row, width - len(tokens) :] = tokens
            real[row, shared + width - len(tokens) :] = True
        device = self._network.device
        mask = torch.from_numpy(real).to(device)
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        cache = expanded(prefix.pairs, len(own)) if shared else empty_cache(self._layers)
        logits = self._logits(adapter, torch.from_numpy(ids).to(device), mask, positions[:, shared:], cache)
        return WholeRows((Part(adapter, tuple(range(len(own))), cache, mask, positions[:, -1] + 1),), logits)

    def advance(self, rows: WholeRows, tokens: Sequence[int]) -> WholeRows:
        logits = torch.empty_like(rows.logits)
        parts = []
        for part in rows.parts:
            ids = torch.tensor([tokens[row] for row in part.rows], device=logits.device)[:, None]
            mask = torch.nn.functional.pad(part.mask, (0, 1), value=True)
            logits[list(part.rows)] = self._logits(part.adapter, ids, mask, part.positions[:, None], part.cache)
            parts.append(Part(part.adapter, part.rows, part.cache, mask, part.positions + 1))
        return WholeRows(tuple(parts), logits)

    def prefix_of(self, rows: WholeRows, ids: Ids) -> Prefix:
        return Prefix(ids, pairs(rows.parts[0].cache))

    def _logits(self, adapter: str | None, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """Of each row's last token. `ids` and `positions` are [rows, new columns]; the cache gets the new columns."""
        self._over.use(adapter)
        with torch.inference_mode():
            out = self._network(
                input_ids=ids,
                attention_mask=self._windows.mask(mask, ids.shape[1], self._network.dtype),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        last: Tensor = out.logits[:, -1]
        return last if last.dtype == torch.float64 else last.float()


def _kept(part: Part, rows: tuple[int, ...], indexes: Sequence[int]) -> Part:
    kept = torch.tensor(indexes, device=part.mask.device)
    mask = part.mask[kept]
    first = int(mask.any(0).int().argmax())
    return Part(part.adapter, rows, selected(part.cache, indexes, first), mask[:, first:], part.positions[kept])


def _joined(first: Part, second: Part) -> Part:
    width = max(first.mask.shape[1], second.mask.shape[1])
    mask = torch.cat([padded_left(first.mask, width), padded_left(second.mask, width)])
    positions = torch.cat([first.positions, second.positions])
    return Part(first.adapter, first.rows + second.rows, joined(first.cache, second.cache), mask, positions)
