"""Evidence that may be looked at after every request: e-processes for two variants that share traffic by chance.

Each unit (a person, or a request of nobody) falls to the candidate with probability π, the candidate's share, and its
outcome is bad or good. The rates of bad outcomes are c for the candidate and i for the incumbent, and may change with time. An
e-process starts at 1 and, whatever rule stops it, is at most 1 on average while its null hypothesis holds; so it
ever reaches 1/α with probability at most α (Ville 1939; Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe
anytime-valid inference", 2023). All three here rest on the split being by chance, not on any model of the outcomes:

* `harm`, null c ≤ i: among bad outcomes the candidate's share is then at most π, whatever else happens to both alike.
* `no_harm`, null c ≥ i + margin: a bet on the mean of the unit's bounded, weighted outcome (Waudby-Smith and Ramdas, "Estimating
  means of bounded random variables by betting", 2024; the same for off-policy weights: Waudby-Smith et al., 2022).
* `broken_split`, null: units fall to the candidate with probability π (Lindon and Malek, "Anytime-valid inference for multinomial
  count data", 2022).

Each is a function of counts alone, so that whoever has the counts can compute it again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

MOST = 1e300  # what an e-value is shown as at most: JSON has no infinity
BLOCK = 10  # bad outcomes of a first block: harm may begin at each block's start
_ALIKE = 32  # blocks of one size; the next are twice as large, so that there are never many
_RATIOS = ((3.0, 0.1), (6.0, 0.15), (12.0, 0.35), (40.0, 0.4))  # c/i bet on, and how much: most on clear harm
_BETS = (0.95, 0.8, 0.6, 0.4, 0.2, 0.1)  # shares of the largest bet that cannot go below nothing, alike
_LARGEST_LOG = 690.0  # just below that of MOST
_SPREAD = 0.2  # the prior of a broken split: its standard deviation as a share of π


def harm(blocks: Sequence[tuple[int, int]], share: float) -> float:
    """Evidence that the candidate does worse, from its bad outcomes and the incumbent's, in blocks as they came.

    `share` is π, between 0 and 1. Half of the weight is on harm from the first block on, the rest on harm that begins with a
    later one, so that a long good time before does not hide it.
    """
    rates = [(share * ratio / (share * ratio + 1 - share), weight) for ratio, weight in _RATIOS]
    bets = [(math.log(rate / share), math.log((1 - rate) / (1 - share)), weight) for rate, weight in rates]
    if not blocks:
        return 1.0
    total, candidate, incumbent = 0.5 / len(blocks), 0, 0  # first what is bet on harm that begins later still
    for number in range(len(blocks), 0, -1):
        candidate += blocks[number - 1][0]
        incumbent += blocks[number - 1][1]
        grown = 0.0
        for up, down, weight in bets:
            grown += weight * math.exp(min(candidate * up + incumbent * down, _LARGEST_LOG))
        total += _start_weight(number) * grown
    return min(total, MOST)


def block_size(number: int) -> int:
    """How many bad outcomes the block of this number holds, from 1."""
    return BLOCK << ((number - 1) // _ALIKE)


def _start_weight(number: int) -> float:
    """Of harm that begins with the block of this number, from 1: ½, then ½·1/(1·2), ½·1/(2·3) …, which is 1 in all.

    What is left behind block n is ½·1/n.
    """
    return 0.5 if number == 1 else 0.5 / ((number - 1) * number)


def no_harm(candidate: tuple[int, int], incumbent: tuple[int, int], share: float, margin: float) -> float:
    """Evidence that the candidate is worse by less than `margin` (in shares of 1); the counts are (good, bad).

    With X = bad/π for the candidate's units and −bad/(1−π) for the others, c − i is the mean of X. Each unit's factor
    is 1 + λ(margin − X), for bets λ at which that is never below nothing.
    """
    good = candidate[0] + incumbent[0]
    largest = 1 / (1 / share - margin)
    total = 0.0
    for part in _BETS:
        bet = part * largest
        logs = good * math.log1p(bet * margin)
        logs += candidate[1] * math.log1p(bet * (margin - 1 / share))
        logs += incumbent[1] * math.log1p(bet * (margin + 1 / (1 - share)))
        total += _exp(logs) / len(_BETS)
    return min(total, MOST)


def broken_split(candidate: int, incumbent: int, share: float) -> float:
    """Evidence that units do not fall to the candidate with probability `share`: a Beta mixture around it, over it."""
    weight = (1 - share) / (share * _SPREAD**2)
    prior = (share * weight, (1 - share) * weight)
    logs = _log_beta(prior[0] + candidate, prior[1] + incumbent) - _log_beta(*prior)
    logs -= candidate * math.log(share) + incumbent * math.log1p(-share)
    return min(_exp(logs), MOST)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _exp(log: float) -> float:
    return math.exp(min(log, _LARGEST_LOG))
