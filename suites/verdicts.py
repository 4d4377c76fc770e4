"""The records of a gate: what goes in, what comes out, and the evidence that the one follows from the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from suites.case import GateSettings, Thresholds
from suites.judge import Status
from suites.results import CaseOutcome, RunSummary

Verdict = Literal["pass", "fail", "inconclusive", "could_not_run"]
_WORST_FIRST: tuple[Verdict, ...] = ("could_not_run", "fail", "inconclusive", "pass")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Side(_Record):
    """One variant's run, as far as a verdict rests on it.

    `outcomes` are by case id; latency in milliseconds, cost in USD for a thousand completions, None where unknown;
    `stopped` says why the run ended early, "" where it did not.
    """

    variant: str
    outcomes: Mapping[str, Status]
    p95_latency_ms: float | None = None
    cost_per_1k_usd: float | None = None
    run_id: str | None = None
    stopped: str = ""

    @classmethod
    def from_run(cls, variant: str, summary: RunSummary, run_id: str | None = None) -> Side:
        return cls(
            variant=variant,
            outcomes=outcomes_by_id(summary.outcomes),
            p95_latency_ms=summary.p95_ms,
            cost_per_1k_usd=summary.cost_per_1k_usd,
            run_id=run_id,
            stopped=summary.stopped,
        )

    def count(self, *statuses: Status) -> int:
        return sum(status in statuses for status in self.outcomes.values())

    @property
    def judged(self) -> int:
        """Passed, failed and errored cases: what a pass rate is a share of."""
        return self.count("passed", "failed", "errored")

    @property
    def pass_rate(self) -> float | None:
        return self.count("passed") / self.judged if self.judged else None


def outcomes_by_id(outcomes: Iterable[CaseOutcome]) -> dict[str, Status]:
    return {outcome.case_id: outcome.status for outcome in outcomes}


class GateInput(_Record):
    """All that a verdict on one suite depends on. `must_pass` holds case ids."""

    suite: str
    candidate: Side
    baseline: Side | None = None
    thresholds: Thresholds = Thresholds()
    settings: GateSettings = GateSettings()
    must_pass: tuple[str, ...] = ()


class ThresholdRow(_Record):
    """One threshold: `met` is None where the value is unknown."""

    name: str
    bound: float
    value: float | None
    met: bool | None


class Pairs(_Record):
    """Cases that both sides have, none of them skipped. Errored is not passed."""

    paired: int = 0
    broken: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()

    @property
    def loss(self) -> float:
        """(b − c)/n; 0 where nothing is paired."""
        return (len(self.broken) - len(self.mended)) / self.paired if self.paired else 0.0


class GateDecision(_Record):
    """The verdict on one suite. `p_value` is adjusted over the suites of the gate, None without a baseline.

    `cases_needed` says how many cases would decide an inconclusive gate, where that can be said.
    """

    suite: str
    verdict: Verdict
    reasons: tuple[str, ...]
    candidate: str
    baseline: str | None
    pass_rate: float | None
    ci95: tuple[float, float] | None
    baseline_pass_rate: float | None
    thresholds: tuple[ThresholdRow, ...]
    paired: int
    newly_broken: tuple[str, ...]
    newly_mended: tuple[str, ...]
    p_value: float | None
    cases_needed: int | None = None

    def as_dict(self, evidence_id: str | None = None) -> dict[str, Any]:
        """The JSON of one suite in a gate's answer."""
        return {**self.model_dump(mode="json"), "evidence_id": evidence_id}


class PromotionDecision(_Record):
    """Whether the candidate takes traffic. `alpha_look` is what this look might spend, `alpha_left` what remains."""

    suite: str
    promote: bool
    verdict: Verdict
    reasons: tuple[str, ...]
    candidate: str
    baseline: str
    pass_rate: float | None
    ci95: tuple[float, float] | None
    baseline_pass_rate: float | None
    thresholds: tuple[ThresholdRow, ...]
    paired: int
    newly_broken: tuple[str, ...]
    newly_mended: tuple[str, ...]
    p_value: float
    look: int
    alpha_look: float
    alpha_left: float


class GateEvidence(_Record):
    """What a gate's verdict on one suite follows from. `others` are the raw p-values of the gate's other suites."""

    kind: Literal["gate"] = "gate"
    given: GateInput
    others: tuple[float, ...] = ()
    decision: GateDecision


class PromotionEvidence(_Record):
    """What a promotion follows from."""

    kind: Literal["promotion"] = "promotion"
    given: GateInput
    look: int = Field(ge=1)
    decision: PromotionDecision


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of several: the first of could_not_run, fail, inconclusive, pass that occurs among them."""
    found = set(verdicts)
    return next((verdict for verdict in _WORST_FIRST if verdict in found), "could_not_run")
