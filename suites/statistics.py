"""The exact statistics behind every verdict, by `math` alone: importing scipy costs more than a suite's run.

Counts are ints, shares and probabilities floats in [0, 1]. scipy is the oracle of the tests.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from statistics import NormalDist

from prompts.errors import BadInput

_EXACT_UP_TO = 4096  # trials: beyond, whole numbers of thousands of digits cost more than their last digits are worth
EXACT_POWER_UP_TO = 2000  # cases
_SORTED_AT_ONCE = 8192  # values
_RANGES = 1024
_NEGLIGIBLE = 1e-18  # of a binomial's mass: terms below it cannot change a sum's last digit


def wilson_interval(passed: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for the share behind `passed` of `total` (Wilson 1927, without continuity correction).

    Nothing tried excludes nothing: (0.0, 1.0) where `total` is 0. Raises BadInput unless 0 ≤ passed ≤ total.
    """
    if not 0 <= passed <= total or not 0 < confidence < 1:
        raise BadInput(f"no interval for {passed} of {total} at confidence {confidence}")
    if total == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    share = passed / total
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = math.sqrt(z2 * (share * (1 - share) / total + z2 / (4 * total * total))) / (1 + z2 / total)
    low = 0.0 if passed == 0 else max(0.0, centre - half)  # rounding must not move the ends that are known
    return low, 1.0 if passed == total else min(1.0, centre + half)


def binomial_at_least(successes: int, trials: int, probability: float = 0.5) -> float:
    """P(Bin(trials, probability) ≥ successes): the upper tail, `successes` itself included."""
    if trials < 0 or not 0 <= probability <= 1:
        raise BadInput(f"no binomial with {trials} trials and probability {probability}")
    if successes <= 0:
        return 1.0
    if successes > trials:
        return 0.0
    if probability == 0.5 and trials <= _EXACT_UP_TO:
        return _fair_tail(successes, trials)
    return _any_tail(successes, trials, probability)


def _fair_tail(successes: int, trials: int) -> float:
    """The upper tail of a fair coin in whole numbers; the division is the only rounding."""
    term = ways = math.comb(trials, successes)
    for heads in range(successes, trials):
        term = term * (trials - heads) // (heads + 1)
        ways += term
    return ways / (1 << trials)


def _any_tail(successes: int, trials: int, probability: float) -> float:
    """The upper tail by the recurrence of its terms; relative error below 1e-9 up to a million trials."""
    if probability in (0.0, 1.0):
        return probability
    if successes <= trials * probability:  # sum the shorter side
        return 1.0 - _any_tail(trials - successes + 1, trials, 1 - probability) if successes > 0 else 1.0
    odds = probability / (1 - probability)
    term = _binomial_mass(successes, trials, probability)
    terms = [term]
    for hits in range(successes, trials):
        term *= (trials - hits) / (hits + 1) * odds
        if term < terms[0] * _NEGLIGIBLE:
            break
        terms.append(term)
    return min(1.0, math.fsum(terms))


def _binomial_mass(successes: int, trials: int, probability: float) -> float:
    failures = trials - successes
    ways = math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(failures + 1)
    return math.exp(ways + successes * math.log(probability) + failures * math.log1p(-probability))


def mcnemar_p(broken: int, mended: int) -> float:
    """Exact one-sided McNemar: the chance of at least `broken` of the discordant pairs by a fair coin.

    P(Bin(b + c, ½) ≥ b), and 1 where no pair is discordant. Swap the arguments to test for a gain.
    """
    if broken < 0 or mended < 0:
        raise BadInput(f"counts of pairs cannot be negative: {broken} broken, {mended} mended")
    return binomial_at_least(broken, broken + mended) if broken + mended else 1.0


def mcnemar_two_sided(broken: int, mended: int) -> float:
    """Exact two-sided McNemar: twice the smaller one-sided p-value, at most 1."""
    return min(1.0, 2 * min(mcnemar_p(broken, mended), mcnemar_p(mended, broken)))


def paired_interval(both: int, broken: int, mended: int, neither: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of the difference of two paired shares, after minus before: (mended − broken)/n.

    `both` and `neither` count the pairs that passed, or did not pass, on both sides. Newcombe's square-and-add interval of
    Wilson's bounds with the correlation of the pairs (Statistics in Medicine 17, 1998, method 10).
    """
    pairs = both + broken + mended + neither
    if pairs == 0:
        raise BadInput("no pairs: there is no difference to give an interval of")
    before, after = (both + broken) / pairs, (both + mended) / pairs
    low_before, high_before = wilson_interval(both + broken, pairs, confidence)
    low_after, high_after = wilson_interval(both + mended, pairs, confidence)
    phi = _correlation(both, broken, mended, neither)

    def reach(after_side: float, before_side: float) -> float:
        return math.sqrt(max(0.0, after_side**2 - 2 * phi * after_side * before_side + before_side**2))

    down = reach(after - low_after, high_before - before)
    up = reach(high_after - after, before - low_before)
    return max(-1.0, after - before - down), min(1.0, after - before + up)


def _correlation(both: int, broken: int, mended: int, neither: int) -> float:
    """Newcombe's φ, with a correction for continuity where it is positive; 0 where one side is all of a kind."""
    margins = (both + broken) * (mended + neither) * (both + mended) * (broken + neither)
    if margins == 0:
        return 0.0
    product, half = both * neither - broken * mended, (both + broken + mended + neither) / 2
    return (max(0.0, product - half) if product > 0 else product) / math.sqrt(margins)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given (Holm 1979): reject each that is ≤ α, with family error ≤ α."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted


def alpha_at_look(alpha: float, look: int) -> float:
    """α_j = α·6/(π²j²), what the j-th look at one held-out set may spend: Σ 1/j² = π²/6, so all looks spend α."""
    if look < 1:
        raise BadInput(f"looks count from 1, not {look}")
    return alpha * 6 / (math.pi**2 * look**2)


def alpha_left(alpha: float, looks: int) -> float:
    """What remains of α after `looks` looks, each charged by `alpha_at_look`."""
    return max(0.0, alpha - math.fsum(alpha_at_look(alpha, look) for look in range(1, looks + 1)))


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The nearest-rank percentile: the smallest value with at least `percent`% of the values at or below it.

    Always one of the values, never between two; None where there are none.
    """
    if not 0 < percent <= 100:
        raise BadInput(f"a percentile is above 0 and at most 100, not {percent}")
    if not values:
        return None
    rank = math.ceil(round(percent * len(values) / 100, 9))  # 55 % of 100 must not become rank 56 by rounding
    return _ranked(values, rank)


def _ranked(values: Sequence[float], rank: int) -> float:
    """The value of a rank, counted from 1.

    Of many, those of the same small range are looked at alone: a sorted copy of a hundred thousand would take four times
    the memory that they take.
    """
    while len(values) > _SORTED_AT_ONCE and (low := min(values)) < (high := max(values)):
        scale = _RANGES / (high - low)
        if not 0 < scale < math.inf:
            break
        counts = [0] * (_RANGES + 1)
        for value in values:
            counts[int((value - low) * scale)] += 1
        number = next(number for number, upto in enumerate(accumulate(counts)) if upto >= rank)
        rank -= sum(counts[:number])
        values = array("d", (value for value in values if int((value - low) * scale) == number))
    return sorted(values)[rank - 1]


def cases_to_decide(broken: int, mended: int, paired: int, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """How many paired cases would show a regression of the observed size, with probability `power`.

    Takes the observed shares b/n and c/n for the true ones. None where nothing was broken on balance: no number of
    cases would show a regression.
    """
    if paired <= 0 or broken <= mended:
        return None
    return cases_for_power((broken + mended) / paired, (broken - mended) / paired, alpha, power)


@lru_cache(maxsize=4096)
def cases_for_power(discordant: float, difference: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """The least number of paired cases at which the exact one-sided McNemar test has this power.

    `discordant` is the share of cases whose outcome differs between the variants, `difference` how much larger one
    direction is than the other, as a share of all cases. Above 2,000 cases by Connor's formula (Biometrics 43, 1987),
    which comes within some percent of it. Raises BadInput where the shares contradict each other.
    """
    _check_design(discordant, difference, alpha, power)
    close = _connor_cases(discordant, difference, alpha, power)
    if close > EXACT_POWER_UP_TO:
        return close
    low, high = 0, close * 2 + 8
    while high - low > 1:
        middle = (low + high) // 2
        if power_of(middle, discordant, difference, alpha) >= power:
            high = middle
        else:
            low = middle
    return high


def power_of(cases: int, discordant: float, difference: float, alpha: float = 0.05) -> float:
    """The chance that the exact one-sided McNemar test shows a true `difference` with this many paired cases.

    Shares as in `cases_for_power`. Each case is discordant with one probability, and then one way with another. Exact
    up to 2,000 cases, above by Connor's approximation.
    """
    _check_design(discordant, difference, alpha, 0.5)
    if cases > EXACT_POWER_UP_TO:
        return _connor_power(cases, discordant, difference, alpha)
    share = min(1.0, (discordant + difference) / (2 * discordant))
    total = 0.0
    spread = 8 * math.sqrt(cases * discordant * (1 - discordant)) + 8
    first = max(0, math.floor(cases * discordant - spread))
    last = min(cases, math.ceil(cases * discordant + spread))
    for pairs in range(first, last + 1):
        mass = float(pairs == cases) if discordant >= 1 else _binomial_mass(pairs, cases, discordant)
        total += mass * binomial_at_least(_critical(pairs, alpha), pairs, share)
    return min(1.0, total)


def _check_design(discordant: float, difference: float, alpha: float, power: float) -> None:
    for name, value in (("alpha", alpha), ("power", power)):
        if not 0 < value < 1:
            raise BadInput(f"{name} lies between 0 and 1, not at {value:g}", param=name)
    if not 0 < difference <= 1:
        raise BadInput(f"a difference lies above 0 and is at most 1 (5 points are 0.05), not {difference:g}")
    if not difference - 1e-12 <= discordant <= 1:
        raise BadInput(
            f"a difference of {difference:g} needs at least that share of discordant cases, not {discordant:g}:"
            f" give shares from {difference:g} to 1"
        )


def _connor_cases(discordant: float, difference: float, alpha: float, power: float) -> int:
    z_alpha, z_power = NormalDist().inv_cdf(1 - alpha), NormalDist().inv_cdf(power)
    spread = max(0.0, discordant - difference**2)
    return math.ceil(((z_alpha * math.sqrt(discordant) + z_power * math.sqrt(spread)) / difference) ** 2)


def _connor_power(cases: int, discordant: float, difference: float, alpha: float) -> float:
    spread = math.sqrt(max(0.0, discordant - difference**2))
    excess = difference * math.sqrt(cases) - NormalDist().inv_cdf(1 - alpha) * math.sqrt(discordant)
    return NormalDist().cdf(excess / spread) if spread else float(excess >= 0)


@lru_cache(maxsize=16_384)
def _critical(pairs: int, alpha: float) -> int:
    """The least number of broken among `pairs` discordant ones that is significant; pairs + 1 where none is."""
    start = min(pairs, math.ceil(pairs / 2 + 10 * math.sqrt(pairs)))  # beyond ten √pairs lies less than 1e-80
    tail, term = 0.0, _binomial_mass(start, pairs, 0.5)
    for broken in range(start, -1, -1):
        tail += term
        if tail > alpha:
            return broken + 1
        term *= broken / (pairs - broken + 1)
    return 0
