"""Two runs side by side: which cases flipped, and by how much pass rates, scores and metrics differ.

Passes are tested by McNemar's exact test, two-sided, with Newcombe's interval; means by the paired bootstrap. Unlike a
gate this decides nothing: it describes, and corrects for looking at several metrics or tags at once (Holm).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any

from suites.bootstrap import RESAMPLES, UNITS, Cluster, mean_difference
from suites.judge import Status
from suites.paired import clusters_of_differences, seed_of
from suites.results import CaseResult, case_status
from suites.statistics import holm, mcnemar_two_sided, paired_interval

DRAWS = 1_000_000  # that one bootstrap may take: long runs are resampled less often
LEAST_RESAMPLES = 1_000
MOST_RESAMPLED = 1_000  # cases: of more the normal interval is as good, and ten times as quick
ERRORED_SCORE = 0.0


@dataclass(frozen=True, slots=True)
class Observed:
    """One run as far as it is compared, by case id.

    `scores` and `metrics` are means over a case's repeats, what errored as 0; a metric is there for the cases that have
    it. Of what was not asked, or waits, there is nothing.
    """

    outcomes: Mapping[str, Status]
    scores: Mapping[str, float]
    metrics: Mapping[str, Mapping[str, float]]
    results: Mapping[str, Sequence[CaseResult]] = field(repr=False, default_factory=dict)

    @classmethod
    def of(cls, results: Iterable[CaseResult], passes_needed: int | None = None) -> Observed:
        """What these results come to; `passes_needed` of a case's repeats, by default all of them."""
        by_case: dict[str, list[CaseResult]] = {}
        for result in results:
            if result.status != "skipped":
                by_case.setdefault(result.case_id, []).append(result)
        metrics: dict[str, dict[str, float]] = {}
        for case_id, found in by_case.items():
            for name in sorted({name for result in found for name in result.metrics}):
                metrics.setdefault(name, {})[case_id] = _mean([result.metrics.get(name) for result in found])
        return cls(
            outcomes={case_id: _status(found, passes_needed) for case_id, found in by_case.items()},
            scores={case_id: _mean([result.score for result in found]) for case_id, found in by_case.items()},
            metrics=metrics,
            results=by_case,
        )


def _status(results: Sequence[CaseResult], passes_needed: int | None) -> Status:
    counts = {status: sum(result.status == status for result in results) for status in ("passed", "failed", "errored")}
    return case_status(counts, min(passes_needed or len(results), len(results)))


def _mean(values: Sequence[float | None]) -> float:
    return math.fsum(ERRORED_SCORE if value is None else value for value in values) / len(values)


@dataclass(frozen=True, slots=True)
class Flips:
    """Cases that both sides have: how many passed on each, and which changed from `a` to `b`. Errored is not passed.

    `difference` is that of the pass rates, `b` minus `a`; it and its interval are None where nothing is paired.
    `p_adjusted` is over all tags, None where this is not of one.
    """

    paired: int
    a_passed: int
    b_passed: int
    broken: tuple[str, ...]
    mended: tuple[str, ...]
    difference: float | None
    ci95: tuple[float, float] | None
    p_value: float
    p_adjusted: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, with the two pass rates."""
        rates = {f"{side}_pass_rate": passed / self.paired if self.paired else None for side, passed in self._sides()}
        names = ("paired", "difference", "ci95", "p_value", "p_adjusted")
        return {
            **{name: getattr(self, name) for name in names},
            **rates,
            "broken": [*self.broken],
            "mended": [*self.mended],
        }

    def _sides(self) -> tuple[tuple[str, int], tuple[str, int]]:
        return ("a", self.a_passed), ("b", self.b_passed)


@dataclass(frozen=True, slots=True)
class Shift:
    """The paired means of one figure, and their difference, `b` minus `a`, with its BCa interval."""

    name: str
    cases: int
    a: float
    b: float
    difference: float
    ci95: tuple[float, float]
    p_value: float
    p_adjusted: float | None = None


@dataclass(frozen=True, slots=True)
class RunComparison:
    """All that two runs of the same cases differ in. `only_a` and `only_b` are cases that the other does not have."""

    flips: Flips
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    scores: Shift | None
    metrics: tuple[Shift, ...]
    tags: tuple[tuple[str, Flips], ...]


def compare_runs(
    a: Observed, b: Observed, tags: Mapping[str, Sequence[str]], clusters: Mapping[str, str]
) -> RunComparison:
    """`tags` name cases by tag, `clusters` the cluster of each case that does not stand alone."""
    both = [case_id for case_id in a.outcomes if case_id in b.outcomes]
    paired = set(both)
    by_tag = {tag: [case_id for case_id in case_ids if case_id in paired] for tag, case_ids in sorted(tags.items())}
    flips = [(tag, flips_of(a, b, case_ids)) for tag, case_ids in by_tag.items() if case_ids]
    adjusted = holm([found.p_value for _, found in flips])
    shared = sorted(a.metrics.keys() & b.metrics.keys())
    metrics = [found for name in shared if (found := shift_of(name, a.metrics[name], b.metrics[name], clusters))]
    adjusted_metrics = holm([found.p_value for found in metrics])
    return RunComparison(
        flips=flips_of(a, b, both),
        only_a=tuple(case_id for case_id in a.outcomes if case_id not in b.outcomes),
        only_b=tuple(case_id for case_id in b.outcomes if case_id not in a.outcomes),
        scores=shift_of("score", a.scores, b.scores, clusters),
        metrics=tuple(replace(found, p_adjusted=p) for found, p in zip(metrics, adjusted_metrics, strict=True)),
        tags=tuple((tag, replace(found, p_adjusted=p)) for (tag, found), p in zip(flips, adjusted, strict=True)),
    )


def flips_of(a: Observed, b: Observed, case_ids: Sequence[str]) -> Flips:
    """What changed among these cases, which both sides have."""
    was = {case_id: a.outcomes[case_id] == "passed" for case_id in case_ids}
    now = {case_id: b.outcomes[case_id] == "passed" for case_id in case_ids}
    broken = tuple(case_id for case_id in case_ids if was[case_id] and not now[case_id])
    mended = tuple(case_id for case_id in case_ids if now[case_id] and not was[case_id])
    both, count = sum(was[case_id] and now[case_id] for case_id in case_ids), len(case_ids)
    counts = (both, len(broken), len(mended), count - both - len(broken) - len(mended))
    return Flips(
        paired=count,
        a_passed=sum(was.values()),
        b_passed=sum(now.values()),
        broken=broken,
        mended=mended,
        difference=(len(mended) - len(broken)) / count if count else None,
        ci95=paired_interval(*counts) if count else None,
        p_value=mcnemar_two_sided(len(broken), len(mended)),
    )


def shift_of(name: str, a: Mapping[str, float], b: Mapping[str, float], clusters: Mapping[str, str]) -> Shift | None:
    """The paired means of a figure; None where no case has it on both sides.

    The seed follows from the figures: the same two runs always give the same interval. Of many clusters the mean is so
    near to normal that the interval is the normal one, by the residuals of the clusters.
    """
    both = [case_id for case_id in a if case_id in b]
    if not both:
        return None
    differences = {case_id: round(b[case_id] * UNITS) - round(a[case_id] * UNITS) for case_id in both}
    found = _normal if len(both) > MOST_RESAMPLED else _resampled
    difference, interval, p_value = found(clusters_of_differences(differences, clusters), differences, clusters)
    was, now = (math.fsum(side[case_id] for case_id in both) / len(both) for side in (a, b))
    return Shift(name, len(both), was, now, difference, interval, p_value)


_Tested = tuple[float, tuple[float, float], float]  # difference, interval, two-sided p-value


def _resampled(found: Sequence[Cluster], differences: Mapping[str, int], clusters: Mapping[str, str]) -> _Tested:
    resamples = min(RESAMPLES, max(LEAST_RESAMPLES, DRAWS // len(differences)))
    by = mean_difference(found, seed_of(differences, clusters), resamples=resamples)
    return by.mean, (by.low, by.high), min(1.0, 2 * min(by.p_loss, by.p_gain))


def _normal(found: Sequence[Cluster], differences: Mapping[str, int], _: Mapping[str, str]) -> _Tested:
    """By the ratio estimator's linear error: the clusters' residuals about the mean."""
    cases = len(differences)
    mean = sum(cluster.total for cluster in found) / cases
    squares = math.fsum((cluster.total - mean * cluster.cases) ** 2 for cluster in found)
    error = math.sqrt(squares * len(found) / max(1, len(found) - 1)) / cases
    if error == 0:
        return mean / UNITS, (mean / UNITS, mean / UNITS), 1.0 if mean == 0 else 0.0
    reach = NormalDist().inv_cdf(0.975) * error
    p_value = math.erfc(abs(mean) / error / math.sqrt(2))
    return mean / UNITS, ((mean - reach) / UNITS, (mean + reach) / UNITS), p_value
