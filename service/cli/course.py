"""How far a training job is, read from its events alone: the same for whoever watches from the start and who comes later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

PHASES = {
    "validated": "planning",
    "planned": "training",
    "adapter": "dev",
    "look": "held-out cases",
    "decided": "deciding",
    "model": "publishing",
}
Curve = list[tuple[float, float]]


@dataclass
class Course:
    """Curves are those of the run under way, by its steps; `runs` are all that were begun, of `runs_planned`."""

    phase: str = "waiting"
    run: str = ""
    step: int = 0
    of: int = 0
    runs: list[str] = field(default_factory=list)
    runs_planned: int = 1
    losses: Curve = field(default_factory=list)
    dev_losses: Curve = field(default_factory=list)
    dev_scores: Curve = field(default_factory=list)
    tokens_per_s: float = 0.0
    memory_bytes: int = 0
    cases: tuple[int, int] | None = None
    planned_s: float | None = None
    _began_s: float = 0.0  # the time of the first step of this training, and of the newest event
    _newest_s: float = 0.0
    _folds: int = 0

    def add(self, event: Mapping[str, Any]) -> None:
        """Take in one event of the job."""
        kind, data = event["type"], event["data"]
        self._newest_s = datetime.fromisoformat(event["at"]).timestamp()
        self.phase = PHASES.get(kind, self.phase)
        if kind == "planned":
            self._plan(data)
        elif kind == "training":
            self._train(data["event"])
        elif kind == "cases":
            self.cases = (data["done"], data["total"])
            self.phase = data.get("phase", self.phase)

    def _plan(self, data: Mapping[str, Any]) -> None:
        self.planned_s = data.get("training_s")
        search = data.get("search")
        if search:
            self._folds = search["folds"]
            self.runs_planned = self._folds * (len(search["lr_grid"]) or 1) + (len(search["seeds"]) or 1)

    def _train(self, event: Mapping[str, Any]) -> None:
        kind = event["type"]
        if kind == "started":
            self.runs, self._began_s, self.cases = [], 0.0, None  # of another attempt
        elif kind == "step":
            self._take_step(event)
        elif kind == "evaluated":
            self._begin(event["run"])
            self.dev_losses.append((event["step"], event["dev_loss"]))
            self.dev_scores.append((event["step"], event["dev_exact"]))
        elif kind == "decision" and event.get("what") == "regularise":
            self.runs_planned += self._folds

    def _take_step(self, event: Mapping[str, Any]) -> None:
        self._begin(event["run"])
        self.step, self.of = event["step"], event["of"]
        while self.losses and self.losses[-1][0] >= self.step:
            self.losses.pop()  # steps after a kill are taken again
        self.losses.append((self.step, event["loss"]))
        self.tokens_per_s, self.memory_bytes = event.get("tokens_per_s", 0.0), event.get("memory_bytes", 0)

    def _begin(self, run: str) -> None:
        self.phase, self._began_s = "training", self._began_s or self._newest_s
        if run != self.run or run not in self.runs:
            self.run, self.step, self.of = run, 0, 0
            self.losses, self.dev_losses, self.dev_scores = [], [], []
            self.runs.append(run)

    @property
    def share(self) -> float:
        """Of the training, from 0 to 1: runs that ended, and the steps of the one under way. Early stops make it jump."""
        if not self.runs:
            return 0.0
        done = len(self.runs) - 1 + (self.step / self.of if self.of else 0.0)
        return min(1.0, done / max(self.runs_planned, len(self.runs)))

    @property
    def left_s(self) -> float | None:
        """Seconds to the end of the training at the pace so far; what was planned before there is one, None before that."""
        if self.share < 0.01 or self._newest_s <= self._began_s:
            return self.planned_s
        return (self._newest_s - self._began_s) * (1 - self.share) / self.share
