"""Some real steps of a job before it starts: what they take here, and how the job fits into the memory there is."""

from __future__ import annotations

import gc
import json
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from finetune import durable, memory, plan, quantize, scoring
from finetune.bench import Bench, prepare, set_up
from finetune.encoding import EncodedRow, RefusedError
from finetune.events import Events
from finetune.guard import Guard
from finetune.model import checkpoint_layers, precision, weights_dtype
from finetune.packing import fewest_packs
from finetune.plan import JobSpec, Measured
from finetune.step import OutOfMemoryError, accumulate, longest_batch
from prompts.errors import BadInput

MEASURED_FILE = "measured.json"
DONE, REFUSED, FAILED = 0, 2, 4
_SHARE = 0.9  # of the free memory may be planned for: others on the machine move, and allocators leave gaps
_SCORED_ROWS = 16
_LONG_STEP_S = 4.0  # a step beyond it is not taken again for the median's sake


def run_file(path: Path, guard: Guard, started_s: float) -> int:
    """Measure the job of a spec file; `started_s` is when the process began (monotonic). Gives the exit code."""
    try:
        spec = plan.read_spec(path)
    except BadInput as error:
        print(json.dumps({"type": "refused", "reasons": [str(error)]}), file=sys.stderr)  # noqa: T201  no events yet
        return REFUSED
    spec.output_dir.mkdir(parents=True, exist_ok=True)
    events = Events(spec.output_dir / "events.jsonl")
    try:
        measured = measure(spec, events, guard, started_s)
    except BadInput as error:
        events.tell("refused", reasons=list(error.shown) if isinstance(error, RefusedError) else [str(error)])
        return REFUSED
    except Exception as error:  # noqa: BLE001  the process ends here: its parent reads events, not tracebacks
        traceback.print_exc()
        events.tell("failed", message=f"{type(error).__name__}: {error}")
        return FAILED
    durable.write_file(path.parent / MEASURED_FILE, measured.model_dump_json(indent=1).encode())
    return DONE


def measure(spec: JobSpec, events: Events, guard: Guard, started_s: float) -> Measured:
    """What steps of `spec` take. The model that took them is worth nothing and is not kept.

    The base is held in 4 bits only where it does not fit otherwise, nor with gradient checkpointing.
    """
    device = prepare(spec)
    too_large = "" if spec.four_bit else _too_large(spec, device)
    found = _does_not_fit(spec, device, too_large) if too_large else _try(spec, events, guard, started_s)
    if found.fits or spec.four_bit or not quantize.is_possible(device):
        return found
    gc.collect()
    torch.cuda.empty_cache()  # does nothing where there is no CUDA
    why = too_large or "without it not even one example fits into the free memory"
    found = _try(spec.model_copy(update={"four_bit": True}), events, guard, started_s)
    chosen = (f"a base model in 4 bits: {why}", *found.decisions) if found.fits else ()
    return found.model_copy(update={"decisions": chosen})


def _too_large(spec: JobSpec, device: torch.device) -> str:
    """Why the weights alone do not fit, which is known before they are loaded; empty where they do."""
    needed = plan.read_shape(spec.base_folder).weights_bytes(weights_dtype(device).itemsize)
    free = memory.free_bytes(device)
    return "" if needed <= _SHARE * free else f"its weights take {_gib(needed)}, and {_gib(free)} are free here"


def _try(spec: JobSpec, events: Events, guard: Guard, started_s: float) -> Measured:
    bench = set_up(spec, events, guard)
    trial = _Trial(bench, time.monotonic() - started_s)
    chosen = trial.choose()
    if isinstance(chosen, str):
        return _does_not_fit(spec, bench.device, chosen)
    try:
        return trial.result(chosen)
    except OutOfMemoryError as error:
        return _does_not_fit(spec, bench.device, str(error))


def _does_not_fit(spec: JobSpec, device: torch.device, why: str) -> Measured:
    extra = quantize.way_out(device)
    way_out = f"{f'{extra}, ' if extra else ''}free memory, shorten the longest example, or choose a smaller base model"
    held = "does not even fit with a base model in 4 bits" if spec.four_bit else "does not fit"
    reason = f"the training {held}: {why}; {way_out}"
    none = dict.fromkeys(("load_s", "step_s", "largest_step_s", "row_s", "score_row_s", "tokens_per_s"), 0.0)
    return Measured(
        **none,
        device=str(device),
        precision=_name(weights_dtype(device)),
        peak_bytes=memory.peak_bytes(device),
        free_bytes=memory.held_bytes(device) + memory.free_bytes(device),
        pack_tokens=spec.pack_tokens,
        four_bit=spec.four_bit,
        fits=False,
        reason=reason,
    )


@dataclass(frozen=True)
class _Ways:
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


class _Trial:
    def __init__(self, bench: Bench, load_s: float) -> None:
        self.bench, self.load_s = bench, load_s
        self.batch_size = min(bench.spec.recipe.batch_size, len(bench.train))
        self.longest = longest_batch(bench.train, self.batch_size)
        self.held_bytes = memory.held_bytes(bench.device)
        self.free_bytes = self.held_bytes + memory.free_bytes(bench.device)
        params = bench.params.values()
        self.optimizer = torch.optim.AdamW(params, lr=bench.spec.recipe.lr, fused=True)

    def choose(self) -> _Ways | str:
        """The ways whose memory fits, or why none does. It goes from one row to the batch: a CPU's system does not refuse
        memory, it ends the process that takes it."""
        tokens = min(self.bench.spec.pack_tokens, max(one.tokens for one in fewest_packs(self.longest, sys.maxsize)))
        if found := self._fitting(tokens):
            return _Ways(found, False, self._words(found, tokens))
        checkpoint_layers(self.bench.model)
        if found := self._fitting(tokens):
            why = "gradient checkpointing: without it one example does not fit into the free memory"
            return _Ways(found, True, (why, *self._words(found, tokens)))
        row = self.longest[0]
        return f"one example of {len(row.ids)} tokens needs more than the {_gib(self.free_bytes)} that are free here"

    def _fitting(self, tokens: int) -> int:
        """How many of `tokens` a pass may hold, from the bytes a token that the longest row alone takes; 0 for none."""
        try:
            alone = self._step(self.longest[:1], self.bench.spec.pack_tokens)
        except OutOfMemoryError:
            return 0
        row_tokens = len(self.longest[0].ids) - 1
        token_bytes = max(1, alone.peak_bytes - self.held_bytes) / row_tokens
        room = int((_SHARE * self.free_bytes - self.held_bytes) / token_bytes)
        if room < row_tokens:
            return 0
        return self.bench.spec.pack_tokens if room >= tokens else room

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
        gradient = accumulate(self.bench.base, rows, pack_tokens)
        self.optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return _Step(time.monotonic() - began_s, memory.peak_bytes(device), gradient.pack_tokens)

    def result(self, ways: _Ways) -> Measured:
        largest = self._step(self.longest, ways.pack_tokens)
        median = _median_batch(self.bench.train, self.batch_size)
        step_s = self._median_s(median, largest)
        device = self.bench.device
        return Measured(
            device=str(device),
            precision=_name(weights_dtype(device)),
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


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
