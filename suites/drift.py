"""How latency, cost and length of the answers moved between two runs, over the cases that both answered."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from suites.results import CaseResult
from suites.run_comparison import Observed, shift_of
from suites.statistics import percentile

DRAWS = 500_000  # of one interval: long runs are resampled less often
MOST_RESAMPLES, LEAST_RESAMPLES = 2_000, 250
MOST_CASES = 2_000  # that one resample draws
_Measure = Callable[[CaseResult], float | None]


@dataclass(frozen=True, slots=True)
class Drift:
    """One figure on both sides, over the `cases` for which both are known; `ratio` is None where `a` is 0."""

    name: str
    cases: int
    a: float
    b: float
    difference: float
    ci95: tuple[float, float]
    ratio: float | None


def drifts(a: Observed, b: Observed, clusters: Mapping[str, str]) -> list[Drift]:
    """Latency in milliseconds (p50, p95), cost in USD for a thousand answers, tokens an answer; what nobody knows is left out.

    Latencies of answers from the cache are those of when they were asked.
    """
    return [*_latencies(a, b), *_means(a, b, clusters)]


def _latencies(a: Observed, b: Observed) -> list[Drift]:
    def latency_ms(result: CaseResult) -> float | None:
        return result.latency_ms

    both = _paired(a, b, latency_ms)
    if not both:
        return []
    intervals = _percentile_intervals(both)
    was, now = (_percentiles([value for pair in both for value in pair[side]]) for side in (0, 1))
    return [
        _drift(f"p{percent}_ms", len(both), was[percent], now[percent], now[percent] - was[percent], intervals[percent])
        for percent in _PERCENTS
    ]


_PERCENTS = (50, 95)
_Pair = tuple[Sequence[float], Sequence[float]]


def _paired(a: Observed, b: Observed, measure: _Measure) -> list[_Pair]:
    """The values of each case that both sides have some of, in the order of their ids."""
    pairs: list[_Pair] = []
    for case_id in sorted(a.results.keys() & b.results.keys()):
        was, now = (
            [value for result in side.results[case_id] if (value := measure(result)) is not None] for side in (a, b)
        )
        if was and now:
            pairs.append((was, now))
    return pairs


def _percentile_intervals(pairs: Sequence[_Pair]) -> dict[int, tuple[float, float]]:
    """95% intervals of the differences, by the percentile bootstrap over cases; the seed is the number of cases.

    Of many cases fewer are drawn at once, and the reach is made smaller by the root of their share: m out of n bootstrap
    (Bickel, Götze, van Zwet 1997).
    """
    draw, count = random.Random(len(pairs)).random, len(pairs)  # noqa: S311 - a resample holds no secret
    size = min(count, MOST_CASES)
    found: dict[int, list[float]] = {percent: [] for percent in _PERCENTS}
    for _ in range(min(MOST_RESAMPLES, max(LEAST_RESAMPLES, DRAWS // size))):
        picked = [pairs[int(draw() * count)] for _ in range(size)]
        was, now = (_percentiles([value for pair in picked for value in pair[side]]) for side in (0, 1))
        for percent in _PERCENTS:
            found[percent].append(now[percent] - was[percent])
    all_was, all_now = (_percentiles([value for pair in pairs for value in pair[side]]) for side in (0, 1))
    shrink = math.sqrt(size / count)
    return {
        percent: _shrunk(_middle(found[percent]), all_now[percent] - all_was[percent], shrink) for percent in _PERCENTS
    }


def _percentiles(values: Sequence[float]) -> dict[int, float]:
    """The nearest-rank percentiles, as `percentile` gives them, of one sorting."""
    ordered = sorted(values)
    return {percent: ordered[math.ceil(round(percent * len(ordered) / 100, 9)) - 1] for percent in _PERCENTS}


def _shrunk(interval: tuple[float, float], centre: float, share: float) -> tuple[float, float]:
    if share == 1:
        return interval
    return centre + (interval[0] - centre) * share, centre + (interval[1] - centre) * share


def _middle(values: Sequence[float]) -> tuple[float, float]:
    """The bounds between which 95% of the values lie."""
    return percentile(values, 2.5) or 0.0, percentile(values, 97.5) or 0.0


def _means(a: Observed, b: Observed, clusters: Mapping[str, str]) -> list[Drift]:
    measures: dict[str, _Measure] = {
        "cost_per_1k_usd": lambda result: None if result.cost_usd is None else result.cost_usd * 1000,
        "prompt_tokens": lambda result: result.usage.prompt_tokens if result.usage else None,
        "completion_tokens": lambda result: result.usage.completion_tokens if result.usage else None,
    }
    found = []
    for name, measure in measures.items():
        shift = shift_of(name, _by_case(a, measure), _by_case(b, measure), clusters)
        if shift is not None:
            found.append(_drift(name, shift.cases, shift.a, shift.b, shift.difference, shift.ci95))
    return found


def _by_case(side: Observed, measure: _Measure) -> dict[str, float]:
    found = {}
    for case_id, results in side.results.items():
        values = [value for result in results if (value := measure(result)) is not None]
        if values:
            found[case_id] = sum(values) / len(values)
    return found


def _drift(name: str, cases: int, a: float, b: float, difference: float, ci95: tuple[float, float]) -> Drift:
    return Drift(name, cases, a, b, difference, ci95, b / a if a else None)
