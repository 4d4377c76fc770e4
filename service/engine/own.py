"""Rows of tokens through decoder layers that are written out here (`layers`): no padding, prefixes held once.

A row's own tokens are its columns from 0 on, whatever their number; what rows share lies in a `Prefix` that all of them
look at. Rows of several adapters go through the base weights together, and each adapter's small products are added for
its rows only: they lie one behind the other, in an order of their own, so that this copies nothing. Prompts are packed
one behind the other, short ones first; a decoding step takes one token of every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  torch's documentation and users call it so
from torch import Tensor

from service.engine.adapters import AdapterFiles
from service.engine.attention import attend, put_together
from service.engine.cache import ROOM, Ids, Pair, Prefix
from service.engine.layers import Decoder, Laid, Lora, Turns, normed
from service.engine.loras import read_lora

_STRETCH = 16  # tokens: of rows whose lengths differ by less, padding costs a CPU less than a call


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one adapter that go on from one prefix, by their places."""

    adapter: str | None
    prefix: Prefix
    places: range

    @property
    def where(self) -> slice:
        return slice(self.places.start, self.places.stop)


@dataclass(slots=True)
class OwnRows:
    """`keys` and `values` [layers, places, groups of heads, columns, D], of which `filled` columns hold own tokens.

    `order` says which row is at each place; `logits` are by rows.
    """

    groups: tuple[Group, ...]
    keys: Tensor
    values: Tensor
    filled: tuple[int, ...]
    order: tuple[int, ...]
    logits: Tensor

    def __len__(self) -> int:
        return len(self.filled)

    @property
    def held_tokens(self) -> int:
        return len(self.filled) * self.keys.shape[3]

    @torch.inference_mode()
    def keep(self, indexes: Sequence[int]) -> OwnRows:
        places = _inverse(self.order)
        logits = self.logits[torch.tensor(indexes, device=self.keys.device)]
        return _gathered([(self, places[index]) for index in indexes], logits)

    @torch.inference_mode()
    def join(self, others: Sequence[OwnRows]) -> OwnRows:
        several = (self, *others)
        taken = [(rows, place) for rows in several for place in _inverse(rows.order)]
        return _gathered(taken, torch.cat([rows.logits for rows in several]))


def _gathered(taken: Sequence[tuple[OwnRows, int]], logits: Tensor) -> OwnRows:
    """Rows that were at places of others, those of one adapter and prefix one behind the other."""
    members = _members(taken)
    order = tuple(row for _, rows in members for row in rows)
    filled = tuple(source.filled[place] for source, place in (taken[row] for row in order))
    keys, values = _room(taken[0][0].keys, len(order), max(filled), filled)
    for new, (row, width) in enumerate(zip(order, filled, strict=True)):
        source, place = taken[row]  # one copy; indexing by a tensor and then writing would make two
        keys[:, new, :, :width] = source.keys[:, place, :, :width]
        values[:, new, :, :width] = source.values[:, place, :, :width]
    ends = np.cumsum([len(rows) for _, rows in members]).tolist()
    groups = [
        replace(group, places=range(end - len(rows), end)) for (group, rows), end in zip(members, ends, strict=True)
    ]
    return OwnRows(tuple(groups), keys, values, filled, order, logits)


def _members(taken: Sequence[tuple[OwnRows, int]]) -> list[tuple[Group, list[int]]]:
    """Groups with their rows, one for each adapter and prefix: of one adapter, the same tokens have the same keys."""
    found: dict[tuple[str | None, bytes], tuple[Group, list[int]]] = {}
    for row, (source, place) in enumerate(taken):
        group = next(one for one in source.groups if place in one.places)
        found.setdefault((group.adapter, group.prefix.ids.tobytes()), (group, []))[1].append(row)
    return list(found.values())


def _inverse(order: Sequence[int]) -> list[int]:
    """The place of each row."""
    places: list[int] = np.argsort(order).tolist()
    return places


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Rows of a pack that stand next to each other and are about as long: attention over their own tokens pads them.

    `tokens` of the pack are theirs, each at its `columns` of its row, which is counted in `rows` from the first of `places`.
    """

    places: slice
    tokens: slice
    rows: Tensor
    columns: Tensor
    longest: int


@dataclass(frozen=True, slots=True)
class _Pack:
    """Tokens of several rows, one row behind the other, short ones first: for each its id, its row, its column and its position."""

    ids: Tensor
    rows: Tensor
    columns: Tensor
    positions: Tensor
    last: Tensor  # the place of each row's last token
    lengths: tuple[int, ...]
    stretches: tuple[_Stretch, ...]

    @classmethod
    def of(cls, own: Sequence[Ids], start: int, device: torch.device) -> _Pack:
        lengths = np.array([len(tokens) for tokens in own])
        ends = np.cumsum(lengths)
        columns = np.concatenate([np.arange(length) for length in lengths])
        rows = np.repeat(np.arange(len(own)), lengths)
        parts = (np.concatenate(own), rows, columns, columns + start, ends - 1)
        ids, row, column, position, last = (torch.from_numpy(part).to(device) for part in parts)
        stretches = []
        for places in _about_as_long(lengths) if device.type == "cpu" else [slice(0, len(own))]:
            tokens = slice(int(ends[places.start] - lengths[places.start]), int(ends[places.stop - 1]))
            longest = int(lengths[places.stop - 1])
            stretches.append(_Stretch(places, tokens, row[tokens] - places.start, column[tokens], longest))
        return cls(ids, row, column, position, last, tuple(lengths.tolist()), tuple(stretches))


def _about_as_long(lengths: np.ndarray[Any, np.dtype[np.int64]]) -> list[slice]:
    """The places of rows, in rising order of their lengths, by what these are when rounded up to whole `_STRETCH`."""
    steps = -(-lengths // _STRETCH)
    begins = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(lengths)]
    return [slice(begin, end) for begin, end in pairwise(begins)]


class OwnForward:
    """See `forward.Forward`; the network's family must be one that `layers.is_known`."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._loras: dict[str, Lora] = {}

    @property
    def kind(self) -> str:
        return "own, packed" if self._decoder.is_packed else "own"

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(sorted(self._loras))

    def add_adapter(self, name: str, files: AdapterFiles) -> None:
        self._loras[name] = read_lora(files, self._decoder.blocks)

    def remove_adapter(self, name: str) -> None:
        del self._loras[name]

    @torch.inference_mode()
    def prefill(self, adapter: str | None, own: Sequence[Ids], prefix: Prefix) -> OwnRows:
        decoder, device = self._decoder, self._decoder.embeddings.device
        order = sorted(range(len(own)), key=lambda row: len(own[row]))
        pack = _Pack.of([own[row] for row in order], len(prefix.ids), device)
        groups = (Group(adapter, prefix, range(len(own))),)
        rows = self._empty(groups, pack.lengths, tuple(order))
        laid, places = self._laid(groups, packed=True), (pack.rows, pack.columns)
        turns = decoder.turns(pack.positions)
        x = F.embedding(pack.ids, decoder.embeddings)
        for number, layer in enumerate(decoder.layers[:-1]):
            h = normed(x, layer.attention_norm, decoder.shape.epsilon)
            q, keys, values = decoder.heads(layer, h, turns, laid)
            _put(rows, number, keys, values, places)
            seen = self._attend_pack(q, pack, rows.keys[number], rows.values[number], _pair(prefix, number))
            x = decoder.after_attention(layer, x, seen, laid)
        # Of all tokens but the last ones the last layer needs keys and values only.
        h = normed(x, decoder.layers[-1].attention_norm, decoder.shape.epsilon)
        _put(rows, -1, *decoder.keys_values(decoder.layers[-1], h, turns, laid), places)
        step = _Step.of(self, rows, pack.lengths)
        x = self._ask_last(rows, step, x[pack.last], h[pack.last], turns.at(pack.last))
        by_row = torch.tensor(_inverse(rows.order), device=device)
        return replace(rows, logits=decoder.logits(x[by_row], step.laid))  # one adapter, or none, over all of them

    @torch.inference_mode()
    def advance(self, rows: OwnRows, tokens: Sequence[int]) -> OwnRows:
        decoder, device = self._decoder, rows.keys.device
        rows = _with_room(rows)
        filled = torch.tensor(rows.filled, device=device)
        starts = np.concatenate([np.full(len(group.places), len(group.prefix.ids)) for group in rows.groups])
        turns = decoder.turns(filled + torch.from_numpy(starts).to(device))
        places = (torch.arange(len(rows), device=device), filled)
        step = _Step.of(self, rows, tuple(length + 1 for length in rows.filled))
        x = F.embedding(torch.tensor([tokens[row] for row in rows.order], device=device), decoder.embeddings)
        for number, layer in enumerate(decoder.layers):
            h = normed(x, layer.attention_norm, decoder.shape.epsilon)
            q, keys, values = decoder.heads(layer, h, turns, step.laid)
            _put(rows, number, keys, values, places)
            x = decoder.after_attention(layer, x, self._attend_step(q, rows, number, step), step.laid)
        logits = decoder.logits(x, step.laid)
        if rows.order != tuple(range(len(rows))):
            logits = logits[torch.tensor(_inverse(rows.order), device=device)]
        return replace(rows, filled=step.lengths, logits=logits)

    @torch.inference_mode()
    def prefix_of(self, rows: OwnRows, ids: Ids) -> Prefix:
        begun, end = rows.groups[0].prefix.pairs, rows.filled[0]
        own = [(keys[:1, :, :end], values[:1, :, :end]) for keys, values in zip(rows.keys, rows.values, strict=True)]
        if not begun:
            return Prefix(ids, [(keys.clone(), values.clone()) for keys, values in own])
        both = zip(begun, own, strict=True)
        return Prefix(
            ids, [(torch.cat([k, more_k], 2), torch.cat([v, more_v], 2)) for (k, v), (more_k, more_v) in both]
        )

    # ---------------------------------------------------------------------------- keys and values

    def _empty(self, groups: tuple[Group, ...], filled: tuple[int, ...], order: tuple[int, ...]) -> OwnRows:
        shape, like = self._decoder.shape, self._decoder.embeddings
        none = like.new_empty(len(self._decoder.layers), 0, shape.groups, 0, shape.width)
        return OwnRows(groups, *_room(none, len(filled), max(filled), filled), filled, order, logits=like.new_empty(0))

    def _laid(self, groups: Sequence[Group], *, packed: bool = False) -> list[Laid]:
        """The adapters over the places of `groups`, or over all tokens of a pack, which are of one group."""
        return [
            Laid(slice(None) if packed else group.where, self._loras[group.adapter])
            for group in groups
            if group.adapter is not None
        ]

    # ---------------------------------------------------------------------------- attention

    def _attend_pack(self, q: Tensor, pack: _Pack, keys: Tensor, values: Tensor, prefix: Pair | None) -> Tensor:
        """Packed queries [T, heads, D] over their row's tokens up to themselves and the prefix, to [T, heads × D]."""
        shape = self._decoder.shape
        grouped = q.view(len(q), shape.groups, -1, shape.width)  # [T, G, heads of a group, D]
        found = [self._attend_stretch(grouped[one.tokens], one, keys, values) for one in pack.stretches]
        own, lse = (torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*found, strict=True))
        if prefix is not None:
            own = put_together(own, lse, *self._attend_prefix(grouped, prefix))
        return own.reshape(len(q), -1)

    def _attend_stretch(self, grouped: Tensor, of: _Stretch, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [T, G, heads of a group, D] over their rows' own tokens up to themselves: output likewise and lse [T, G, …]."""
        rows, groups = of.places.stop - of.places.start, grouped.shape[1]
        padded = grouped.new_zeros(rows, of.longest, *grouped.shape[1:])
        padded[of.rows, of.columns] = grouped
        asking = padded.permute(0, 2, 3, 1, 4).flatten(0, 1)  # [rows × G, heads of a group, L, D]
        k, v = (
            each[of.places].flatten(0, 1)[:, None, : of.longest].expand(-1, asking.shape[1], -1, -1)
            for each in (keys, values)
        )
        out, lse = attend(asking, k, v, self._decoder.shape.scale, causal=True)
        by_row = out.view(rows, groups, *out.shape[1:]).permute(0, 3, 1, 2, 4)
        lse_by_row = lse.view(rows, groups, *lse.shape[1:]).permute(0, 3, 1, 2)
        return by_row[of.rows, of.columns], lse_by_row[of.rows, of.columns]

    def _attend_prefix(self, grouped: Tensor, prefix: Pair) -> tuple[Tensor, Tensor]:
        """Queries [T, G, heads of a group, D] over a prefix, which all see whole: output likewise and lse [T, G, …]."""
        k, v = (each[0][:, None].expand(-1, grouped.shape[2], -1, -1) for each in prefix)
        out, lse = attend(grouped.permute(1, 2, 0, 3), k, v, self._decoder.shape.scale)
        return out.permute(2, 0, 1, 3), lse.permute(2, 0, 1)

    def _ask_last(self, rows: OwnRows, step: _Step, x: Tensor, h: Tensor, turns: Turns) -> Tensor:
        layer, number = self._decoder.layers[-1], len(self._decoder.layers) - 1
        q = self._decoder.queries(layer, h, turns, step.laid)
        return self._decoder.after_attention(layer, x, self._attend_step(q, rows, number, step), step.laid)

    def _attend_step(self, q: Tensor, rows: OwnRows, number: int, step: _Step) -> Tensor:
        """One query a row [rows, heads, D] over all that the row has, to [rows, heads × D]."""
        shape = self._decoder.shape
        grouped = q.view(len(q), shape.groups, -1, shape.width)
        seen = max(step.lengths)
        keys, values = rows.keys[number][:, :, :seen], rows.values[number][:, :, :seen]
        out, lse = attend(grouped, keys, values, shape.scale, mask=step.mask)
        for where, prefix in step.prefixes:
            shared = self._attend_prefix(grouped[where], prefix.pairs[number])
            out[where] = put_together(out[where], lse[where], *shared)
        return out.reshape(len(q), -1)


@dataclass(frozen=True, slots=True)
class _Step:
    """What is the same in all layers of a pass in which each row asks with one token.

    `lengths` are the columns that each row sees, `mask` [rows, 1, 1, columns] hides the others of shorter rows.
    """

    lengths: tuple[int, ...]
    mask: Tensor | None
    prefixes: tuple[tuple[slice, Prefix], ...]
    laid: tuple[Laid, ...]

    @classmethod
    def of(cls, forward: OwnForward, rows: OwnRows, lengths: tuple[int, ...]) -> _Step:
        prefixes = tuple((group.where, group.prefix) for group in rows.groups if len(group.prefix.ids))
        return cls(lengths, _hidden(lengths, rows.keys), prefixes, tuple(forward._laid(rows.groups)))


def _hidden(lengths: Sequence[int], like: Tensor) -> Tensor | None:
    longest = max(lengths)
    if min(lengths) == longest:
        return None
    columns = torch.arange(longest, device=like.device)
    beyond = columns[None, :] >= torch.tensor(lengths, device=like.device)[:, None]
    return torch.zeros(beyond.shape, dtype=like.dtype, device=like.device).masked_fill_(beyond, -torch.inf)[
        :, None, None
    ]


def _put(rows: OwnRows, number: int, keys: Tensor, values: Tensor, where: tuple[Tensor, Tensor]) -> None:
    """Write a layer's keys and values [T, groups, D] to their places and columns."""
    rows.keys[number].transpose(1, 2).index_put_(where, keys)
    rows.values[number].transpose(1, 2).index_put_(where, values)


def _room(like: Tensor, rows: int, columns: int, filled: Sequence[int] | None = None) -> Pair:
    """For keys and values: zeros, as what lies behind a row's columns is multiplied with 0, and 0 × NaN would spread.

    The columns that each row has `filled` are left as they come: they are written to.
    """
    layers, _, groups, _, width = like.shape
    size = (layers, rows, groups, columns + ROOM, width)
    if filled is None:
        return like.new_zeros(size), like.new_zeros(size)
    keys, values = like.new_empty(size), like.new_empty(size)
    for row, written in enumerate(filled):
        keys[:, row, :, written:] = 0
        values[:, row, :, written:] = 0
    return keys, values


def _with_room(rows: OwnRows) -> OwnRows:
    if max(rows.filled) < rows.keys.shape[3]:
        return rows
    more = (0, 0, 0, ROOM)  # columns to the right
    return replace(rows, keys=F.pad(rows.keys, more), values=F.pad(rows.values, more))


def _pair(prefix: Prefix, number: int) -> Pair | None:
    return prefix.pairs[number] if len(prefix.ids) else None
