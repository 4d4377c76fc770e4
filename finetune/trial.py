"""A few steps of a job on the model that it trains, and the ways of training that its memory asks for."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from finetune import memory, ranks, scoring, sharding, step
from finetune.bench import Bench
from finetune.encoding import EncodedRow
from finetune.model import checkpoint_layers, precision, weights_dtype
from finetune.packing import fewest_packs
from finetune.plan import Measured
from finetune.step import OutOfMemoryError, longest_batch

SHARE = 0.9  # of the free memory may be planned for: others on the machine move, and allocators leave gaps
_SCORED_ROWS = 16
_LONG_STEP_S = 4.0  # a step beyond it is not taken again for the median's sake
_SECOND_US = 1_000_000


@dataclass(frozen=True)
class Ways:
    """How the job is to be trained, and why."""

    pack_tokens: int
    gradient_checkpointing: bool
    decisions: tuple[str, ...]


@dataclass(frozen=True)
class _Step:
    """One step: its seconds, the most bytes held meanwhile, and what one of its passes may hold."""

    seconds: float
    peak_bytes: int
    pack_tokens: int


class Trial:
    """Steps on a bench. Where several ranks take them, all find the same: the longest time, the least memory."""

    def __init__(self, bench: Bench, load_s: float) -> None:
        self.bench, self.load_s = bench, load_s
        self.batch_size = min(bench.spec.recipe.batch_size, len(bench.train))
        self.longest = longest_batch(bench.train, self.batch_size)
        self.held_bytes = max(ranks.each(memory.held_bytes(bench.device), bench.device))
        self.device_free_bytes = ranks.each(self.held_bytes + memory.free_bytes(bench.device), bench.device)
        self.free_bytes = min(self.device_free_bytes)
        self.compile_s = 0.0
        params = bench.params.values()
        self.optimizer = torch.optim.AdamW(params, lr=bench.spec.recipe.lr, fused=True)

    def choose(self) -> Ways | str:
        """The ways whose memory fits, or why none does. It goes from one row to the batch: a CPU's system does not refuse
        memory, it ends the process that takes it."""
        spec = self.bench.spec
        share = sharding.share_of(self.longest, 0, ranks.count())
        tokens = min(spec.pack_tokens, max(one.tokens for one in fewest_packs(share, sys.maxsize)))
        if found := self._fitting(tokens):
            return Ways(found, spec.gradient_checkpointing, self._words(found, tokens))
        row = self.longest[0]
        too_much = f"one example of {len(row.ids)} tokens needs more than the {gib(self.free_bytes)} that are free here"
        if spec.gradient_checkpointing or spec.devices > 1:  # ranks that ran out of memory begin anew, in a trial apart
            return too_much
        checkpoint_layers(self.bench.model)
        if found := self._fitting(tokens):
            why = "gradient checkpointing: without it one example does not fit into the free memory"
            return Ways(found, True, (why, *self._words(found, tokens)))
        return too_much

    def _fitting(self, tokens: int) -> int:
        """How many of `tokens` a pass may hold, from the bytes a token that the longest row alone takes; 0 for none."""
        try:
            alone = self._first_step()
        except OutOfMemoryError:
            return 0
        row_tokens = len(self.longest[0].ids) - 1
        token_bytes = max(1, alone.peak_bytes - self.held_bytes) / row_tokens
        room = int((SHARE * self.free_bytes - self.held_bytes) / token_bytes)
        if room < row_tokens:
            return 0
        return self.bench.spec.pack_tokens if room >= tokens else room

    def _first_step(self) -> _Step:
        """Of the longest row alone. Compiled layers are compiled in it, and for scoring."""
        if not self.bench.spec.compile:
            return self._step(self.longest[:1], self.bench.spec.pack_tokens)
        began_s = time.monotonic()
        self._step(self.longest[:2], self.bench.spec.pack_tokens)
        self._step(self.longest, self.bench.spec.pack_tokens)  # another length: from here on shapes are symbols
        self._score_row_s(self.bench.spec.pack_tokens)
        alone = self._step(self.longest[:1], self.bench.spec.pack_tokens)
        self.compile_s = time.monotonic() - began_s
        return alone

    def _words(self, found: int, tokens: int) -> tuple[str, ...]:
        if found >= tokens:
            return ()
        return (
            f"a batch is computed in passes of {found} tokens: all {tokens} at once do not fit into the free memory",
        )

    def _step(self, rows: Sequence[EncodedRow], pack_tokens: int) -> _Step:
        device = self.bench.device
        memory.forget_peak(device)
        began_s = time.monotonic()
        accumulate = step.accumulate if ranks.count() == 1 else sharding.accumulate
        gradient = accumulate(self.bench.base, rows, pack_tokens)
        self.optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took_us = int((time.monotonic() - began_s) * _SECOND_US)
        longest_us = max(ranks.each(took_us, device))
        return _Step(longest_us / _SECOND_US, max(ranks.each(memory.peak_bytes(device), device)), gradient.pack_tokens)

    def result(self, ways: Ways) -> Measured:
        """What the steps took. Raises OutOfMemoryError."""
        largest = self._step(self.longest, ways.pack_tokens)
        median = _median_batch(self.bench.train, self.batch_size)
        step_s = self._median_s(median, largest)
        device = self.bench.device
        return Measured(
            device=str(device),
            precision=name_of(weights_dtype(device)),
            load_s=self.load_s,
            free_bytes=self.free_bytes,
            step_s=step_s,
            largest_step_s=largest.seconds,
            row_s=step_s / self.batch_size,
            score_row_s=self._score_row_s(largest.pack_tokens),
            tokens_per_s=sum(len(row.ids) for row in median) / step_s,
            peak_bytes=largest.peak_bytes,
            pack_tokens=largest.pack_tokens,
            gradient_checkpointing=ways.gradient_checkpointing,
            four_bit=self.bench.spec.four_bit,
            devices=ranks.count(),
            device_free_bytes=self.device_free_bytes,
            compile=self.bench.spec.compile,
            compile_s=self.compile_s,
            decisions=ways.decisions,
        )

    def _median_s(self, median: Sequence[EncodedRow], largest: _Step) -> float:
        """Seconds of the median batch, from a step of its own where that is quick, else by its tokens."""
        if largest.seconds < _LONG_STEP_S:
            return min(self._step(median, largest.pack_tokens).seconds, largest.seconds)
        tokens = [sum(one.tokens for one in fewest_packs(rows, largest.pack_tokens)) for rows in (median, self.longest)]
        return largest.seconds * tokens[0] / tokens[1]

    def _score_row_s(self, pack_tokens: int) -> float:
        rows = (self.bench.dev or self.bench.train)[:_SCORED_ROWS]
        self.bench.base.eval()
        began_s = time.monotonic()
        limits = {"max_new_tokens": self.bench.spec.max_new_tokens, "pack_tokens": pack_tokens}
        with precision(self.bench.device):
            scoring.score(self.bench.base, self.bench.tokenizer, rows, **limits)
        return (time.monotonic() - began_s) / len(rows)


def _median_batch(rows: Sequence[EncodedRow], batch_size: int) -> list[EncodedRow]:
    """Neighbours in the middle of the rows by length."""
    by_length = sorted(rows, key=lambda row: len(row.ids))
    at = (len(rows) - batch_size) // 2
    return by_length[at : at + batch_size]


def name_of(dtype: torch.dtype) -> str:
    """As configs name it: `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def gib(count: int) -> str:
    """Bytes in words."""
    return f"{count / 2**30:.1f} GiB"
