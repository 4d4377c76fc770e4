"""What an advice keeps while it goes on, as events of its job: a process that comes after a kill reads them.

Answers of models are not here: they lie in the cache of completions, and those of trainings in the records of their runs.
Both are found again by asking again, for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.store import jobs
from service.tuning.claim import Claim

STEP = "advised"  # the event of a step: its name, what people read, and what is kept


class Notebook:
    """The steps that were done, by name; each is told once."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._kept: dict[str, dict[str, Any] | None] = {data["step"]: data.get("kept") for data in _steps(claim)}

    def once(self, step: str, work: Callable[[], dict[str, Any]], text: str = "") -> dict[str, Any]:
        """What `work` gives as plain data, from before where it was done before."""
        kept = self._kept.get(step)
        if kept is None:
            kept = self._kept[step] = work()
            self._claim.tell(STEP, step=step, text=text, kept=kept)
        return kept

    def tell(self, step: str, text: str) -> None:
        """A line for whoever watches, once."""
        if step not in self._kept:
            self._kept[step] = None
            self._claim.tell(STEP, step=step, text=text)


def _steps(claim: Claim) -> list[dict[str, Any]]:
    with claim.database.read() as session:
        found, after = [], 0
        while batch := jobs.events(session, claim.job_id, after):
            after = batch[-1]["number"]
            found += [event["data"] for event in batch if event["type"] == STEP]
    return found
