"""The gate's error rates: how often it fails a variant compared with itself, and how often it finds a true loss.

Simulated gates are decided by the code that decides real ones. "Identical" variants differ by luck alone: each case is
discordant with one probability, and then broken or mended by a coin. The regression rule is sound where it fails at
most α of these. Everything is seeded: the same code gives the same figures.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from suites.bootstrap import UNITS, Cluster, mean_difference
from suites.gate import decide_all
from suites.judge import Status
from suites.policy import GateSettings
from suites.results import case_status
from suites.verdicts import GateInput, Repeats, Side, worst

TRIALS = 2000
CASES = (60, 200, 500)
DISCORDANT = (0.05, 0.1, 0.2)
LOSSES = (0.02, 0.05, 0.1)
REPEATS = 3
RESAMPLES = 1000  # a tenth of a gate's: 16,000 comparisons in minutes
SETTINGS = GateSettings()

Draw = Callable[[random.Random], GateInput]


def measure() -> dict[str, Any]:
    """Shares of simulated gates by verdict, `TRIALS` of each kind."""
    return {
        "trials": TRIALS,
        "rule": {"alpha": SETTINGS.alpha, "margin": SETTINGS.margin},
        "identical": list(identical()),
        "identical_and_flaky": list(flaky()),
        "identical_on_scores": list(on_scores()),
        "worse": list(worse()),
    }


def identical() -> Iterator[dict[str, Any]]:
    """A variant against itself, alone and in a gate of three suites."""
    for cases in CASES:
        for discordant in DISCORDANT:
            for suites in (1, 3):
                about = {"cases": cases, "discordant": discordant, "suites": suites}
                yield {**about, **verdicts(drawn_pairs(cases, discordant, 0.0), suites, str(about))}


def worse() -> Iterator[dict[str, Any]]:
    """A variant that truly loses some points: the share that fails is the power of the rule."""
    for cases in CASES:
        for loss in LOSSES:
            for discordant in (d for d in (0.1, 0.2) if d >= loss):
                about = {"cases": cases, "loss": loss, "discordant": discordant}
                yield {**about, **verdicts(drawn_pairs(cases, discordant, loss), 1, str(about))}


def flaky() -> Iterator[dict[str, Any]]:
    """A variant against itself where cases pass by chance, each its own, and are repeated: quarantine and all."""
    for cases in CASES[:2]:
        about = {"cases": cases, "repeats": REPEATS}
        yield {**about, **verdicts(drawn_repeats(cases), 1, str(about))}


def on_scores() -> Iterator[dict[str, Any]]:
    """A variant against itself by scores: how often a loss beyond the margin is called significant.

    `bootstrap_alone` is what the interval by itself would call so.
    """
    for cases in (20, 60):
        for share in (0.2, 1.0):
            for kind, size in (("even", lambda rng: rng.random()), ("few large", _few_large)):
                about = {"cases": cases, "discordant": share, "sizes": kind}
                yield {**about, **_lost(about, size)}


def verdicts(draw: Draw, suites: int = 1, seed: str = "", trials: int = TRIALS) -> dict[str, float]:
    """The share of each verdict among `trials` gates of as many suites."""
    rng = random.Random(seed)  # noqa: S311 - a seeded simulation holds no secret
    found: Counter[str] = Counter()
    for _ in range(trials):
        decided = decide_all([draw(rng) for _ in range(suites)])
        found[worst(evidence.decision.verdict for evidence in decided)] += 1
    return {verdict: found[verdict] / trials for verdict in ("fail", "inconclusive", "pass")}


def drawn_pairs(cases: int, discordant: float, loss: float) -> Draw:
    """Two runs of one outcome a case, whose true difference is `loss`."""

    def draw(rng: random.Random) -> GateInput:
        lots = [rng.random() for _ in range(cases)]
        broken, changed = (discordant + loss) / 2, discordant
        now: list[Status] = ["failed" if lot < broken else "passed" for lot in lots]
        before: list[Status] = ["failed" if broken <= lot < changed else "passed" for lot in lots]
        return _gate(_side(now), _side(before))

    return draw


def drawn_repeats(cases: int) -> Draw:
    """Two runs of `REPEATS` outcomes a case, each of which passes with a chance of its own."""

    def draw(rng: random.Random) -> GateInput:
        chances = [rng.choice((0.5, 0.8, 0.95, 1.0)) for _ in range(cases)]
        return _gate(_repeated(rng, chances), _repeated(rng, chances))

    return draw


def _gate(candidate: Side, baseline: Side) -> GateInput:
    return GateInput(suite="simulated", candidate=candidate, baseline=baseline, settings=SETTINGS)


def _side(outcomes: Iterable[Status]) -> Side:
    return Side(variant="v@1+m", outcomes={f"c{number}": status for number, status in enumerate(outcomes)})


def _repeated(rng: random.Random, chances: Sequence[float]) -> Side:
    repeats = {}
    for number, chance in enumerate(chances):
        passed = sum(rng.random() < chance for _ in range(REPEATS))
        repeats[f"c{number}"] = Repeats(passed, REPEATS - passed)
    outcomes = {i: case_status({"passed": found.passed}, REPEATS) for i, found in repeats.items()}
    return Side(variant="v@1+m", outcomes=outcomes, repeats=repeats)


def _few_large(rng: random.Random) -> float:
    return 1.0 if rng.random() < 0.1 else 0.05


def _lost(about: dict[str, Any], size: Callable[[random.Random], float]) -> dict[str, float]:
    rng = random.Random(str(about))  # noqa: S311 - a seeded simulation holds no secret
    fail = alone = 0
    for _ in range(TRIALS):
        values = [rng.choice((-1, 1)) * size(rng) * (rng.random() < about["discordant"]) for _ in range(about["cases"])]
        clusters = [Cluster(round(value * UNITS), 1) for value in values]
        found = mean_difference(clusters, rng.randrange(2**40), resamples=RESAMPLES, confidence=1 - 2 * SETTINGS.alpha)
        fail += -found.mean > SETTINGS.margin and found.p_loss <= SETTINGS.alpha
        alone += -found.mean > SETTINGS.margin and found.high < 0
    return {"fail": fail / TRIALS, "bootstrap_alone": alone / TRIALS}
