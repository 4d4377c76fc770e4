"""What is computed when: who of those that wait joins the batch, one token a step for all, and what is asked again.

One batch holds rows of the base model and of all adapters. What a request is answered that has to be the same each time
is what it is answered alone, without batch and shared prefix. Together, matrix products add in another order and logits
differ in the last digits. The largest such difference is measured when a model or an adapter is loaded; a row whose best
two tokens come closer than that, times a safety factor, is asked again alone.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch

from service.engine import decoding
from service.engine.asks import DeadlinePassed, OutOfMemory
from service.engine.batch import Batch, Tolerances, begin, joined, step
from service.engine.cache import NO_PREFIX, Ids, PrefixCache
from service.engine.choosing import GROUP_TOKENS, RECENT, choose_group, longest_common, own_tokens
from service.engine.counters import Counters
from service.engine.jobs import Job
from service.engine.limits import Limits
from service.engine.model import LoadedModel
from service.engine.waiting import Waiting

_LOG = logging.getLogger(__name__)
JOIN_AFTER = 8  # steps; a batch takes in fewer newcomers than a quarter of its size only so often …
JOIN_SOON = 2  # … and those for whom somebody waits
SMALL_GROUP_TOKENS = 512  # computed at once while answers are under way for which somebody waits
GROW_AFTER = 256  # steps without want of memory, twice as many after each: what is begun anew has to come to an end
_GROW_LATEST = 1 << 14
SWEEP_S = 0.05  # between two looks at all that wait: there may be thousands


class Schedule:
    """Used by the model's thread only."""

    def __init__(self, model: LoadedModel, limits: Limits, counters: Counters, tolerances: Tolerances) -> None:
        self.prefixes = PrefixCache(limits.prefix_bytes)
        self.waiting: Waiting[Job] = Waiting()
        self._model = model
        self._limits = limits
        self._counters = counters
        self._tolerances = tolerances
        self._again: list[Job] = []
        self._live: Batch | None = None
        self._begun: list[Batch] = []  # in this turn; they join the live one at its end
        self._alone: Batch | None = None
        self._recent: dict[str | None, deque[Ids]] = {}
        self._ceiling = limits.rows + limits.reserve
        self._steps_well = 0
        self._grow_after = GROW_AFTER
        self._swept_at = 0.0

    # ---------------------------------------------------------------------------- for the generator

    @property
    def is_busy(self) -> bool:
        return bool(self._live or self._alone or self._again or len(self.waiting))

    @property
    def is_watched(self) -> bool:
        """Whether somebody waits for an answer, under way or to come: of runs nobody does."""
        return self._answers_somebody or any(priority <= 0 for priority in self.waiting.by_priority())

    @property
    def _answers_somebody(self) -> bool:
        return self._live is not None and any(job.priority <= 0 for job in self._live.live)

    def turn(self) -> None:
        """Drop who is gone, let others in with their first token, and give every row one more."""
        self._drop_gone()
        self._admit()
        self._admit_alone()
        self._live = self._stepped(self._live) if self._live else None
        self._alone = self._stepped(self._alone) if self._alone else None
        self._count()

    @property
    def answers_bytes(self) -> int:
        """Of keys and values that are allotted to answers under way."""
        rows: list[int] = [batch.rows.held_tokens for batch in (self._live, self._alone) if batch is not None]
        return sum(rows) * self._model.bytes_per_token

    def limit(self, limits: Limits) -> None:
        """Keep to `limits` from now on, and give back what is held beyond them."""
        self._limits = limits
        self.prefixes.limit(limits.prefix_bytes)
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    def uses(self, adapter: str) -> bool:
        """Whether anything that waits or is computed needs `adapter`."""
        return self.waiting.of(adapter) or any(job.adapter == adapter for job in (*self._again, *self._computed()))

    def forget(self, adapter: str) -> None:
        """Drop what is held of an adapter that is not there any more."""
        self.prefixes.drop_adapter(adapter)
        self._recent.pop(adapter, None)

    # ---------------------------------------------------------------------------- who is gone

    def _computed(self) -> list[Job]:
        return [job for batch in (self._live, self._alone) if batch is not None for job in batch.live]

    def _drop_gone(self) -> None:
        now = time.monotonic()
        if now - self._swept_at < SWEEP_S:
            return
        self._swept_at = now
        for job in (*self.waiting, *self._again, *self._computed()):
            if job.request.is_late(now) and not job.request.is_over:
                self._counters.late += 1
                job.request.fail(DeadlinePassed(f"no whole answer within {job.ask.timeout_s:g} s"))
        self.waiting.drop(lambda job: job.request.is_over)
        self._again = [job for job in self._again if not job.request.is_over]

    def _count(self) -> None:
        self._counters.live = len(self._computed())
        self._counters.ceiling = self._ceiling
        self._counters.waiting = self.waiting.by_priority()

    # ---------------------------------------------------------------------------- who joins

    def _admit(self) -> None:
        budget = SMALL_GROUP_TOKENS if self._answers_somebody else GROUP_TOKENS
        while budget > 0 and (head := self.waiting.next(lambda job: self._room(job) > 0)) is not None:
            if (not self._begun and self._is_too_few(head)) or not self._fits(head):
                break
            group = self._group(head, budget)
            self.waiting.take(group)
            budget -= own_tokens(group, self.prefixes.reach(head.adapter, head.ids))
            self._begin(group)
        self._join()

    @property
    def _together(self) -> list[Batch]:
        """The batch, and what joins it in this turn."""
        return [*([self._live] if self._live else []), *self._begun]

    def _rows(self) -> int:
        return sum(len(batch.live) for batch in self._together)

    def _room(self, job: Job) -> int:
        """Rows that are left for requests of the job's priority."""
        most = self._limits.rows + (self._limits.reserve if job.priority <= 0 else 0)
        return min(most, self._ceiling) - self._rows()

    def _is_too_few(self, head: Job) -> bool:
        """Whether to wait for more: each join moves what the others have, which costs about a step."""
        if self._live is None or len(self.waiting) * 4 >= len(self._live):
            return False
        return self._live.steps_since_join < (JOIN_SOON if head.priority <= 0 else JOIN_AFTER)

    def _fits(self, job: Job) -> bool:
        return not self._together or self._affordable(job) > 0  # one always goes, else a long one would wait for ever

    def _affordable(self, job: Job) -> int:
        """So many rows like `job` fit, if all rows become as long as they may."""
        used: int = sum(max(batch.rows.held_tokens, sum(one.cost for one in batch.live)) for batch in self._together)
        return (self._limits.kv_bytes // self._model.bytes_per_token - used) // job.cost

    def _group(self, head: Job, budget: int) -> list[Job]:
        recent = self._recent.setdefault(head.adapter, deque(maxlen=RECENT))
        reach = max(self.prefixes.reach(head.adapter, head.ids), longest_common(recent, head.ids))
        room = max(1, min(self._room(head), self._affordable(head)))
        return choose_group(self.waiting.company(head), room, reach, budget)

    def _begin(self, group: list[Job]) -> None:
        """Compute the prompts of `group` and give each its first token; where memory runs out, half of them, and so on."""
        try:
            rows, exact = self._prefilled(group)
        except Exception as error:  # noqa: BLE001  # those who asked get it; the others go on
            if is_out_of_memory(error):
                self._begin_fewer(group)
            else:
                _fail(group, error)
            return
        begun = self._given(group, lambda: begin(self._model, group, rows, self._tolerances, exact=exact))
        if begun is not None:
            self._begun.append(begun)

    def _begin_fewer(self, group: list[Job]) -> None:
        others, half = self._rows(), len(group) // 2
        goes_on = half or others or self._has_more_room(group[0])
        self._make_room(others + half)
        self._put_back(group[half:] if goes_on else [])
        if half:
            self._begin(group[:half])
        elif not goes_on:
            _fail(group, _too_large())

    def _has_more_room(self, job: Job) -> bool:
        """Whether one that nothing is computed beside has more room when the prefixes are dropped, which is so but once."""
        had_room, job.had_room = job.had_room, True
        return not had_room and self.prefixes.held_bytes > 0

    def _join(self) -> None:
        """Let those join that began in this turn, all at once: it moves what the others have."""
        together, self._begun = self._together, []
        if len(together) < 2:
            self._live = together[0] if together else None
            return
        first, *others = together
        newcomers = [job for batch in others for job in batch.live]
        self._live = first
        try:
            self._live = joined(together)
        except Exception as error:  # noqa: BLE001  # those who asked get it; the others go on
            if not is_out_of_memory(error):
                _fail(newcomers, error)
                return
            self._make_room(len(first.live) + len(newcomers) // 2)
            self._put_back(newcomers)

    def _put_back(self, jobs: Sequence[Job]) -> None:
        """They begin anew, before all others."""
        for job in reversed(jobs):
            job.restart()
            self.waiting.add(job, first=True)

    def _prefilled(self, group: Sequence[Job]) -> tuple[Any, bool]:
        """The rows of `group`, and whether they are computed as one is that is asked alone.

        Prompts that are the same, of the answers to one request, are computed once.
        """
        adapter, recent = group[0].adapter, self._recent[group[0].adapter]
        places: dict[bytes, int] = {}
        rows_of = [places.setdefault(job.ids.tobytes(), len(places)) for job in group]
        prompts = [group[rows_of.index(row)].ids for row in range(len(places))]
        hint = longest_common(recent, prompts[0]) if len(prompts) == 1 else 0
        prefix, held = NO_PREFIX, 0
        if not any(job.had_room for job in group):  # of which a prefix would take some again
            prefix, held = decoding.shared_prefix(self._model, self.prefixes, adapter, prompts, hint)
        recent.append(prompts[0])
        for index, job in enumerate(group):
            job.joins(len(prefix.ids) if index else held)
        rows = decoding.prefill(self._model, adapter, prompts, prefix)
        if len(prompts) < len(group):
            rows = decoding.keep(rows, rows_of)
        return rows, len(group) == 1 and len(prefix.ids) == 0

    def _admit_alone(self) -> None:
        if self._alone is not None or not self._again:
            return
        job = min(self._again, key=lambda one: (one.priority, one.arrival))
        self._again.remove(job)
        job.alone = True
        job.restart()
        job.joins(0)
        try:
            rows = decoding.prefill(self._model, job.adapter, [job.ids])
        except Exception as error:  # noqa: BLE001  # the one who asked gets it; the others go on
            if is_out_of_memory(error) and (self._live is not None or self._has_more_room(job)):
                self._make_room(len(self._live.live) if self._live else 0)
                self._again.append(job)
            else:
                _fail([job], _too_large() if is_out_of_memory(error) else error)
        else:
            self._alone = self._given([job], lambda: begin(self._model, [job], rows, self._tolerances, exact=True))

    # ---------------------------------------------------------------------------- a step

    def _stepped(self, batch: Batch) -> Batch | None:
        return self._given(batch.live, lambda: step(self._model, batch, self._tolerances))

    def _given(self, live: Sequence[Job], give: Callable[[], tuple[Batch | None, list[Job]]]) -> Batch | None:
        """What goes on of `live` once each was given a token. See `batch.begin` and `step`."""
        sizes = self._counters.batch_sizes
        sizes[len(live)] = sizes.get(len(live), 0) + 1
        try:
            after, doubtful = give()
        except Exception as error:  # noqa: BLE001  # whatever a model raises, those who asked get it; the others go on
            if is_out_of_memory(error):
                self._give_fewer(live)
            else:
                _fail(live, error)
            return None
        self._counters.asked_again += len(doubtful)
        self._again.extend(doubtful)
        self._grow()
        return after

    def _give_fewer(self, live: Sequence[Job]) -> None:
        """Memory ran out, and the rows are lost: half as many are begun anew, the others after them. A row that is asked
        again alone waits for those beside it, which go on."""
        computed = [batch for batch in (*self._together, self._alone) if batch is not None]
        beside = [job for batch in computed for job in batch.live if job not in live]
        others = sum(not job.alone for job in beside)
        goes_on = len(live) > 1 or beside or self._has_more_room(live[0])
        self._make_room(others if live[0].alone else others + len(live) // 2)
        if not goes_on:
            _fail(live, OutOfMemory("this answer takes more memory than there is: lower max_tokens"))
        going = [job for job in live if not job.is_over]
        self._again.extend(job for job in going if job.alone)
        self._put_back([job for job in going if not job.alone])

    def _make_room(self, rows: int) -> None:
        self._counters.halvings += 1
        self._ceiling, self._steps_well = max(1, rows), 0
        self._grow_after = min(2 * self._grow_after, _GROW_LATEST)
        for adapter in (None, *self._model.adapters):
            self.prefixes.drop_adapter(adapter)
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        _LOG.warning("out of memory: at most %d requests are computed together for now", self._ceiling)

    def _grow(self) -> None:
        self._steps_well += 1
        if self._steps_well % self._grow_after == 0:
            self._ceiling = min(2 * self._ceiling, self._limits.rows + self._limits.reserve)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a model raised `error` because memory ran out: on a GPU, or in torch's allocator of the CPU."""
    said = str(error).lower()
    is_said = "can't allocate memory" in said or "not enough memory" in said
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (isinstance(error, RuntimeError) and is_said)


def _too_large() -> OutOfMemory:
    return OutOfMemory("this request takes more memory than there is: shorten it or lower max_tokens")


def _fail(jobs: Sequence[Job], error: Exception) -> None:
    _LOG.error("%d requests failed", len(jobs), exc_info=error)
    for job in jobs:
        job.request.fail(error)
