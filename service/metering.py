"""What requests came to, counted for Prometheus: a microsecond each on the request path, made into metrics when they are read."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from service.outcome import Outcome

MOST_SERIES = 500  # of prompt, variant and role together; what comes beyond is counted as `other`, by its role
OTHER = "other"
BOUNDS_MS = (5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 30_000.0, 60_000.0)
LABELS = ("prompt", "variant", "role")
_BOUNDS = (*(str(bound / 1000) for bound in BOUNDS_MS), "+Inf")


class Histogram:
    """How many values lay up to each bound, and their sum; in milliseconds."""

    __slots__ = ("counts", "sum_ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_MS) + 1)
        self.sum_ms = 0.0

    def add(self, value_ms: float) -> None:
        self.counts[bisect_left(BOUNDS_MS, value_ms)] += 1
        self.sum_ms += value_ms


class Series:
    """All that is counted of one variant of one prompt."""

    __slots__ = ("attempts", "cached", "completion_tokens", "cost_usd", "fallbacks", "first_token", "from_cache", "invalid",
                 "latency", "prompt_tokens", "statuses", "upstream")  # fmt: skip

    def __init__(self) -> None:
        self.statuses: dict[str, int] = {}
        self.latency, self.first_token, self.upstream = Histogram(), Histogram(), Histogram()
        self.prompt_tokens = self.cached = self.completion_tokens = 0
        self.attempts = self.invalid = self.fallbacks = self.from_cache = 0
        self.cost_usd = 0.0

    def add(self, outcome: Outcome) -> None:
        self.statuses[outcome.status] = self.statuses.get(outcome.status, 0) + 1
        self.latency.add(outcome.latency_ms)
        if outcome.upstream_ms is not None:
            self.upstream.add(outcome.upstream_ms)
        if outcome.first_token_ms is not None:
            self.first_token.add(outcome.first_token_ms)
        self.prompt_tokens += outcome.prompt_tokens
        self.cached += outcome.cached_tokens
        self.completion_tokens += outcome.completion_tokens
        self.attempts += outcome.attempts
        if outcome.cost_usd is not None:
            self.cost_usd += outcome.cost_usd
        if outcome.is_valid is False:
            self.invalid += 1
        if outcome.chosen is not None:
            self.fallbacks += 1
        if outcome.is_cached:
            self.from_cache += 1


class RequestMeter:
    """Counts outcomes since the start of the process, shadows apart from what was answered. Its series are bounded.

    A series that is once there stays, as Prometheus wants it: counters only grow.
    """

    def __init__(self) -> None:
        self._series: dict[tuple[str | None, str, bool], Series] = {}
        self._other = {is_served: Series() for is_served in (True, False)}  # what was asked of shadows was not served

    def add(self, outcome: Outcome) -> None:
        key = (outcome.prompt, outcome.variant, outcome.shadow_of is None)
        series = self._series.get(key)
        if series is None:
            series = self._begin(key)
        series.add(outcome)

    def _begin(self, key: tuple[str | None, str, bool]) -> Series:
        if len(self._series) >= MOST_SERIES:
            return self._other[key[2]]
        return self._series.setdefault(key, Series())

    def text(self) -> str:
        """Prometheus' text format 0.0.4; may be called from any thread.

        Written here rather than by prometheus_client, which takes 200 ms of CPU for 500 series of thirteen bounds each.
        """
        series = self._labelled()
        return "".join((*_requests(series), *_tokens(series), *_sums(series), *_histograms(series)))

    def _labelled(self) -> list[tuple[str, Series]]:
        others = {(OTHER, OTHER, is_served): series for is_served, series in self._other.items() if series.statuses}
        return [
            (_labels(prompt or "", variant, "served" if is_served else "shadow"), series)
            for (prompt, variant, is_served), series in (*list(self._series.items()), *others.items())
        ]


def _labels(*values: str) -> str:
    escaped = (value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for value in values)
    return ",".join(f'{name}="{value}"' for name, value in zip(LABELS, escaped, strict=True))


def _head(name: str, kind: str, text: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _requests(series: list[tuple[str, Series]]) -> Iterator[str]:
    name = "turnout_requests_total"
    yield _head(name, "counter", "Requests by what they came to")
    for labels, one in series:
        for status, count in list(one.statuses.items()):
            yield f'{name}{{{labels},status="{status}"}} {count}\n'


def _tokens(series: list[tuple[str, Series]]) -> Iterator[str]:
    name = "turnout_tokens_total"
    yield _head(name, "counter", "Tokens; those of kind cached are among those of kind prompt")
    for labels, one in series:
        for kind, count in (
            ("prompt", one.prompt_tokens),
            ("cached", one.cached),
            ("completion", one.completion_tokens),
        ):
            yield f'{name}{{{labels},kind="{kind}"}} {count}\n'


def _sums(series: list[tuple[str, Series]]) -> Iterator[str]:
    for name, text, field in (
        ("turnout_cost_usd_total", "US dollars, by the prices of the settings", "cost_usd"),
        ("turnout_attempts_total", "Questions to upstreams, retries, repairs and fallbacks included", "attempts"),
        ("turnout_invalid_answers_total", "Answers that did not fit the prompt's output schema", "invalid"),
        ("turnout_fallback_answers_total", "Requests given to this variant in place of the chosen one", "fallbacks"),
        ("turnout_cached_answers_total", "Requests answered from the response cache", "from_cache"),
    ):
        yield _head(name, "counter", text)
        for labels, one in series:
            yield f"{name}{{{labels}}} {getattr(one, field)}\n"


def _histograms(series: list[tuple[str, Series]]) -> Iterator[str]:
    for name, text, field in (
        ("turnout_request_duration_seconds", "From a request's arrival to the end of its answer", "latency"),
        (
            "turnout_first_token_seconds",
            "From a request's arrival to the first token of a streamed answer",
            "first_token",
        ),
        ("turnout_upstream_duration_seconds", "The part of it that the upstream took", "upstream"),
    ):
        yield _head(name, "histogram", text)
        for labels, one in series:
            histogram: Histogram = getattr(one, field)
            total = 0
            for bound, count in zip(_BOUNDS, list(histogram.counts), strict=True):
                total += count
                yield f'{name}_bucket{{{labels},le="{bound}"}} {total}\n'
            yield f"{name}_count{{{labels}}} {total}\n{name}_sum{{{labels}}} {histogram.sum_ms / 1000}\n"
