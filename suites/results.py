"""What a run gives back: a result for every case and repeat, and the summary of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from operator import attrgetter
from typing import Any

from prompts.messages import Usage
from suites.assertions.compared import COMPARED
from suites.assertions.spec import Spending, Spent
from suites.judge import Judged, Status
from suites.outcomes import STATUSES, CaseOutcome, Outcomes
from suites.spilled import Spilled
from suites.statistics import percentile, wilson_interval

SET_ASIDE = "skipped by the suite: "


def set_aside(why: str) -> str:
    """The reason of a case that its suite skips; "" for one that it asks."""
    return f"{SET_ASIDE}{why}" if why else ""


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in USD for a million tokens."""

    input_per_mtok: float
    output_per_mtok: float

    def cost_usd(self, usage: Usage) -> float:
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        return (prompt * self.input_per_mtok + completion * self.output_per_mtok) / 1e6


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case asked once. `index` is the case's place in the suite, `repeat` counts from 0.

    `output`, `latency_ms` and `usage` are None where no completion came, `cost_usd` also where the price is unknown.
    `retries` counts the attempts that failed before the last one. `judge_usage` and `judge_cost_usd` are what models took
    that judged the answer, None where none was asked, or its price is unknown. One that waits, for people or to be compared
    with other answers, is skipped and has an output.
    """

    case_id: str
    index: int
    repeat: int
    status: Status
    score: float | None = None
    outcomes: tuple[Judged, ...] = ()
    output: str | None = None
    latency_ms: float | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    error: str = ""
    retries: int = 0
    tags: tuple[str, ...] = ()
    must_pass: bool = False
    judge_usage: Usage | None = None
    judge_cost_usd: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the answer is there and has yet to be judged."""
        return self.status == "skipped" and self.output is not None

    @property
    def is_set_aside(self) -> bool:
        """Whether the suite itself has the case skipped."""
        return self.status == "skipped" and self.error.startswith(SET_ASIDE)

    @property
    def waits(self) -> bool:
        """Whether it is people who have yet to judge the answer."""
        return self.is_open and any(one.type not in COMPARED and one.weight > 0 for one in self._waiting())

    @property
    def is_to_compare(self) -> bool:
        """Whether the answer has yet to be compared with others."""
        return self.output is not None and any(one.type in COMPARED for one in self._waiting())

    def _waiting(self) -> Iterator[Judged]:
        """The assertions that wait, sets aside: they wait for their members."""
        every = (part for whole in self.outcomes for part in whole.walk())
        return (one for one in every if one.status == "skipped" and not one.parts)

    @property
    def metrics(self) -> dict[str, float | None]:
        """The weighted mean score of each metric of this case; None where one of its assertions errored."""
        by_name: dict[str, list[Judged]] = {}
        if not any(outcome.metric or outcome.parts for outcome in self.outcomes):
            return {}  # as of most cases
        for outcome in (part for whole in self.outcomes for part in whole.walk()):
            if outcome.metric:
                by_name.setdefault(outcome.metric, []).append(outcome)
        return {name: _mean_score(found) for name, found in by_name.items()}

    def as_dict(self) -> dict[str, Any]:
        """Plain data but for tuples, which JSON writes as lists."""
        data = dict(zip(_FIELDS, _values(self), strict=True))
        data["outcomes"] = [outcome.as_dict() for outcome in self.outcomes]
        data["usage"] = usage_data(self.usage) if self.usage else None
        data["judge_usage"] = usage_data(self.judge_usage) if self.judge_usage else None
        data["metrics"] = self.metrics
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CaseResult:
        """The result that `as_dict` was taken from."""
        given = {name: value for name, value in data.items() if name not in _BESIDE}
        given["outcomes"] = tuple(map(Judged.from_dict, given.get("outcomes", ())))
        given["tags"] = tuple(given.get("tags", ()))
        for name in ("usage", "judge_usage"):
            given[name] = Usage(**given[name]) if given.get(name) else None
        return cls(**given)


_FIELDS = tuple(field.name for field in fields(CaseResult))
_values = attrgetter(*_FIELDS)
_BESIDE = ("metrics", "row_status")  # what data may hold besides, and no result does


def usage_data(usage: Usage) -> dict[str, int]:
    """Plain data."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
    }


def _mean_score(outcomes: list[Judged]) -> float | None:
    scores = [outcome.score for outcome in outcomes]
    if any(score is None for score in scores):
        return None
    weight = sum(outcome.weight for outcome in outcomes)
    if weight == 0:
        return sum(score or 0.0 for score in scores) / len(scores)
    return sum(outcome.weight * (outcome.score or 0.0) for outcome in outcomes) / weight


@dataclass(frozen=True)
class MetricSummary:
    """One metric over a run: mean score of what could be judged, and the counts that say how much that was."""

    score: float | None
    passed: int
    total: int
    errored: int


@dataclass(frozen=True)
class RunSummary:
    """A whole run. Counts are cases, not repeats; `seconds` is wall time; `stopped` says why a run ended early.

    `flaky` holds the ids of cases whose repeats disagreed. `judges` is what judging took, None where nothing was asked of
    a judge; `waiting` counts the cases that people have yet to judge, `set_aside` those that their suite has skipped:
    both are among the skipped.
    """

    total: int
    passed: int
    failed: int
    errored: int
    skipped: int
    pass_rate: float | None
    ci95: tuple[float, float] | None
    seconds: float
    p50_ms: float | None
    p95_ms: float | None
    cost_per_1k_usd: float | None
    tokens: Usage
    metrics: Mapping[str, MetricSummary]
    flaky: tuple[str, ...] = ()
    retries: int = 0
    stopped: str = ""
    first_error: str = ""
    judges: Spent | None = None
    waiting: int = 0
    set_aside: int = 0
    outcomes: Outcomes = field(default_factory=Outcomes, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The JSON of a run, without `run_id` and `variant`, which its caller knows, and without `outcomes`."""
        data = {name: value for name, value in vars(self).items() if name != "outcomes"}
        data["metrics"] = {name: asdict(metric) for name, metric in self.metrics.items()}
        data["tokens"] = _tokens(self.tokens)
        data["judges"] = _tokens(self.judges.usage) | {"cost_usd": self.judges.cost_usd} if self.judges else None
        return data


def _tokens(usage: Usage) -> dict[str, Any]:
    return {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens}


class _Metric:
    """Sums of one metric. The score is of repeats, like every mean over completions."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.score = 0.0

    def add(self, outcome: Judged) -> None:
        self.counts[outcome.status] += 1
        self.score += outcome.score or 0.0

    def summary(self) -> MetricSummary:
        judged = self.counts["passed"] + self.counts["failed"]
        score = self.score / judged if judged else None
        return MetricSummary(score, self.counts["passed"], self.counts.total(), self.counts["errored"])


class Tally:
    """Takes results as they come, in any order, and keeps only what the summary needs: a few bytes a case."""

    def __init__(self, repeat: int = 1, passes_needed: int | None = None) -> None:
        self.repeat = repeat
        self.passes_needed = passes_needed or repeat
        self.outcomes = Outcomes()
        self.flaky: list[str] = []
        self.metrics: dict[str, _Metric] = {}
        self.retries = 0
        self.first_error = ""
        self._latencies_ms = Spilled("d")
        self._cost_usd = 0.0
        self._costs = 0
        self._tokens = [0, 0, 0]
        self._judges = Spending()
        self._waiting: set[str] = set()
        self._set_aside: set[str] = set()
        self._open: dict[str, dict[str, int]] = {}  # cases of which some repeats are still to come

    def add(self, result: CaseResult) -> None:
        self._measure(result)
        for whole in result.outcomes:
            for outcome in whole.walk() if whole.parts else (whole,):
                if outcome.metric:
                    self.metrics.setdefault(outcome.metric, _Metric()).add(outcome)
        if self.repeat == 1:
            self._close(result, {result.status: 1})
            return
        counts = self._open.setdefault(result.case_id, dict.fromkeys(STATUSES, 0))
        counts[result.status] += 1
        if sum(counts.values()) == self.repeat:
            del self._open[result.case_id]
            self._close(result, counts)

    def _measure(self, result: CaseResult) -> None:
        self.retries += result.retries
        if result.status == "errored" and not self.first_error:
            self.first_error = result.error
        if result.latency_ms is not None:
            self._latencies_ms.append(result.latency_ms)
        if result.cost_usd is not None:
            self._cost_usd += result.cost_usd
            self._costs += 1
        if result.usage is not None:
            self._tokens[0] += result.usage.prompt_tokens
            self._tokens[1] += result.usage.completion_tokens
            self._tokens[2] += result.usage.cached_tokens
        if result.judge_usage is not None:
            self._judges.add(result.judge_usage, result.judge_cost_usd)
        if result.waits:
            self._waiting.add(result.case_id)
        if result.is_set_aside:
            self._set_aside.add(result.case_id)

    def _close(self, result: CaseResult, counts: Mapping[str, int]) -> None:
        status = case_status(counts, self.passes_needed)
        self.outcomes.add(CaseOutcome(result.case_id, status, result.must_pass), result.index)
        if counts.get("passed") and counts.get("failed"):
            self.flaky.append(result.case_id)

    def summary(self, seconds: float, stopped: str = "") -> RunSummary:
        """The summary of all cases that are complete."""
        outcomes = self.outcomes
        counts = {status: outcomes.count(status) for status in STATUSES}
        judged = counts["passed"] + counts["failed"] + counts["errored"]
        return RunSummary(
            total=len(outcomes),
            passed=counts["passed"],
            failed=counts["failed"],
            errored=counts["errored"],
            skipped=counts["skipped"],
            pass_rate=counts["passed"] / judged if judged else None,
            ci95=wilson_interval(counts["passed"], judged) if judged else None,
            seconds=seconds,
            p50_ms=percentile(self._latencies_ms, 50),
            p95_ms=percentile(self._latencies_ms, 95),
            cost_per_1k_usd=1000 * self._cost_usd / self._costs if self._costs else None,
            tokens=Usage(*self._tokens),
            metrics={name: metric.summary() for name, metric in sorted(self.metrics.items())},
            flaky=tuple(self.flaky),
            retries=self.retries,
            stopped=stopped,
            first_error=self.first_error,
            judges=self._judges.total,
            waiting=len(self._waiting),
            set_aside=len(self._set_aside),
            outcomes=outcomes,
        )


def case_status(counts: Mapping[str, int], passes_needed: int) -> Status:
    """One outcome of several repeats: passed with enough passes, failed once these are out of reach.

    Between the two the repeats that errored, or were skipped, could have decided it either way: so it is called.
    """
    passed, errored, skipped = (counts.get(name, 0) for name in ("passed", "errored", "skipped"))
    if passed >= passes_needed:
        return "passed"
    if passed + errored + skipped < passes_needed:
        return "failed"
    return "errored" if passed + errored >= passes_needed else "skipped"
