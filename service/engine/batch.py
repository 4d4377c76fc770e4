"""Jobs being answered together: which tokens each has so far, and when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prompts.errors import TurnoutError
from service.engine import decoding
from service.engine.jobs import Job
from service.engine.model import LoadedModel
from service.engine.sampling import Pick, is_repeatable, next_picks

DROP_SHARE = 4  # rows that are done go once they are a quarter: to move the others costs about a step


@dataclass(slots=True)
class Batch:
    """Jobs and their rows, in the same order; None is a row whose job is done.

    `exact` says that the one job is computed as it is when asked alone.
    """

    jobs: list[Job | None]
    rows: Any  # of `forward.Rows`
    exact: bool
    steps_since_join: int = 0

    def __len__(self) -> int:
        return len(self.jobs)

    @property
    def live(self) -> list[Job]:
        return [job for job in self.jobs if job is not None]


def step(model: LoadedModel, batch: Batch, tolerances: Sequence[float]) -> tuple[Batch | None, list[Job]]:
    """Give each job its next token; gives what goes on, and the jobs that were too close to call.

    A job that has to be answered the same each time, and whose best two tokens lie within its tolerance, might be answered
    otherwise when asked alone, so it has to be asked alone: in a batch matrix products add their terms in another order.
    """
    for index, job in enumerate(batch.jobs):
        if job is not None and job.request.is_over:
            batch.jobs[index] = None
    picks = next_picks(batch.rows.logits, batch.jobs, tolerances)
    jobs: list[Job | None] = []
    doubtful = []
    for job, pick, tolerance in zip(batch.jobs, picks, tolerances, strict=True):
        going = None
        if job is None:
            pass
        elif not batch.exact and is_repeatable(job.ask) and pick.lead < tolerance:
            doubtful.append(job)
        elif not _is_whole(model, job, pick):
            going = job
        jobs.append(going)
    after = Batch(jobs, batch.rows, batch.exact, batch.steps_since_join + 1)
    return _after(model, after, [pick.token for pick in picks]), doubtful


def _is_whole(model: LoadedModel, job: Job, pick: Pick) -> bool:
    """Give `pick` to the job; whether it has ended with that, delivered or failed."""
    try:
        if pick.error is not None:
            raise pick.error
        return job.add(pick, model.stop_ids)
    except TurnoutError as error:
        job.request.fail(error)
        return True


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
