"""Two runs of one suite, case by case: what broke, what was mended, by how much scores moved, and how sure that is.

A case whose repeats disagree on the baseline is quarantined: it counts for no side, and is named. The rule looks at
the baseline alone, since a candidate must not be excused for what it has made flaky, and never at `must_pass` cases.
That leaves cases on which the baseline happened to be unanimous, which of itself looks like a loss; so what is claimed
must hold with the quarantined cases as well: the smaller loss counts, and the larger p-value. Quarantine can take a
failure away, and never adds one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from suites.bootstrap import RESAMPLES, UNITS, Cluster, mean_difference
from suites.statistics import cases_to_decide, mcnemar_p
from suites.verdicts import GateInput, Pairs, Quarantined, Repeats, ScoreComparison, Side


@dataclass(frozen=True, slots=True)
class Tested:
    """Both sides over some cases. `loss` is (b − c)/n, or of the mean score where the gate is on scores."""

    pairs: Pairs
    loss: float
    p_loss: float
    p_gain: float
    scores: ScoreComparison | None = None

    def cases_to_show(self, alpha: float, power: float = 0.8) -> int | None:
        """How many cases would show a loss of this size; None where nothing was lost."""
        if self.scores is None:
            return cases_to_decide(len(self.pairs.broken), len(self.pairs.mended), self.pairs.paired, alpha, power)
        if self.loss <= 0:
            return None
        deviates = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(power)
        return math.ceil(self.pairs.paired * (deviates * self.scores.error / self.loss) ** 2)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison that a verdict rests on: `without` the quarantined cases, and with `every` case."""

    without: Tested
    every: Tested
    quarantined: tuple[Quarantined, ...] = ()

    @property
    def loss(self) -> float:
        return min(self.without.loss, self.every.loss)

    @property
    def gain(self) -> float:
        return min(-self.without.loss, -self.every.loss)

    @property
    def p_loss(self) -> float:
        return max(self.without.p_loss, self.every.p_loss)

    @property
    def p_gain(self) -> float:
        return max(self.without.p_gain, self.every.p_gain)

    @property
    def doubtful(self) -> Tested:
        """The one of the two that shows a loss less."""
        return max(self.without, self.every, key=lambda tested: tested.p_loss)


def compare(given: GateInput) -> Comparison | None:
    """Both sides of a gate; None without a baseline."""
    if given.baseline is None:
        return None
    quarantined = quarantine(given, given.baseline)
    every = paired_ids(given.candidate, given.baseline)
    tested = paired_test(given, given.baseline, every)
    if not quarantined:
        return Comparison(tested, tested)
    left_out = {case.case_id for case in quarantined}
    without = paired_test(given, given.baseline, [case_id for case_id in every if case_id not in left_out])
    return Comparison(without, tested, quarantined)


def quarantine(given: GateInput, baseline: Side) -> tuple[Quarantined, ...]:
    """The paired cases that the baseline is not sure of, in the order of their ids."""
    return tuple(
        Quarantined(
            case_id=case_id,
            title=given.titles.get(case_id, ""),
            baseline=baseline.repeats[case_id],
            candidate=given.candidate.repeats.get(case_id, Repeats()),
        )
        for case_id in paired_ids(given.candidate, baseline)
        if case_id not in given.must_pass and baseline.repeats.get(case_id, Repeats()).disagree
    )


def paired_ids(candidate: Side, baseline: Side) -> list[str]:
    """The cases that both sides have, none of them skipped; sorted, so that evidence says the same however stored."""
    return [
        case_id
        for case_id, status in sorted(candidate.outcomes.items())
        if status != "skipped" and baseline.outcomes.get(case_id, "skipped") != "skipped"
    ]


def pair(candidate: Side, baseline: Side, case_ids: Collection[str] | None = None) -> Pairs:
    """What changed among these cases, by default all that both sides have. Errored is not passed."""
    both = paired_ids(candidate, baseline) if case_ids is None else case_ids
    before, now = baseline.outcomes, candidate.outcomes
    return Pairs(
        paired=len(both),
        broken=tuple(i for i in both if before[i] == "passed" and now[i] != "passed"),
        mended=tuple(i for i in both if before[i] != "passed" and now[i] == "passed"),
    )


def paired_test(given: GateInput, baseline: Side, case_ids: Sequence[str]) -> Tested:
    """The paired test over these cases: exact on passes, the bootstrap on scores."""
    pairs = pair(given.candidate, baseline, case_ids)
    if given.settings.on == "score":
        return _test_scores(given, baseline, pairs, case_ids)
    broken, mended = len(pairs.broken), len(pairs.mended)
    return Tested(pairs, pairs.loss, mcnemar_p(broken, mended), mcnemar_p(mended, broken))


def _test_scores(given: GateInput, baseline: Side, pairs: Pairs, case_ids: Sequence[str]) -> Tested:
    now, before = (_in_units(side.scores, case_ids) for side in (given.candidate, baseline))
    differences = {case_id: now[case_id] - before[case_id] for case_id in case_ids}
    clusters, seed = clusters_of_differences(differences, given.clusters), seed_of(differences, given.clusters)
    found = mean_difference(clusters, seed)
    cases = max(1, len(case_ids))
    scores = ScoreComparison(
        candidate=sum(now.values()) / cases / UNITS,
        baseline=sum(before.values()) / cases / UNITS,
        difference=found.mean,
        ci95=(found.low, found.high),
        error=found.error,
        clusters=len(clusters),
        resamples=RESAMPLES,
        seed=seed,
    )
    return Tested(pairs, -found.mean, found.p_loss, found.p_gain, scores)


def _in_units(scores: Mapping[str, float], case_ids: Sequence[str]) -> dict[str, int]:
    """Scores in billionths; a case that has none errored, which is worth nothing."""
    return {case_id: round(scores.get(case_id, 0.0) * UNITS) for case_id in case_ids}


def clusters_of_differences(differences: Mapping[str, int], names: Mapping[str, str]) -> list[Cluster]:
    """The differences by cluster; a case that no cluster is named for stands alone."""
    members: dict[tuple[bool, str], list[int]] = {}
    for case_id, difference in differences.items():
        members.setdefault((case_id in names, names.get(case_id, case_id)), []).append(difference)
    return [Cluster(sum(found), len(found)) for _, found in sorted(members.items())]


def seed_of(differences: Mapping[str, int], names: Mapping[str, str]) -> int:
    """A number made of the scores themselves: the same scores give the same figures, and nobody can choose it."""
    text = json.dumps([sorted(differences.items()), sorted((i, names[i]) for i in differences if i in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])
