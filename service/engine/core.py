"""The generator: one thread that owns the model and answers what is waiting, in batches.

A turn of its loop: do what was asked of the model itself (load an adapter), take in new requests, let waiting requests
of each adapter join the batch of that adapter, then give every batch one token. Batches of different adapters take
turns; the base weights are the same tensors for all.

What a greedy request is answered is what it is answered alone, without batch and shared prefix. Together, matrix
products add in another order and logits differ in the last digits. The largest such difference is measured when a model
or an adapter is loaded; a row whose best two logits come closer than that, times a safety factor, is asked again alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from prompts.errors import BadInput
from prompts.parameters import DEFAULT_ANSWER_TOKENS
from service.engine import decoding
from service.engine.adapters import AdapterFiles
from service.engine.asks import Answer, Ask, ContextOverflow, QueueFull, UnknownAdapter
from service.engine.batch import Batch, Job, step
from service.engine.cache import Ids, PrefixCache
from service.engine.canary import check_canary
from service.engine.choosing import RECENT, choose_group, longest_common
from service.engine.model import LoadedModel

_LOG = logging.getLogger(__name__)
SAFETY = 4.0  # a flip needs two logits off by half their distance each: twice the noise; twice that for the unmeasured
JOIN_AFTER = 8  # steps; a batch takes in fewer newcomers than a quarter of its size only so often
IDLE_S = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """`rows` decode together per adapter; `kv_bytes` bound their keys and values, `prefix_bytes` those of prefixes."""

    max_queue: int = 4096
    rows: int = 32
    kv_bytes: int = 2 << 30
    prefix_bytes: int = 256 << 20

    @classmethod
    def for_device(cls, device: torch.device, max_queue: int) -> Limits:
        if device.type != "cuda":
            return cls(max_queue)
        free, _ = torch.cuda.mem_get_info(device)
        return cls(max_queue, rows=64, kv_bytes=free // 3, prefix_bytes=free // 8)


@dataclass(slots=True)
class Counters:
    """Since start, except the last two, which are of now."""

    answered: int = 0
    failed: int = 0
    asked_again: int = 0
    batch_sizes: dict[int, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    waiting: int = 0
    live: int = 0


class Generator:
    """Answers requests from any thread; the model is touched by its own thread only."""

    def __init__(self, model: LoadedModel, limits: Limits) -> None:
        self.limits = limits
        self.counters = Counters()
        self.prefixes = PrefixCache(limits.prefix_bytes)
        self.tolerances: dict[str | None, float] = {}
        self._model = model
        self._files: dict[str, AdapterFiles] = {}
        self._arrived: deque[tuple[Ask, Future[Answer]]] = deque()
        self._commands: deque[tuple[Callable[[], None], Future[None], str | None]] = deque()
        self._waiting: dict[str | None, deque[Job]] = {}
        self._again: deque[Job] = deque()
        self._live: dict[str | None, Batch] = {}
        self._alone: Batch | None = None
        self._recent: dict[str | None, deque[Ids]] = {}
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="generator", daemon=True)

    # ---------------------------------------------------------------------------- from any thread

    def start(self) -> None:
        """Measure the tolerance of the base model and begin to answer."""
        self._measure(None)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Answer nothing more. Waiting requests stay unanswered."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether the thread goes on: False after a fault of our own, which its log tells."""
        return self._thread.is_alive()

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(sorted(self._files))

    @property
    def in_flight(self) -> int:
        return len(self._arrived) + self.counters.waiting + self.counters.live

    def submit(self, ask: Ask) -> Future[Answer]:
        """Queue a request. Cancelling the future drops it.

        Raises QueueFull. The future fails with UnknownAdapter, ContextOverflow, or BadInput for messages that the
        model's chat template refuses.
        """
        if self.in_flight >= self.limits.max_queue:
            raise QueueFull(f"{self.limits.max_queue} requests are waiting already; ask again in a second")
        future: Future[Answer] = Future()
        with self._wake:
            self._arrived.append((ask, future))
            self._wake.notify()
        return future

    def load_adapter(self, name: str, files: AdapterFiles) -> Future[None]:
        """The future fails with BadInput where the adapter does not fit, does nothing, or misses its canary."""
        return self._command(lambda: self._load(name, files), None)

    def unload_adapter(self, name: str) -> Future[None]:
        """Waits for the adapter's answers under way. The future fails with UnknownAdapter."""
        return self._command(lambda: self._unload(name), name)

    def _command(self, act: Callable[[], None], unused: str | None) -> Future[None]:
        """Do `act` in the model's thread, once the adapter `unused` is so."""
        future: Future[None] = Future()
        with self._wake:
            self._commands.append((act, future, unused))
            self._wake.notify()
        return future

    # ---------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while not self._stopping:
            with self._wake:
                if not (self._arrived or self._commands or self._busy()):
                    self._wake.wait(IDLE_S)
            self._turn()

    def _busy(self) -> bool:
        return bool(self._live or self._alone or self._again or any(self._waiting.values()))

    def _turn(self) -> None:
        self._do_commands()
        self._take_in()
        for adapter in list(self._waiting):
            self._admit(adapter)
        self._admit_alone()
        for adapter, batch in list(self._live.items()):
            after = self._step(batch, self.tolerances[adapter])
            if after is None:
                del self._live[adapter]
            else:
                self._live[adapter] = after
        if self._alone is not None:
            self._alone = self._step(self._alone, 0.0)
        self._count_now()

    def _step(self, batch: Batch, tolerance: float) -> Batch | None:
        sizes = self.counters.batch_sizes
        sizes[len(batch.live)] = sizes.get(len(batch.live), 0) + 1
        try:
            after, doubtful = step(self._model, batch, tolerance)
        except Exception as error:  # noqa: BLE001  # whatever a model raises, those who asked get it; the others go on
            _fail(batch.live, error)
            return None
        self.counters.asked_again += len(doubtful)
        self._again.extend(doubtful)
        return after

    def _count_now(self) -> None:
        batches = [*self._live.values(), *([self._alone] if self._alone else [])]
        self.counters.live = sum(len(batch.live) for batch in batches)
        self.counters.waiting = sum(map(len, self._waiting.values())) + len(self._again)

    # ---------------------------------------------------------------------------- requests in

    def _take_in(self) -> None:
        while self._arrived:
            ask, future = self._arrived.popleft()
            if future.cancelled():
                continue
            try:
                job = self._make_job(ask, future)
            except Exception as error:  # noqa: BLE001  # the one who asked gets it, whatever a tokenizer raises
                with suppress(InvalidStateError):  # its client hung up
                    future.set_exception(error)
                continue
            self._waiting.setdefault(ask.adapter, deque()).append(job)
            self.counters.waiting += 1
        self._count_now()

    def _make_job(self, ask: Ask, future: Future[Answer]) -> Job:
        if ask.adapter is not None and ask.adapter not in self._files:
            raise UnknownAdapter(
                f"adapter {ask.adapter!r} is not loaded; loaded are: {', '.join(self._files) or 'none'}"
            )
        ids = self._model.encode(ask.messages)
        room = self._model.context - len(ids)
        if room < (ask.max_tokens or 1):
            raise ContextOverflow(
                f"the messages are {len(ids)} tokens and max_tokens is {ask.max_tokens or 1}: together more than the"
                f" model's context of {self._model.context}; shorten the messages or lower max_tokens",
                param="messages" if room < 1 else "max_tokens",
            )
        job = Job(ask, ids, future, ask.max_tokens or min(room, DEFAULT_ANSWER_TOKENS))
        future.add_done_callback(self._count)
        job.restart()
        return job

    def _count(self, done: Future[Answer]) -> None:
        if done.cancelled() or done.exception() is not None:
            self.counters.failed += 1
            return
        answer = done.result()
        self.counters.answered += 1
        self.counters.prompt_tokens += answer.prompt_tokens
        self.counters.completion_tokens += answer.completion_tokens
        self.counters.cached_tokens += answer.cached_tokens

    # ---------------------------------------------------------------------------- batches

    def _admit(self, adapter: str | None) -> None:
        """Let waiting jobs of one adapter join its batch, or begin one."""
        waiting = self._waiting[adapter] = deque(job for job in self._waiting[adapter] if not job.future.cancelled())
        if not waiting:
            del self._waiting[adapter]
            return
        batch = self._live.get(adapter)
        room = self._room(waiting[0], batch)
        few = batch is not None and len(waiting) * 4 < len(batch) and batch.steps_since_join < JOIN_AFTER
        if room < 1 or few:
            return
        recent = self._recent.setdefault(adapter, deque(maxlen=RECENT))
        reach = max(self.prefixes.reach(adapter, waiting[0].ids), longest_common(recent, waiting[0].ids))
        group = choose_group(waiting, room, reach)
        self._waiting[adapter] = deque(job for job in waiting if job not in group)
        self._begin(adapter, group, batch)

    def _room(self, job: Job, batch: Batch | None) -> int:
        row_bytes = (len(job.ids) + job.most_tokens) * self._model.bytes_per_token
        used = sum(live.rows.mask.numel() for live in self._live.values()) * self._model.bytes_per_token
        affordable = int((self.limits.kv_bytes - used) // row_bytes)
        room = min(self.limits.rows - (len(batch) if batch else 0), affordable)
        return room if room > 0 or self._live else 1  # one always goes, else a long one would wait for ever

    def _begin(self, adapter: str | None, group: list[Job], batch: Batch | None) -> None:
        try:
            begun = self._prefilled(adapter, group)
            if batch is not None:
                rows = decoding.join(batch.rows, begun.rows)
                begun = Batch([*batch.jobs, *group], rows, exact=False)
        except Exception as error:  # noqa: BLE001  # those who asked get it; the others go on
            _fail(group, error)
        else:
            self._live[adapter] = begun

    def _prefilled(self, adapter: str | None, group: list[Job]) -> Batch:
        prompts = [job.ids for job in group]
        recent = self._recent[adapter]
        hint = longest_common(recent, prompts[0]) if len(prompts) == 1 else 0
        prefix, held = decoding.shared_prefix(self._model, self.prefixes, adapter, prompts, hint)
        recent.append(prompts[0])
        for index, job in enumerate(group):
            job.cached_tokens = len(prefix.ids) if index else held
        rows = decoding.prefill(self._model, adapter, prompts, prefix)
        return Batch([*group], rows, exact=len(group) == 1 and len(prefix.ids) == 0)

    def _admit_alone(self) -> None:
        while self._again and self._alone is None:
            job = self._again.popleft()
            if job.future.cancelled():
                continue
            job.alone, job.cached_tokens = True, 0
            job.restart()
            try:
                rows = decoding.prefill(self._model, job.ask.adapter, [job.ids])
            except Exception as error:  # noqa: BLE001  # the one who asked gets it; the others go on
                _fail([job], error)
            else:
                self._alone = Batch([job], rows, exact=True)

    # ---------------------------------------------------------------------------- adapters

    def _do_commands(self) -> None:
        for _ in range(len(self._commands)):
            act, future, unused = self._commands.popleft()
            if unused is not None and self._in_use(unused):
                self._commands.append((act, future, unused))
                continue
            try:
                act()
            except Exception as error:  # noqa: BLE001  # the one who gave the command gets it, whatever it is
                _LOG.warning("refused: %s", error)
                with suppress(InvalidStateError):  # its client hung up
                    future.set_exception(error)
            else:
                with suppress(InvalidStateError):
                    future.set_result(None)

    def _in_use(self, adapter: str) -> bool:
        alone = [*self._again, *(self._alone.live if self._alone else [])]
        return (
            bool(self._waiting.get(adapter)) or adapter in self._live or adapter in {job.ask.adapter for job in alone}
        )

    def _load(self, name: str, files: AdapterFiles) -> None:
        if name in self._files:
            if self._files[name] != files:
                raise BadInput(
                    f"an adapter {name!r} is loaded already, from {self._files[name].folder}", param="lora_name"
                )
            return
        started = time.monotonic()
        self._model.add_adapter(name, files)
        try:
            check_canary(self._model, name, files)
            self._measure(name)
        except Exception:
            self._model.remove_adapter(name)
            raise
        self._files[name] = files
        _LOG.info("adapter %s loaded in %.2f s", name, time.monotonic() - started)

    def _unload(self, name: str) -> None:
        if self._files.pop(name, None) is None:
            raise UnknownAdapter(f"adapter {name!r} is not loaded")
        self._model.remove_adapter(name)
        self.prefixes.drop_adapter(name)
        self._recent.pop(name, None)
        self.tolerances.pop(name, None)

    def _measure(self, adapter: str | None) -> None:
        floor = 1e-4 if self._model.dtype == torch.float32 else 1e-2
        self.tolerances[adapter] = max(floor, SAFETY * decoding.measure_noise(self._model, adapter))


def _fail(jobs: list[Job], error: Exception) -> None:
    _LOG.error("%d requests failed", len(jobs), exc_info=error)
    for job in jobs:
        job.fail(error)
