"""What a run gives back: a result for every case and repeat, and the summary of all of them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from io import StringIO
from typing import Any, get_args

from prompts.messages import Usage
from suites.assertions.spec import Spending, Spent
from suites.judge import Judged, Status
from suites.statistics import percentile, wilson_interval


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
    that judged the answer, None where none was asked, or its price is unknown. One that waits for people is skipped, and
    has an output.
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
    def waits(self) -> bool:
        """Whether the answer is there and people have yet to judge it."""
        return self.status == "skipped" and self.output is not None

    @property
    def metrics(self) -> dict[str, float | None]:
        """The weighted mean score of each metric of this case; None where one of its assertions errored."""
        by_name: dict[str, list[Judged]] = {}
        for outcome in (part for whole in self.outcomes for part in whole.walk()):
            if outcome.metric:
                by_name.setdefault(outcome.metric, []).append(outcome)
        return {name: _mean_score(found) for name, found in by_name.items()}

    def as_dict(self) -> dict[str, Any]:
        """Plain data but for tuples, which JSON writes as lists."""
        data = {name: getattr(self, name) for name in _FIELDS}
        data["outcomes"] = [outcome.as_dict() for outcome in self.outcomes]
        data["usage"] = usage_data(self.usage) if self.usage else None
        data["judge_usage"] = usage_data(self.judge_usage) if self.judge_usage else None
        return {**data, "metrics": self.metrics}

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
_BESIDE = ("metrics", "row_status")  # what data may hold besides, and no result does


def usage_data(usage: Usage) -> dict[str, int]:
    """Plain data."""
    return {name: getattr(usage, name) for name in Usage.__slots__}


def _mean_score(outcomes: list[Judged]) -> float | None:
    scores = [outcome.score for outcome in outcomes]
    if any(score is None for score in scores):
        return None
    weight = sum(outcome.weight for outcome in outcomes)
    if weight == 0:
        return sum(score or 0.0 for score in scores) / len(scores)
    return sum(outcome.weight * (outcome.score or 0.0) for outcome in outcomes) / weight


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """What a case came to over all its repeats: the unit of pass rates and of paired tests."""

    case_id: str
    status: Status
    must_pass: bool = False


_STATUSES: tuple[Status, ...] = get_args(Status)
_LETTERS = "pfes"  # a letter for each of them


class Outcomes(Sequence[CaseOutcome]):
    """What each case of a run came to, in about 25 bytes a case."""

    def __init__(self) -> None:
        self._ids = bytearray()
        self._ends = array("Q", [0])
        self._statuses = bytearray()  # the place in `_STATUSES`, and 8 more where the case must pass

    def add(self, outcome: CaseOutcome) -> None:
        self._ids += outcome.case_id.encode()
        self._ends.append(len(self._ids))
        self._statuses.append(_STATUSES.index(outcome.status) + (8 if outcome.must_pass else 0))

    def __len__(self) -> int:
        return len(self._statuses)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        case_id = self._ids[self._ends[place] : self._ends[place + 1]].decode()
        return CaseOutcome(case_id, self._status(place), self._statuses[place] >= 8)

    def _status(self, place: int) -> Status:
        return _STATUSES[self._statuses[place] & 7]

    def count(self, status: Any) -> int:
        """How many cases have this status."""
        place = _STATUSES.index(status)
        return self._statuses.count(place) + self._statuses.count(place + 8)

    def in_order(self, positions: Sequence[int]) -> Outcomes:
        """The same, ordered by `positions`: one number for each, no two alike."""
        places = array("q", [-1]) * (max(positions, default=-1) + 1)
        for place, position in enumerate(positions):
            places[position] = place
        ordered = Outcomes()
        for place in places:
            if place >= 0:
                ordered.add(self[place])
        return ordered


def statuses_data(outcomes: Iterable[CaseOutcome]) -> dict[str, str]:
    """Ids and statuses as two texts: what is stored of a run."""
    ids, letters = StringIO(), bytearray()  # lists of as many texts would take ten times as much
    for outcome in outcomes:
        ids.write(f" {outcome.case_id}" if letters else outcome.case_id)
        letters += _LETTERS[_STATUSES.index(outcome.status)].encode()
    return {"ids": ids.getvalue(), "statuses": letters.decode()}


def statuses_of(data: Mapping[str, str]) -> Mapping[str, str]:
    """The status of each case by its id, from what is stored of a run."""
    if data.keys() != {"ids", "statuses"}:
        return data  # as runs were stored before
    pairs: Iterator[tuple[str, str]] = zip(data["ids"].split(), data["statuses"], strict=True)
    return {case_id: _STATUSES[_LETTERS.index(letter)] for case_id, letter in pairs}


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
    a judge; `waiting` counts the cases that people have yet to judge: they are among the skipped.
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
    outcomes: Sequence[CaseOutcome] = field(default=(), repr=False)

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
        self._positions = array("Q")
        self.flaky: list[str] = []
        self.metrics: dict[str, _Metric] = {}
        self.retries = 0
        self.first_error = ""
        self._latencies_ms = array("d")
        self._cost_usd = 0.0
        self._costs = 0
        self._tokens = [0, 0, 0]
        self._judges = Spending()
        self._waiting: set[str] = set()
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
        counts = self._open.setdefault(result.case_id, dict.fromkeys(_STATUSES, 0))
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

    def _close(self, result: CaseResult, counts: Mapping[str, int]) -> None:
        status = case_status(counts, self.passes_needed)
        self.outcomes.add(CaseOutcome(result.case_id, status, result.must_pass))
        self._positions.append(result.index)
        if counts.get("passed") and counts.get("failed"):
            self.flaky.append(result.case_id)

    def summary(self, seconds: float, stopped: str = "") -> RunSummary:
        """The summary of all cases that are complete."""
        # before the outcomes are put in order: both take memory for a moment
        p50_ms, p95_ms = percentile(self._latencies_ms, 50), percentile(self._latencies_ms, 95)
        outcomes = self.outcomes.in_order(self._positions)
        counts = {status: outcomes.count(status) for status in _STATUSES}
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
            p50_ms=p50_ms,
            p95_ms=p95_ms,
            cost_per_1k_usd=1000 * self._cost_usd / self._costs if self._costs else None,
            tokens=Usage(*self._tokens),
            metrics={name: metric.summary() for name, metric in sorted(self.metrics.items())},
            flaky=tuple(self.flaky),
            retries=self.retries,
            stopped=stopped,
            first_error=self.first_error,
            judges=self._judges.total,
            waiting=len(self._waiting),
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
