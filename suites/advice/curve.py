"""The learning curve: error rates at some numbers of examples, and what they say about more of them.

The error at n examples is taken for err(n) = a + b·n^-c, the power law that learning curves of many fields follow
(Hestness et al. 2017, arXiv 1712.00409; Viering and Loog 2023 on where it fails). The exponent is searched on a grid, a
and b are least squares weighed by the binomial variance, both at least 0. Intervals are a parametric bootstrap: counts
drawn anew from the fitted rates, the sizes and numbers of answers as they were.

That bootstrap takes the points for independent. Sizes that were scored on the same answers are not, so that their
differences are surer than it says: its intervals are rather too wide. They say nothing about another kind of data.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

DRAWS = 500
_EXPONENTS = tuple(exponent / 20 for exponent in range(2, 41))  # 0.1 to 2: beyond, a curve is a step
_NORMAL_ABOVE = 25.0  # of a binomial's variance
_LIKELY, _UNLIKELY = 0.8, 0.1
FARTHEST = 16.0  # times the examples there are: what lies beyond is no forecast
TOLD = (
    4  # times: so far intervals were tried (docs/advice.md); that a bar is out of reach is decided by more than is told
)
Answer = Literal["reached", "number", "out of reach", "cannot say"]


@dataclass(frozen=True, slots=True)
class Measured:
    """`wrong` of `total` answers of models that were trained on `examples`."""

    examples: int
    wrong: int
    total: int


@dataclass(frozen=True, slots=True)
class Fit:
    """err(n) = a + b·n^-c."""

    a: float
    b: float
    c: float

    def error(self, examples: float) -> float:
        return float(min(1.0, self.a + self.b * examples**-self.c))

    def examples_for(self, error: float) -> float:
        """The examples from which on the error is at most so much; infinite where it never is."""
        if error >= 1.0:
            return 0.0
        if error <= self.a:
            return math.inf
        return float((self.b / (error - self.a)) ** (1 / self.c)) if self.b else 0.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """The accuracy that `examples` would give, its 95% interval, and the chance that it reaches the bar."""

    examples: int
    accuracy: float
    ci95: tuple[float, float]
    reach: float | None


@dataclass(frozen=True, slots=True)
class Needed:
    """How many examples the bar needs in all: a `number` with its 80% interval, whose upper end is None where open."""

    answer: Answer
    examples: int | None = None
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """What was measured, pooled by size, the curve through it, and what it forecasts.

    `method` is "power law", or "level" where the points do not fall, or are fewer than three: then the last level is all
    that is known, and more examples are no promise.
    """

    points: tuple[Measured, ...]
    method: Literal["power law", "level"]
    fit: Fit
    forecasts: tuple[Forecast, ...]
    needed: Needed | None


def learn_curve(points: Sequence[Measured], sizes: Sequence[int], bar: float | None, *, seed: int = 0) -> Curve:
    """Fit `points` and forecast the accuracy at `sizes`, the first of which is what there is. `bar` is the accuracy wanted.

    Raises ValueError without points.
    """
    pooled = pool(points)
    if not pooled:
        raise ValueError("no points: a curve needs at least one training")
    fit, is_law = fit_errors(pooled)
    draws = [_drawn(pooled, fit, random.Random(f"{seed}:{number}"), is_law=is_law) for number in range(DRAWS)]  # noqa: S311
    forecasts = tuple(_forecast(size, fit, draws, bar) for size in sizes)
    needed = None if bar is None else _needed(fit, draws, sizes[0], bar, forecasts[0], is_law=is_law)
    return Curve(pooled, "power law" if is_law else "level", fit, forecasts, needed)


def pool_parts(parts: Mapping[str, Sequence[Measured]]) -> tuple[Measured, ...]:
    """One point for each part of the folds (the whole, a half, a quarter), at the rounded mean of its sizes.

    Folds of equal share differ by a row or two. Taken for sizes of their own, each would be weighed by the variance of
    its own rate, so that a lucky fold weighs most; and of a level only the largest would count.
    """
    return pool(
        [
            Measured(round(fmean(each.examples for each in part)), one.wrong, one.total)
            for part in parts.values()
            for one in part
        ]
    )


def pool(points: Sequence[Measured]) -> tuple[Measured, ...]:
    """One point for each size, rising."""
    sizes = sorted({one.examples for one in points})
    at = {size: [one for one in points if one.examples == size] for size in sizes}
    return tuple(
        Measured(size, sum(one.wrong for one in at[size]), sum(one.total for one in at[size])) for size in sizes
    )


def fit_errors(points: Sequence[Measured]) -> tuple[Fit, bool]:
    """The curve of pooled points, and whether it is a law: else the level of the errors of the largest sizes.

    A law needs three sizes, and errors that fall from the first to the last. Errors that rise on the way are pooled with
    their neighbours for the level (isotonic regression), so that one lucky size promises nothing.
    """
    if len(points) < 3 or _rate(points[0]) <= _rate(points[-1]):
        return Fit(_levels(points)[-1], 0.0, 1.0), False
    fits = [_at_exponent(points, exponent) for exponent in _EXPONENTS]
    best = min(fits, key=lambda found: found[0])[1]
    return (best, True) if best.b > 0 else (Fit(_levels(points)[-1], 0.0, 1.0), False)


def _rate(point: Measured) -> float:
    return point.wrong / point.total


def _variance(point: Measured) -> float:
    """Of a rate, by Agresti and Coull's centre: a rate of 0 is not sure either."""
    centre = (point.wrong + 2) / (point.total + 4)
    return centre * (1 - centre) / (point.total + 4)


def _at_exponent(points: Sequence[Measured], exponent: float) -> tuple[float, Fit]:
    """The weighted squares that are left, and the best curve of this exponent with a and b of 0 or more."""
    xs = [point.examples**-exponent for point in points]
    ys, ws = [_rate(point) for point in points], [1 / _variance(point) for point in points]
    total = math.fsum(ws)
    mean_x = math.fsum(w * x for w, x in zip(ws, xs, strict=True)) / total
    mean_y = math.fsum(w * y for w, y in zip(ws, ys, strict=True)) / total
    spread = math.fsum(w * (x - mean_x) ** 2 for w, x in zip(ws, xs, strict=True))
    slope = math.fsum(w * (x - mean_x) * (y - mean_y) for w, x, y in zip(ws, xs, ys, strict=True)) / spread
    slope = max(0.0, slope)
    level = mean_y - slope * mean_x
    if level < 0:
        level = 0.0
        slope = math.fsum(w * x * y for w, x, y in zip(ws, xs, ys, strict=True)) / math.fsum(
            w * x * x for w, x in zip(ws, xs, strict=True)
        )
    left = math.fsum(w * (level + slope * x - y) ** 2 for w, x, y in zip(ws, xs, ys, strict=True))
    return left, Fit(level, slope, exponent)


def _levels(points: Sequence[Measured]) -> list[float]:
    """Error rates that never rise with the size: pooled adjacent violators, weighed by answers."""
    blocks: list[tuple[int, int, int]] = []  # wrong, total, sizes
    for point in points:
        blocks.append((point.wrong, point.total, 1))
        while len(blocks) > 1 and blocks[-1][0] / blocks[-1][1] > blocks[-2][0] / blocks[-2][1]:
            (wrong, total, sizes), (more, many, most) = blocks[-2], blocks[-1]
            blocks[-2:] = [(wrong + more, total + many, sizes + most)]
    return [wrong / total for wrong, total, sizes in blocks for _ in range(sizes)]


def _drawn(points: Sequence[Measured], fit: Fit, dice: random.Random, *, is_law: bool) -> Fit:
    """The curve of counts drawn from the fitted rates; a level is drawn as a level."""
    rates = [fit.error(point.examples) for point in points]
    if is_law:
        counts = [
            _binomial(dice, point.total, _unsure(rate, point.total)) for point, rate in zip(points, rates, strict=True)
        ]
        drawn = [Measured(point.examples, wrong, point.total) for point, wrong in zip(points, counts, strict=True)]
        return fit_errors(drawn)[0]
    last = points[-1]
    return Fit(_binomial(dice, last.total, _unsure(fit.a, last.total)) / last.total, 0.0, 1.0)


def _unsure(rate: float, total: int) -> float:
    """A rate a little nearer to a half, so that an error never seen may be drawn."""
    return (rate * total + 0.5) / (total + 1)


def _binomial(dice: random.Random, total: int, rate: float) -> int:
    """A draw; by the normal approximation where it is as good (Python 3.12 has one of its own, and 3.11 is served, too)."""
    variance = total * rate * (1 - rate)
    if variance > _NORMAL_ABOVE:
        return min(total, max(0, round(dice.gauss(total * rate, math.sqrt(variance)))))
    return sum(dice.random() < rate for _ in range(total))


def _forecast(size: int, fit: Fit, draws: Sequence[Fit], bar: float | None) -> Forecast:
    found = sorted(1 - one.error(size) for one in draws)
    reach = None if bar is None else fmean(one >= bar - 1e-9 for one in found)
    ends = found[round(0.025 * (len(found) - 1))], found[round(0.975 * (len(found) - 1))]
    accuracy = 1 - fit.error(size)
    return Forecast(size, accuracy, (min(ends[0], accuracy), max(ends[1], accuracy)), reach)


def _needed(fit: Fit, draws: Sequence[Fit], present: int, bar: float, now: Forecast, *, is_law: bool) -> Needed:
    """`present` examples may be enough; where the draws disagree about whether any number is, nobody can say."""
    if now.accuracy >= bar - 1e-9:
        return Needed("reached", present)
    if not is_law:
        return Needed("cannot say")
    wanted = sorted(one.examples_for(1 - bar) for one in draws)
    farthest = FARTHEST * present
    within = fmean(one <= farthest for one in wanted)
    best = fit.examples_for(1 - bar)
    if within <= _UNLIKELY and best > farthest:
        return Needed("out of reach")
    if within < _LIKELY or best > farthest:
        return Needed("cannot say")
    low, high = wanted[round(0.1 * (len(wanted) - 1))], wanted[round(0.9 * (len(wanted) - 1))]
    ends = max(present, math.ceil(low)), math.ceil(high) if high <= farthest else None
    return Needed("number", math.ceil(best), *ends)
