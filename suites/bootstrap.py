"""The paired bootstrap over clusters of cases, for scores that have degrees: BCa intervals and one-sided p-values.

Efron, "Better bootstrap confidence intervals", JASA 82 (1987); Efron and Tibshirani, "An introduction to the
bootstrap" (1993), chapter 14. Differences are counted in billionths and drawn by `random.Random.random` alone, whose
sequence Python promises to keep: the same seed gives the same figures on every machine.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

RESAMPLES = 10_000
UNITS = 1_000_000_000  # of a score of 1: sums of whole numbers are exact, so ties are ties
_ALL_SWAPS_UP_TO = 12  # clusters: 4,096 sums
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Cluster:
    """Cases that stand or fall together: the sum of their differences in billionths, and how many they are."""

    total: int
    cases: int


@dataclass(frozen=True, slots=True)
class MeanDifference:
    """The mean difference over cases, candidate minus baseline, and what the resamples say of it.

    `p_loss` is the chance to see such a loss where there is none, `p_gain` of such a gain; `error` the standard error
    by the jackknife.
    """

    mean: float
    low: float
    high: float
    p_loss: float
    p_gain: float
    error: float


def mean_difference(
    clusters: Sequence[Cluster], seed: int, *, resamples: int = RESAMPLES, confidence: float = 0.95
) -> MeanDifference:
    """The mean difference with its two-sided BCa interval; what has no clusters has no difference.

    A p-value is the larger of two: that of the BCa bound which touches 0, and that of the exchange test. The bootstrap
    alone finds a loss in up to 14% of comparisons of a variant with itself, where few cases differ or few by much; the
    exchange test is exact there. Resamples without any difference count against both claims.
    """
    if not any(cluster.total for cluster in clusters):
        return MeanDifference(0.0, 0.0, 0.0, 1.0, 1.0, 0.0)
    found = sorted(resampled_means(clusters, seed, resamples))
    bca = _bca(clusters, found)
    below, above = sum(mean < 0 for mean in found), sum(mean > 0 for mean in found)
    exchange_loss, exchange_gain = exchange_p([cluster.total for cluster in clusters], seed, resamples)
    return MeanDifference(
        mean=_mean(clusters) / UNITS,
        low=bca.bound((1 - confidence) / 2) / UNITS,
        high=bca.bound((1 + confidence) / 2) / UNITS,
        p_loss=max(exchange_loss, bca.chance(below)),
        p_gain=max(exchange_gain, bca.mirrored().chance(above)),
        error=_jackknife_error(clusters) / UNITS,
    )


def resampled_means(clusters: Sequence[Cluster], seed: int, resamples: int = RESAMPLES) -> list[float]:
    """The mean difference, in billionths, of as many resamples of whole clusters, drawn with replacement."""
    draw, count = random.Random(seed).random, len(clusters)  # noqa: S311 - a resample holds no secret
    sizes = {cluster.cases for cluster in clusters}
    if len(sizes) == 1:
        totals, cases = [cluster.total for cluster in clusters], count * sizes.pop()
        return [sum([totals[int(draw() * count)] for _ in range(count)]) / cases for _ in range(resamples)]
    means = []
    for _ in range(resamples):
        picked = [clusters[int(draw() * count)] for _ in range(count)]
        means.append(sum([cluster.total for cluster in picked]) / sum([cluster.cases for cluster in picked]))
    return means


def exchange_p(totals: Sequence[int], seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The chances of a sum as low, and of one as high, where each cluster's two answers had been swapped by a coin.

    Where both sides are the same variant the coin changes nothing but names, so no α is ever exceeded (Fisher's
    randomization test). All swaps are tried for up to 12 clusters that differ, else `resamples` of them: then the
    swap that was seen counts as one more.
    """
    changed, seen = [total for total in totals if total], sum(totals)
    exact = len(changed) <= _ALL_SWAPS_UP_TO
    sums = _signed_sums(changed) if exact else _drawn_sums(changed, seed, resamples)
    low, high = sum(each <= seen for each in sums), sum(each >= seen for each in sums)
    more = 0 if exact else 1
    return (low + more) / (len(sums) + more), (high + more) / (len(sums) + more)


def _signed_sums(totals: Sequence[int]) -> list[int]:
    """The sums of `totals` under all choices of their signs."""
    sums = [0]
    for total in totals:
        sums = [each + total for each in sums] + [each - total for each in sums]
    return sums


def _drawn_sums(totals: Sequence[int], seed: int, resamples: int) -> list[int]:
    """The same under choices drawn by coins, eight at once: a byte picks one of the 256 sums of eight."""
    draw = random.Random(f"exchange {seed}").random  # noqa: S311 - a resample holds no secret
    tables = [_signed_sums(totals[at : at + 8]) for at in range(0, len(totals), 8)]
    return [sum([table[int(draw() * len(table))] for table in tables]) for _ in range(resamples)]


@dataclass(frozen=True, slots=True)
class _Bca:
    """Sorted resampled means with their corrections: `bias` in standard deviations, and `acceleration`."""

    means: Sequence[float]
    bias: float
    acceleration: float

    def bound(self, level: float) -> float:
        """The mean that lies at `level` of the corrected distribution, between two resamples where need be."""
        shifted = self.bias + _NORMAL.inv_cdf(level)
        place = _NORMAL.cdf(self.bias + shifted / (1 - self.acceleration * shifted)) * (len(self.means) - 1)
        before = math.floor(place)
        after = min(before + 1, len(self.means) - 1)
        return self.means[before] + (place - before) * (self.means[after] - self.means[before])

    def chance(self, beyond: int) -> float:
        """One minus the highest level whose bound keeps to that side of 0 on which `beyond` of the resamples lie."""
        if beyond == 0:
            return 1.0
        if beyond == len(self.means):
            return 0.0
        place = _NORMAL.inv_cdf(beyond / len(self.means)) - self.bias
        shrink = 1 + self.acceleration * place
        return 1 - _NORMAL.cdf(place / shrink - self.bias) if shrink > 0 else 1.0

    def mirrored(self) -> _Bca:
        """The same for differences with their signs turned; good for `chance` alone."""
        return _Bca(self.means, -self.bias, -self.acceleration)


def _bca(clusters: Sequence[Cluster], means: Sequence[float]) -> _Bca:
    mean = _mean(clusters)
    below = (sum(each < mean for each in means) + sum(each <= mean for each in means)) / 2
    half = 0.5 / len(means)  # a share of exactly 0 or 1 has no normal deviate
    bias = _NORMAL.inv_cdf(min(1 - half, max(half, below / len(means))))
    return _Bca(means, bias, _acceleration(clusters))


def _mean(clusters: Sequence[Cluster]) -> float:
    return sum(cluster.total for cluster in clusters) / sum(cluster.cases for cluster in clusters)


def _left_out(clusters: Sequence[Cluster]) -> list[float]:
    """How far the mean without each of the clusters lies below the mean of these means."""
    if len(clusters) < 2:
        return []
    total, cases = sum(cluster.total for cluster in clusters), sum(cluster.cases for cluster in clusters)
    means = [(total - cluster.total) / (cases - cluster.cases) for cluster in clusters]
    centre = math.fsum(means) / len(means)
    return [centre - mean for mean in means]


def _acceleration(clusters: Sequence[Cluster]) -> float:
    gaps = _left_out(clusters)
    squares = math.fsum(gap**2 for gap in gaps)
    return math.fsum(gap**3 for gap in gaps) / (6 * squares**1.5) if squares > 0 else 0.0


def _jackknife_error(clusters: Sequence[Cluster]) -> float:
    gaps = _left_out(clusters)
    return math.sqrt((len(gaps) - 1) / len(gaps) * math.fsum(gap**2 for gap in gaps)) if gaps else 0.0
