"""Jobs being answered together: which tokens each has so far, and when it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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

    `tokens` are what the rows go on with: given to their jobs, and not computed yet. `exact` says that the one job is
    computed as it is when asked alone.
    """

    jobs: list[Job | None]
    rows: Any  # of `forward.Rows`
    exact: bool
    tokens: list[int]
    steps_since_join: int = 0

    def __len__(self) -> int:
        return len(self.jobs)

    @property
    def live(self) -> list[Job]:
        return [job for job in self.jobs if job is not None]


Tolerances = Mapping[str | None, float]  # by adapter


def begin(
    model: LoadedModel, jobs: Sequence[Job], rows: Any, tolerances: Tolerances, *, exact: bool
) -> tuple[Batch | None, list[Job]]:
    """Give each job the first token after `rows`, its computed prompt; gives what goes on, and the jobs that were too
    close to call.

    A job that has to be answered the same each time, and whose best two tokens lie within its tolerance, might be answered
    otherwise when asked alone, so it has to be asked alone: in a batch matrix products add their terms in another order.
    """
    return _picked(model, Batch([*jobs], rows, exact, []), tolerances)


def step(model: LoadedModel, batch: Batch, tolerances: Tolerances) -> tuple[Batch | None, list[Job]]:
    """Compute one token more of each row and give each job the next; gives what `begin` does."""
    for index, job in enumerate(batch.jobs):
        if job is not None and job.request.is_over:
            batch.jobs[index] = None
    going = _without_done(batch)
    if going is None:
        return None, []
    going.rows = decoding.advance(model, going.rows, going.tokens)
    going.steps_since_join += 1
    return _picked(model, going, tolerances)


def joined(batches: Sequence[Batch]) -> Batch:
    """The rows of all in one batch, which moves them."""
    rows = decoding.join([batch.rows for batch in batches])
    jobs = [job for batch in batches for job in batch.jobs]
    return Batch(jobs, rows, exact=False, tokens=[token for batch in batches for token in batch.tokens])


def _picked(model: LoadedModel, batch: Batch, tolerances: Tolerances) -> tuple[Batch | None, list[Job]]:
    borne = [0.0 if job is None or batch.exact else tolerances[job.adapter] for job in batch.jobs]
    picks = next_picks(batch.rows.logits, batch.jobs, borne)
    doubtful = []
    for index, (job, pick, tolerance) in enumerate(zip(batch.jobs, picks, borne, strict=True)):
        if job is None:
            continue
        if not batch.exact and is_repeatable(job.ask) and pick.lead < tolerance:
            doubtful.append(job)
        elif not _is_whole(model, job, pick):
            continue
        batch.jobs[index] = None
    batch.tokens = [pick.token for pick in picks]
    return _without_done(batch), doubtful


def _is_whole(model: LoadedModel, job: Job, pick: Pick) -> bool:
    """Give `pick` to the job; whether it has ended with that, delivered or failed."""
    try:
        if pick.error is not None:
            raise pick.error
        return job.add(pick, model.stop_ids)
    except TurnoutError as error:
        job.request.fail(error)
        return True


def _without_done(batch: Batch) -> Batch | None:
    """The batch without rows whose job is done, once those are enough to be worth it; None without another."""
    going = [index for index, job in enumerate(batch.jobs) if job is not None]
    if not going:
        return None
    if (len(batch) - len(going)) * DROP_SHARE < len(batch):
        return batch
    return replace(
        batch,
        jobs=[batch.jobs[index] for index in going],
        rows=decoding.keep(batch.rows, going),
        tokens=[batch.tokens[index] for index in going],
    )
