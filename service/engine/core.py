"""The generator: one thread that owns the model and answers what is waiting, in batches.

A turn of its loop: do one piece of what was asked of the model itself (load an adapter), take in new requests, and let
the schedule compute one token for each row.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count

import torch

from prompts.chat import encode_answer
from prompts.errors import BadInput
from prompts.parameters import DEFAULT_ANSWER_TOKENS
from service.engine.adapters import AdapterFiles
from service.engine.asks import Answer, Ask, ContextOverflow, GuideSpec, Listener, QueueFull, UnknownAdapter
from service.engine.cache import PrefixCache
from service.engine.canary import check_base, check_canary, not_finite
from service.engine.counters import Counters
from service.engine.guided import ChoiceGuide, Guide, Guides, Vocabulary
from service.engine.jobs import Request
from service.engine.limits import Limits
from service.engine.model import LoadedModel
from service.engine.schedule import Schedule
from service.engine.sharing import Memory
from service.engine.tolerances import Noises

_LOG = logging.getLogger(__name__)
SAFETY = 4.0  # a flip needs two logits off by half their distance each: twice the noise; twice that for the unmeasured
IDLE_S = 0.5
_HELD_CHOICES = 64
_TAKING_IN_S = 0.02  # a turn: those who are being answered wait no longer for texts of others to become tokens …
_TAKING_IN_ALONE_S = 0.5  # … and cases of runs so long: what is taken in together is computed together
_Arrival = tuple[int, int, float, Ask, Future[Answer], Listener | None]  # by priority, then in turn
_Steps = Callable[[], Iterator[None]]


class Generator:
    """Answers requests from any thread; the model is touched by its own thread only."""

    def __init__(self, model: LoadedModel, limits: Limits, noises: Noises | None = None) -> None:
        self.limits = self._whole_limits = limits
        self.counters = Counters()
        self.tolerances: dict[str | None, float] = {}
        self._model = model
        self._noises = noises or Noises(model)
        self._schedule = Schedule(model, limits, self.counters, self.tolerances)
        self._files: dict[str, AdapterFiles] = {}
        self._guides: Guides | None = None
        self._vocabulary: Vocabulary | None = None
        self._choices: OrderedDict[tuple[str, ...], list[list[int]]] = OrderedDict()
        self._arrivals = count(1)
        self._arrived: list[_Arrival] = []  # a heap
        self._commands: deque[tuple[_Steps, Future[None], str | None]] = deque()
        self._doing: tuple[Iterator[None], Future[None]] | None = None
        self._held_answers = 0
        self._held_bytes = 0
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="generator", daemon=True)

    # ---------------------------------------------------------------------------- from any thread

    def start(self) -> None:
        """Measure the tolerance of the base model and begin to answer. Raises CannotRun where it gives no numbers."""
        check_base(self._model)
        self._measure(None, None)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Answer nothing more. Waiting requests stay unanswered."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.ident is not None:
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
        """Answers that were asked for and are not there yet."""
        return self._held_answers

    @property
    def prefixes(self) -> PrefixCache:
        """What is held of the beginnings of prompts."""
        return self._schedule.prefixes

    def submit(self, ask: Ask, listener: Listener | None = None) -> Future[Answer]:
        """Queue a request. Cancelling the future drops it. `listener` is told the answer as it comes.

        Raises QueueFull. The future fails with UnknownAdapter, ContextOverflow, DeadlinePassed, OutOfMemory, or
        BadInput for messages that the model's chat template refuses and for what cannot guide an answer.
        """
        future: Future[Answer] = Future()
        with self._wake:
            self._refuse_if_full(ask)
            self._held_answers += ask.n
            self._held_bytes += ask.size_bytes
            heappush(self._arrived, (ask.priority, next(self._arrivals), time.monotonic(), ask, future, listener))
            self._wake.notify()
        future.add_done_callback(lambda _: self._let_go(ask))
        return future

    def prepare(self) -> Future[Guides]:
        """What compiles guides, which takes too long for the model's thread: `Guides.compile` may be called in any."""
        ready: Future[Guides] = Future()
        if self._guides is not None:  # no turn of the model's thread for it: requests would come in one by one
            ready.set_result(self._guides)
            return ready

        def steps() -> Iterator[None]:
            try:
                ready.set_result(self._ready_guides())
            except Exception as error:
                ready.set_exception(error)
                raise
            yield from ()

        self._command(steps, None)
        return ready

    def load_adapter(self, name: str, files: AdapterFiles) -> Future[None]:
        """The future fails with BadInput where the adapter does not fit, does nothing, or misses its canary."""
        return self._command(lambda: self._load(name, files), None)

    def unload_adapter(self, name: str) -> Future[None]:
        """Waits for the adapter's answers under way. The future fails with UnknownAdapter."""
        return self._command(lambda: self._unload(name), name)

    def memory(self) -> Memory:
        """See `sharing.Holder`. As the last turn left it."""
        limits, schedule = self.limits, self._schedule
        prefixes = schedule.prefixes
        return Memory(
            str(self._model.device),
            self._model.weights_bytes,
            schedule.answers_bytes,
            limits.kv_bytes,
            prefixes.held_bytes,
            prefixes.max_bytes,
        )

    async def limit(self, *, shared: bool) -> None:
        """See `sharing.Holder`."""

        def steps() -> Iterator[None]:
            used = self._schedule.answers_bytes
            self.limits = self._whole_limits.shared(used) if shared else self._whole_limits
            self._schedule.limit(self.limits)
            yield

        await asyncio.wrap_future(self._command(steps, None))

    def _command(self, steps: _Steps, unused: str | None) -> Future[None]:
        """Do `steps` in the model's thread, one a turn, once the adapter `unused` is so."""
        future: Future[None] = Future()
        with self._wake:
            self._commands.append((steps, future, unused))
            self._wake.notify()
        return future

    def _refuse_if_full(self, ask: Ask) -> None:
        share = 1.0 if ask.priority <= 0 else 0.75
        answers, size = self._held_answers + ask.n, self._held_bytes + ask.size_bytes
        if answers <= share * self.limits.max_queue and size <= share * self.limits.queue_bytes:
            return
        self.counters.refused += 1
        again_s = self.counters.retry_after_s(self._held_answers)
        raise QueueFull(
            f"{self._held_answers} answers with {self._held_bytes:,} bytes of messages are waiting already; ask again in"
            f" {again_s} s",
            again_s,
        )

    def _let_go(self, ask: Ask) -> None:
        with self._wake:
            self._held_answers -= ask.n
            self._held_bytes -= ask.size_bytes
            self.counters.end()

    # ---------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while not self._stopping:
            with self._wake:
                if not (self._arrived or self._commands or self._doing or self._schedule.is_busy):
                    self._wake.wait(IDLE_S)
            self._turn()

    def _turn(self) -> None:
        self._do_commands()
        self._take_in()
        self._schedule.turn()

    # ---------------------------------------------------------------------------- requests in

    def _take_in(self) -> None:
        began, schedule = time.monotonic(), self._schedule
        while self._arrived and (not schedule.is_busy or time.monotonic() - began < self._taking_in_s()):
            with self._wake:
                _, arrival, born, ask, future, listener = heappop(self._arrived)
            if future.cancelled():
                self.counters.cancelled += 1
                continue
            try:
                request = self._make_request(arrival, born, ask, future, listener)
                jobs = request.jobs()
            except Exception as error:  # noqa: BLE001  # the one who asked gets it, whatever a tokenizer raises
                self.counters.failed += 1
                with suppress(InvalidStateError):  # its client hung up
                    future.set_exception(error)
                continue
            future.add_done_callback(lambda _, one=request: self._count(one))  # type: ignore[misc]
            for job in jobs:
                self._schedule.waiting.add(job)

    def _taking_in_s(self) -> float:
        return _TAKING_IN_S if self._schedule.is_watched else _TAKING_IN_ALONE_S

    def _make_request(
        self, arrival: int, born: float, ask: Ask, future: Future[Answer], listener: Listener | None
    ) -> Request:
        if ask.adapter is not None and ask.adapter not in self._files:
            raise UnknownAdapter(
                f"adapter {ask.adapter!r} is not loaded; loaded are: {', '.join(self._files) or 'none'}"
            )
        if any(not 0 <= token < self._model.vocabulary for token, _ in ask.logit_bias):
            raise BadInput(f"logit_bias names a token beyond 0 to {self._model.vocabulary - 1}", param="logit_bias")
        ids = self._model.encode(ask.messages)
        room = self._model.context - len(ids)
        if room < (ask.max_tokens or 1):
            asked = f"max_tokens is {ask.max_tokens}" if ask.max_tokens else "an answer takes at least one"
            fix = "shorten the messages" if room < 1 else "shorten the messages or lower max_tokens"
            raise ContextOverflow(
                f"the messages are {len(ids)} tokens and {asked}: together more than the model's context of"
                f" {self._model.context}; {fix}",
                param="messages" if room < 1 else "max_tokens",
            )
        return Request(
            ask,
            ids,
            future,
            most_tokens=ask.max_tokens or min(room, DEFAULT_ANSWER_TOKENS),
            seed=secrets.randbits(63) if ask.seed is None else ask.seed,
            arrival=arrival,
            born=born,
            words=self,
            make_guide=lambda: self._guide(ask.guide),
            listener=listener,
        )

    def _count(self, request: Request) -> None:
        counters, done = self.counters, request.future
        if done.cancelled():
            counters.cancelled += 1
            return
        if done.exception() is not None:
            counters.failed += 1
            return
        answer = done.result()
        counters.answered += 1
        counters.with_asked_again += answer.asked_again
        counters.prompt_tokens += answer.prompt_tokens
        counters.completion_tokens += answer.completion_tokens
        counters.cached_tokens += answer.cached_tokens
        counters.waited_s += (request.begun_at or request.born) - request.born
        counters.first_token_s += (request.first_token_at or request.born) - request.born
        if request.ask.guide is not None:
            kind = request.ask.guide.kind
            counters.guided[kind] = counters.guided.get(kind, 0) + 1

    # ---------------------------------------------------------------------------- what requests need of the model

    def decode(self, ids: Sequence[int]) -> str:
        """See `jobs.Words`."""
        return self._model.decode(ids)

    def bytes_of(self, token: int) -> bytes:
        """See `jobs.Words`."""
        self._ready_guides()
        return self._vocabulary.text(token) if self._vocabulary is not None else b""

    def _ready_guides(self) -> Guides:
        if self._guides is None:
            model = self._model
            self._vocabulary = Vocabulary(model.tokenizer, model.vocabulary, sorted(model.stop_ids))
            self._guides = Guides(self._vocabulary)
        return self._guides

    def _guide(self, spec: GuideSpec | None) -> Guide | None:
        if spec is None:
            return None
        return ChoiceGuide(self._tokens_of(spec.choices)) if spec.kind == "choice" else self._ready_guides().guide(spec)

    def _tokens_of(self, choices: tuple[str, ...]) -> list[list[int]]:
        if choices not in self._choices:
            self._choices[choices] = [encode_answer(self._model.tokenizer, choice) for choice in choices]
            while len(self._choices) > _HELD_CHOICES:
                self._choices.popitem(last=False)
        self._choices.move_to_end(choices)
        return self._choices[choices]

    # ---------------------------------------------------------------------------- adapters

    def _do_commands(self) -> None:
        """One piece of the first command that can go on."""
        if self._doing is None:
            for _ in range(len(self._commands)):
                steps, future, unused = self._commands.popleft()
                if unused is None or not self._uses(unused):
                    self._doing = steps(), future
                    break
                self._commands.append((steps, future, unused))
        if self._doing is None:
            return
        steps_left, future = self._doing
        try:
            next(steps_left)
        except StopIteration:
            self._doing = None
            with suppress(InvalidStateError):  # its client hung up
                future.set_result(None)
        except Exception as error:  # noqa: BLE001  # the one who gave the command gets it, whatever it is
            self._doing = None
            _LOG.warning("refused: %s", error)
            with suppress(InvalidStateError):
                future.set_exception(error)

    def _uses(self, adapter: str) -> bool:
        """Whether anything that was asked for needs `adapter`, also what was not taken in yet."""
        with self._wake:
            has_come = any(ask.adapter == adapter for _, _, _, ask, _, _ in self._arrived)
        return has_come or self._schedule.uses(adapter)

    def _load(self, name: str, files: AdapterFiles) -> Iterator[None]:
        if name in self._files:
            if self._files[name] != files:
                raise BadInput(
                    f"an adapter {name!r} is loaded already, from {self._files[name].folder}", param="lora_name"
                )
            return
        started = time.monotonic()
        self._model.add_adapter(name, files)
        try:
            yield
            check_canary(self._model, name, files)
            yield
            self._measure(name, files)
        except Exception:
            self._model.remove_adapter(name)
            raise
        self._files[name] = files
        _LOG.info("adapter %s loaded in %.2f s", name, time.monotonic() - started)

    def _unload(self, name: str) -> Iterator[None]:
        if self._files.pop(name, None) is None:
            raise UnknownAdapter(f"adapter {name!r} is not loaded")
        self._model.remove_adapter(name)
        self._schedule.forget(name)
        self.tolerances.pop(name, None)
        yield

    def _measure(self, adapter: str | None, files: AdapterFiles | None) -> None:
        noise = self._noises.of(adapter, files)
        if not math.isfinite(noise):
            raise not_finite(self._model, files)
        floor = 1e-4 if self._model.dtype == torch.float32 else 1e-2
        self.tolerances[adapter] = max(floor, SAFETY * noise)
