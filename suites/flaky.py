"""Whether the cases that quarantine leaves out got worse: an exact test on their repeats.

A case is quarantined because the baseline's own repeats disagree, so its baseline passed at least one repeat and
failed at least one. That selection alone makes outcomes look worse, or better, the second time: the McNemar test does
not hold on them. Given how many of both sides' repeats passed, though, an unchanged case spreads them over the two
sides as a draw without replacement does (the hypergeometric law of Fisher's exact test), cut to what quarantine can
see: 1 … r − 1 passes on the baseline. The baseline's passes are added up over the cases, and the p-value is the exact
chance of as many or more. What errored on either side is in neither count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb, fsum

from suites.verdicts import GateInput, Quarantined, Repeats

_ROUNDING = 1e-12  # shares are decimal fractions


@dataclass(frozen=True, slots=True)
class FlakyDrop:
    """Repeats of the quarantined cases: how many passed of how many judged, on each side.

    `lost_cases` is the sum over the cases of the share of repeats that pass no longer; `p_value` is one-sided.
    """

    cases: int
    passed_before: int
    judged_before: int
    passed_now: int
    judged_now: int
    lost_cases: float
    p_value: float

    def in_words(self) -> str:
        """The counts of both sides, as a reason says them."""
        before = f"{self.passed_before} of {self.judged_before}"
        return f"passed {before} repeats on the baseline and {self.passed_now} of {self.judged_now} on the candidate"


def flaky_drop(cases: Sequence[Quarantined]) -> FlakyDrop:
    """How the repeats of quarantined cases moved; those without a judged repeat on the candidate say nothing."""
    told = [case for case in cases if _judged(case.candidate)]
    lost = (c.baseline.passed / _judged(c.baseline) - c.candidate.passed / _judged(c.candidate) for c in told)
    return FlakyDrop(
        cases=len(told),
        passed_before=sum(case.baseline.passed for case in told),
        judged_before=sum(_judged(case.baseline) for case in told),
        passed_now=sum(case.candidate.passed for case in told),
        judged_now=sum(_judged(case.candidate) for case in told),
        lost_cases=fsum(lost),
        p_value=_p_value(told),
    )


def flaky_doubts(given: GateInput, cases: Sequence[Quarantined], paired: int, alpha: float) -> Iterator[str]:
    """Quarantined cases are in no comparison; that they got worse, beyond the margin and significantly, is a doubt.

    The loss is a share of all `paired` cases. Evidence of the first edition of the rules knows no such doubt.
    """
    if given.rules < 2 or not cases:
        return
    drop = flaky_drop(cases)
    loss = drop.lost_cases / paired
    if loss > given.settings.margin + _ROUNDING and drop.p_value <= alpha:
        told = f"the {drop.cases} cases left out as flaky got worse: they {drop.in_words()}"
        fix = "look at their answers, and mend what makes them flaky"
        yield f"{told}, a loss of {loss:.1%} of all cases, p = {drop.p_value:.2g} ≤ {alpha:.2g}: {fix}"


def _judged(repeats: Repeats) -> int:
    return repeats.passed + repeats.failed


def _p_value(cases: Sequence[Quarantined]) -> float:
    """P(the baseline has as many of the passes, or more), every case unchanged. 1 where there is no case."""
    seen = sum(case.baseline.passed for case in cases)
    chances = [1.0]  # of each sum of the baseline's passes
    for case in cases:
        chances = _convolved(chances, _law(case.baseline, case.candidate))
    return min(1.0, fsum(chances[seen:]))


def _law(baseline: Repeats, candidate: Repeats) -> list[float]:
    """The chance of each number of passes on the baseline, given both sides' passes and that its repeats disagree."""
    passed, before, now = baseline.passed + candidate.passed, _judged(baseline), _judged(candidate)
    ways = [comb(before, k) * comb(now, passed - k) if 0 < k < before and k <= passed else 0 for k in range(before)]
    return [each / sum(ways) for each in ways]


def _convolved(first: Sequence[float], second: Sequence[float]) -> list[float]:
    result = [0.0] * (len(first) + len(second) - 1)
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            result[i + j] += one * other
    return result
