"""The records of a gate: what goes in, what comes out, and the evidence that the one follows from the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from suites.case import GateSettings, Thresholds
from suites.judge import Status
from suites.outcomes import CaseOutcome
from suites.policy import JudgeFloor
from suites.results import RunSummary

Verdict = Literal["pass", "fail", "inconclusive", "could_not_run"]
RULES = 2  # which edition of the rules decides now
_WORST_FIRST: tuple[Verdict, ...] = ("could_not_run", "fail", "inconclusive", "pass")


class _Record(BaseModel):
    """Built when it is first used: most commands need few of these, and to build one takes milliseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Repeats(NamedTuple):
    """How a case's repeats went, those aside that were skipped."""

    passed: int = 0
    failed: int = 0
    errored: int = 0

    @property
    def disagree(self) -> bool:
        """Whether the case is flaky. An errored repeat says nothing of the variant."""
        return self.passed > 0 and self.failed > 0

    @property
    def shown(self) -> str:
        return f"{self.passed} of {sum(self)}"


class Side(_Record):
    """One variant's run, as far as a verdict rests on it.

    `outcomes` are by case id; latency in milliseconds, cost in USD for a thousand completions, None where unknown;
    `stopped` says why the run ended early, "" where it did not. `repeats` and `scores` are by case id, there where
    the suite repeats cases or is gated on scores. `rerun_of` names the run whose judged answers this one kept.
    `metrics` are those with a threshold: by metric the mean score of each case that has it, None where none of its
    repeats could be judged. `waiting` counts cases that people have yet to judge, `set_aside` those that the suite skips.
    """

    variant: str
    outcomes: Mapping[str, Status]
    p95_latency_ms: float | None = None
    cost_per_1k_usd: float | None = None
    run_id: str | None = None
    stopped: str = ""
    repeats: Mapping[str, Repeats] = {}
    scores: Mapping[str, float] = {}
    metrics: Mapping[str, Mapping[str, float | None]] = {}
    waiting: int = 0
    set_aside: int = 0
    rerun_of: str | None = None

    @classmethod
    def from_run(cls, variant: str, summary: RunSummary, run_id: str | None = None, **more: Any) -> Self:
        return cls(
            **{"outcomes": outcomes_by_id(summary.outcomes)} if cls is Side else {},
            **more,
            variant=variant,
            p95_latency_ms=summary.p95_ms,
            cost_per_1k_usd=summary.cost_per_1k_usd,
            run_id=run_id,
            stopped=summary.stopped,
            waiting=summary.waiting,
            set_aside=summary.set_aside,
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

    def pass_rate_of(self, case_ids: Iterable[str]) -> float | None:
        """The pass rate of some of the cases; None where none of them was judged."""
        found = [status for i in case_ids if (status := self.outcomes.get(i, "skipped")) != "skipped"]
        return found.count("passed") / len(found) if found else None

    def metric(self, name: str) -> tuple[float | None, int]:
        """The mean score of a metric over its cases, and how many of these errored, which count as 0.

        None where none of them was asked.
        """
        asked = [
            value for i, value in self.metrics.get(name, {}).items() if self.outcomes.get(i, "skipped") != "skipped"
        ]
        mean = math.fsum(value or 0.0 for value in asked) / len(asked) if asked else None
        return mean, asked.count(None)


class Counted(Side):
    """A side of which the counts alone are held: they decide thresholds on all cases, however many these are."""

    outcomes: Mapping[str, Status] = {}
    counts: Mapping[Status, int]

    def count(self, *statuses: Status) -> int:
        return sum(self.counts.get(status, 0) for status in statuses)


def outcomes_by_id(outcomes: Iterable[CaseOutcome]) -> dict[str, Status]:
    return {outcome.case_id: outcome.status for outcome in outcomes}


class Measured(_Record):
    """A grader of a suite, and how far it agrees with people; the figures are None where that was never measured.

    A measurement holds for the same model, asked as often and by the same rubrics, and for no other.
    """

    type: str
    metric: str | None
    model: str
    rubrics: tuple[str, ...]
    calibration_id: str | None = None
    n: int = 0
    accuracy: float | None = None
    kappa: float | None = None

    @property
    def name(self) -> str:
        return f"{self.type} ({self.metric})" if self.metric else self.type


class JudgeStanding(_Record):
    """What a suite asks of its judges, and how each of them does."""

    floor: JudgeFloor
    votes: int
    graders: tuple[Measured, ...]


class GateInput(_Record):
    """All that a verdict on one suite depends on. `must_pass` holds case ids.

    `tags` are those with a threshold, with the ids of their cases. `clusters` names for each case that does not stand
    alone the cluster it belongs to, where the gate is on scores. `titles` describes the cases that are quarantined.
    `passes_needed` of `repeat` outcomes make a case a pass. `judge` is there where the suite has a floor for its judges.
    `rubrics` are the versions that judges were asked by, by the names that the suite has for them. `rules` is the edition
    of the rules that decided: evidence is recomputed by the one it was decided by. The second doubts a pass where the
    quarantined cases got worse.
    """

    suite: str
    candidate: Side
    baseline: Side | None = None
    thresholds: Thresholds = Thresholds()
    settings: GateSettings = GateSettings()
    must_pass: tuple[str, ...] = ()
    repeat: int = 1
    passes_needed: int = 1
    tags: Mapping[str, tuple[str, ...]] = {}
    clusters: Mapping[str, str] = {}
    titles: Mapping[str, str] = {}
    judge: JudgeStanding | None = None
    rubrics: Mapping[str, str] = {}
    rules: int = Field(1, ge=1, le=RULES)


class ThresholdRow(_Record):
    """One threshold: `met` is None where the value is unknown. Named as in `Thresholds.given`."""

    name: str
    bound: float
    value: float | None
    met: bool | None

    @property
    def shown(self) -> str:
        """The value as reports write it."""
        return "unknown" if self.value is None else f"{self.value:.6g}"


class Pairs(_Record):
    """Cases that both sides have, none of them skipped. Errored is not passed."""

    paired: int = 0
    broken: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()

    @property
    def loss(self) -> float:
        """(b − c)/n; 0 where nothing is paired."""
        return (len(self.broken) - len(self.mended)) / self.paired if self.paired else 0.0


class Quarantined(_Record):
    """A case on which the baseline's own repeats disagree: it is left out of the comparison, and named here."""

    case_id: str
    title: str
    baseline: Repeats
    candidate: Repeats

    def in_words(self) -> str:
        return (
            f"flaky on the baseline, which passed {self.baseline.shown} repeats; the candidate {self.candidate.shown}"
        )


class ScoreComparison(_Record):
    """The paired scores of both sides, and the BCa interval of the mean difference, candidate minus baseline."""

    candidate: float
    baseline: float
    difference: float
    ci95: tuple[float, float]
    error: float
    clusters: int
    resamples: int
    seed: int


class GateDecision(_Record):
    """The verdict on one suite. `p_value` is adjusted over the suites of the gate, None without a baseline.

    `cases_needed` says how many cases would decide an inconclusive gate, where that can be said. `scores` is there
    where the gate is on scores.
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
    quarantined: tuple[Quarantined, ...] = ()
    scores: ScoreComparison | None = None

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
    quarantined: tuple[Quarantined, ...] = ()
    scores: ScoreComparison | None = None


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
