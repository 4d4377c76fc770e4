"""One step of a rollout as it is watched: what was counted so far, and what that says now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from service.rollouts import moves
from service.rollouts.counting import StepCount
from service.routing import Rollout
from service.snapshot import Routed
from service.store import rollouts, routes
from service.store.database import Database
from service.store.session import Session
from suites.rollouts import StepDecision, StepInput, decide_step

BATCH = 5_000
MOST_BATCHES = 20  # of one look: the rows of a step that is read anew take several
COMPLAINTS_S = 120.0  # feedback is read again for as long: its request may reach the log after it


@dataclass(frozen=True, slots=True)
class Look:
    """What a step looks like at one moment; `is_whole` is False while there are rows that were not read yet."""

    given: StepInput
    decision: StepDecision
    is_whole: bool

    @property
    def is_split_found_broken(self) -> bool:
        """Whether this is the look at which the sample ratio was found broken, in a rollout that nobody holds."""
        return self.decision.is_split_broken and not self.given.is_split_broken and self.given.paused is None

    @property
    def content(self) -> dict[str, Any]:
        """As evidence keeps it."""
        given, decision = self.given.model_dump(mode="json"), self.decision.model_dump(mode="json")
        return {"about": "step", "given": given, "decision": decision}


class Step:
    """Reads one revision's outcomes as they come. Made anew it reads them all again, and comes to the same counts."""

    def __init__(self, database: Database, prompt: str, revision: int, rollout: Rollout) -> None:
        self.prompt = prompt
        self.revision = revision
        self.rollout = rollout
        self.count = StepCount(str(rollout.candidate), str(rollout.incumbent), rollout.rules.latency_budget_ms)
        self._database = database
        self._began = self._complaints_since = began_at(database, prompt, revision)
        self._is_split_broken = moves.find(database, prompt, revision, "pause") is not None

    def look(self, now: datetime) -> Look:
        """Read what is new, and judge."""
        with self._database.read() as session:
            is_whole = any(self._read(session) for _ in range(MOST_BATCHES))
            since = self._complaints_since.isoformat(timespec="microseconds")
            metrics = self.rollout.rules.feedback_metrics
            self.count.complain(rollouts.complaints(session, self.prompt, self.revision, since, metrics))
        if is_whole:
            self._complaints_since = max(self._began, now - timedelta(seconds=COMPLAINTS_S))
        given = self._given(now)
        decision = decide_step(given)
        self._is_split_broken = decision.is_split_broken
        return Look(given, decision, is_whole)

    def _read(self, session: Session) -> bool:
        """Count the next rows; returns whether there were no more."""
        rows = rollouts.outcomes(session, self.prompt, self.revision, self.count.seq, BATCH)
        self.count.add(rows)
        return len(rows) < BATCH

    def _given(self, now: datetime) -> StepInput:
        candidate, incumbent = self.count.arms
        new, old = self.count.settled(now.timestamp())
        split = self.count.settled(now.timestamp(), self.rollout.rules.min_step_s)
        last = max(self._began, datetime.fromisoformat(self.count.last_at)) if self.count.last_at else self._began
        return StepInput(
            candidate=str(self.rollout.candidate),
            incumbent=str(self.rollout.incumbent),
            step=self.rollout.step,
            steps=self.rollout.steps,
            share=self.rollout.steps[self.rollout.step],
            rules=self.rollout.rules,
            candidate_units=candidate,
            incumbent_units=incumbent,
            candidate_settled=new,
            incumbent_settled=old,
            split=(split[0].units, split[1].units),
            bad_blocks=self.count.bad_blocks,
            seconds=_seconds(now, self._began),
            silent_s=_seconds(now, last),
            paused=self.rollout.paused,
            is_split_broken=self._is_split_broken,
        )


def watched(routed: Routed) -> Rollout | None:
    """The rollout of a route that evidence may move: one variant takes another's traffic, and has not all of it yet."""
    rollout = routed.state.rollout
    return None if rollout is None or rollout.incumbent is None or rollout.is_at_last_step else rollout


def began_at(database: Database, prompt: str, revision: int) -> datetime:
    """When a revision was written. Raises LookupError where there is none, which no caller expects."""
    with database.read() as session:
        record = routes.revision(session, prompt, revision)
    if record is None:
        raise LookupError(f"the route of {prompt} has no revision {revision}")
    return datetime.fromisoformat(record["at"])


def _seconds(now: datetime, then: datetime) -> float:
    """Other replicas' clocks may be ahead of this one's: never less than nothing."""
    return round(max(0.0, (now - then).total_seconds()), 3)
