"""Jobs being answered together: which tokens each has so far, and when it is done."""

from __future__ import annotations

import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from service.engine import decoding
from service.engine.asks import Answer, Ask
from service.engine.cache import Ids
from service.engine.decoding import Rows
from service.engine.model import LoadedModel
from service.engine.sampling import is_greedy, make_generator, next_tokens

DROP_SHARE = 4  # rows that are done go once they are a quarter: to move the others costs about a step


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way. `alone` marks a job that is asked again without company."""

    ask: Ask
    ids: Ids
    future: Future[Answer]
    most_tokens: int
    cached_tokens: int = 0
    alone: bool = False
    born: float = field(default_factory=time.monotonic)
    generator: torch.Generator | None = None
    tokens: list[int] = field(default_factory=list)

    def restart(self) -> None:
        self.tokens = []
        self.generator = make_generator(self.ask)

    def fail(self, error: Exception) -> None:
        with suppress(InvalidStateError):  # its client hung up, or it was answered before
            self.future.set_exception(error)

    def finish(self, reason: str, text: str) -> None:
        answer = Answer(text, reason, len(self.ids), len(self.tokens), self.cached_tokens, self.alone)
        with suppress(InvalidStateError):  # its client hung up in this very moment
            self.future.set_result(answer)


@dataclass(slots=True)
class Batch:
    """Jobs and their rows, in the same order; None is a row whose job is done.

    `exact` says that the one job is computed as it is when asked alone.
    """

    jobs: list[Job | None]
    rows: Rows
    exact: bool
    steps_since_join: int = 0

    def __len__(self) -> int:
        return len(self.jobs)

    @property
    def live(self) -> list[Job]:
        return [job for job in self.jobs if job is not None]


def step(model: LoadedModel, batch: Batch, tolerance: float) -> tuple[Batch | None, list[Job]]:
    """Give each job its next token; gives what goes on, and the jobs that were too close to call.

    A greedy job whose best two logits lie within `tolerance` might be answered otherwise when asked alone, so it has
    to be asked alone: in a batch matrix products add their terms in another order.
    """
    tokens, leads = next_tokens(batch.rows.logits, [(job.ask, job.generator) if job else None for job in batch.jobs])
    jobs: list[Job | None] = []
    doubtful = []
    for job, token, lead in zip(batch.jobs, tokens, leads, strict=True):
        going = None
        if job is None or job.future.cancelled():
            pass
        elif not batch.exact and is_greedy(job.ask) and lead < tolerance:
            doubtful.append(job)
        elif not _is_finished(model, job, token):
            going = job
        jobs.append(going)
    return _after(model, Batch(jobs, batch.rows, batch.exact, batch.steps_since_join + 1), tokens), doubtful


def _after(model: LoadedModel, batch: Batch, tokens: list[int]) -> Batch | None:
    going = [index for index, job in enumerate(batch.jobs) if job is not None]
    if not going:
        return None
    if (len(batch) - len(going)) * DROP_SHARE >= len(batch):
        batch = Batch(
            [batch.jobs[index] for index in going],
            decoding.keep(batch.rows, going),
            batch.exact,
            batch.steps_since_join,
        )
        tokens = [tokens[index] for index in going]
    batch.rows = decoding.advance(model, batch.rows, tokens)
    return batch


def _is_finished(model: LoadedModel, job: Job, token: int) -> bool:
    """Add `token` to the job's answer; where that ends it, deliver the answer."""
    job.tokens.append(token)
    if token in model.stop_ids:
        text = model.decode(job.tokens[:-1])
        job.finish("stop", text)
        return True
    text = model.decode(job.tokens) if job.ask.stop or len(job.tokens) >= job.most_tokens else ""
    stops = [text.index(stop) for stop in job.ask.stop if stop in text]
    if stops:
        job.finish("stop", text[: min(stops)])
    elif len(job.tokens) >= job.most_tokens:
        job.finish("length", text)
    return bool(stops) or len(job.tokens) >= job.most_tokens
