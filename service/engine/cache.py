"""Keys and values of attention: those of rows being decoded, and those of prefixes that prompts share.

Shapes: a layer's keys and values are [rows, heads, columns, head_dim]. A column is one token of a row, or padding;
which of the two is told by the batch's mask [rows, columns].
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 32  # columns allotted ahead, so that a decoding step seldom copies what it has
Pair = tuple[Tensor, Tensor]  # the keys and the values of one layer
Ids = np.ndarray[Any, np.dtype[np.int64]]


class GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped for us, see pyproject.toml
    """One layer whose tensors are longer than what is filled: a step writes one column in place."""

    keys: Tensor | None
    values: Tensor | None

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None, filled: int = 0) -> None:
        super().__init__()
        self.keys = keys
        self.values = values
        self.filled = filled
        self.is_initialized = keys is not None

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *_: object,  # what other kinds of layer are told
        **__: object,
    ) -> Pair:
        """Append columns; gives views of all that is filled."""
        start, self.filled = self.filled, self.filled + key_states.shape[-2]
        self.keys = _with_columns(self.keys, key_states, start, self.filled)
        self.values = _with_columns(self.values, value_states, start, self.filled)
        self.is_initialized = True
        return self.pair

    @property
    def pair(self) -> Pair:
        """Views of what is filled. Only for a layer that holds something."""
        if self.keys is None or self.values is None:
            raise RuntimeError("this layer of the cache is empty")
        return self.keys[..., : self.filled, :], self.values[..., : self.filled, :]

    def get_seq_length(self) -> int:
        return self.filled


def _with_columns(held: Tensor | None, new: Tensor, start: int, end: int) -> Tensor:
    if held is None or held.shape[-2] < end:
        longer = _buffer(new, new.shape[0], end)
        if held is not None:
            longer[..., :start, :] = held[..., :start, :]
        held = longer
    held[..., start:end, :] = new
    return held


def _buffer(like: Tensor, rows: int, columns: int) -> Tensor:
    _, heads, _, head_dim = like.shape
    return like.new_empty((rows, heads, columns + ROOM, head_dim))


def empty_cache(layers: int) -> Cache:
    return Cache(layers=[GrowingLayer() for _ in range(layers)])


def expanded(prefix: list[Pair], rows: int) -> Cache:
    """A cache in which each of `rows` begins with the same prefix, given as pairs of one row."""
    cache = empty_cache(len(prefix))
    for layer, (keys, values) in zip(cache.layers, prefix, strict=True):
        layer.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))
    return cache


def pairs(cache: Cache) -> list[Pair]:
    return [layer.pair for layer in cache.layers]


def selected(cache: Cache, rows: Sequence[int], first_column: int) -> Cache:
    """Only these rows, from that column on."""
    width = cache.get_seq_length() - first_column

    def chosen(tensor: Tensor) -> Tensor:
        kept = _buffer(tensor, len(rows), width)
        for row, source in enumerate(rows):  # one copy; indexing by a tensor and then writing would make two
            kept[row, :, :width] = tensor[source, :, first_column:]
        return kept

    return Cache(layers=[GrowingLayer(chosen(keys), chosen(values), width) for keys, values in pairs(cache)])


def joined(first: Cache, second: Cache) -> Cache:
    """The rows of both, padded on the left to the same number of columns."""
    width = max(first.get_seq_length(), second.get_seq_length())
    layers = []
    for (keys, values), (more_keys, more_values) in zip(pairs(first), pairs(second), strict=True):
        layers.append(GrowingLayer(_stacked(keys, more_keys, width), _stacked(values, more_values, width), width))
    return Cache(layers=layers)


def _stacked(first: Tensor, second: Tensor, width: int) -> Tensor:
    rows = first.shape[0]
    both = _buffer(first, rows + second.shape[0], width)
    for part, tensor in ((both[:rows], first), (both[rows:], second)):
        padding = width - tensor.shape[2]
        part[:, :, :padding] = 0  # masked, yet a NaN left in memory would spread through 0 × NaN
        part[:, :, padding:width] = tensor
    return both


def padded_left(mask: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(mask, (width - mask.shape[1], 0), value=False)


# ------------------------------------------------------------------------------------------------ prefixes


def common_length(first: Ids, second: Ids) -> int:
    """How many leading ids are the same."""
    shorter = min(len(first), len(second))
    differs = first[:shorter] != second[:shorter]
    return int(differs.argmax()) if differs.any() else shorter


@dataclass(frozen=True, slots=True)
class Prefix:
    """Token ids that prompts begin with, and their keys and values ([1, heads, len(ids), head_dim] a layer)."""

    ids: Ids
    pairs: list[Pair]

    @property
    def size_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for pair in self.pairs for tensor in pair)

    def cut(self, length: int) -> Prefix:
        """Its first `length` tokens, as views."""
        shorter = [(keys[..., :length, :], values[..., :length, :]) for keys, values in self.pairs]
        return Prefix(self.ids[:length], shorter)


NO_PREFIX = Prefix(np.empty(0, dtype=np.int64), [])


class PrefixCache:
    """Prefixes by adapter, the least recently used dropped first; together never above `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[tuple[str | None, bytes], Prefix] = OrderedDict()

    def reach(self, adapter: str | None, ids: Ids) -> int:
        """How many of the leading `ids` are held."""
        return max((length for length, _ in self._candidates(adapter, ids)), default=0)

    def find(self, adapter: str | None, ids: Ids) -> Prefix:
        """The longest held beginning of `ids`, which may be NO_PREFIX."""
        length, key = max(self._candidates(adapter, ids), default=(0, None), key=lambda found: found[0])
        if key is None or length == 0:
            self.misses += 1
            return NO_PREFIX
        self.hits += 1
        self._entries.move_to_end(key)
        return self._entries[key].cut(length)

    def _candidates(self, adapter: str | None, ids: Ids) -> list[tuple[int, tuple[str | None, bytes] | None]]:
        return [(common_length(held.ids, ids), key) for key, held in self._entries.items() if key[0] == adapter]

    def put(self, adapter: str | None, prefix: Prefix) -> None:
        """Hold `prefix` in place of those it begins with."""
        if prefix.size_bytes > self.max_bytes:
            return
        for key, held in list(self._entries.items()):
            if key[0] == adapter and common_length(held.ids, prefix.ids) == len(held.ids):
                self._remove(key)
        self._entries[adapter, prefix.ids.tobytes()] = prefix
        self.held_bytes += prefix.size_bytes
        self.limit(self.max_bytes)

    def limit(self, max_bytes: int) -> None:
        """Hold no more than `max_bytes` from now on."""
        self.max_bytes = max_bytes
        while self.held_bytes > self.max_bytes:
            self._remove(next(iter(self._entries)))

    def drop_adapter(self, adapter: str | None) -> None:
        for key in [key for key in self._entries if key[0] == adapter]:
            self._remove(key)

    def _remove(self, key: tuple[str | None, bytes]) -> None:
        self.held_bytes -= self._entries.pop(key).size_bytes
