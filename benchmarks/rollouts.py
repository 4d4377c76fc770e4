"""How often rollouts err, and how fast they turn back: simulated traffic, counted and judged by the code that moves real ones.

Requests come at a steady rate, each from nobody in particular, and fall to a variant by chance; each variant fails at
a rate of its own. The log is looked at as often as a service looks at it. Everything is seeded: the same code gives the
same figures.
"""

from __future__ import annotations

import math
import random
import statistics
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from service.rollouts.counting import StepCount
from service.store.rollouts import OutcomeRow
from suites.eprocess import BLOCK
from suites.rollouts import PROMOTE_AT, SPLIT_AT, Rules, StepInput, decide_step

TRIALS = 2_000
PROCESSES = 2
REQUESTS_S = 50
LOOK_S = 0.5
WRITE_S = 0.2  # an outcome waits for as long, at most, before the log has it
MOST_S = 900.0  # of one step: what is undecided by then stays so
STEPS = (5, 25, 100)
ALIKE = (0.002, 0.01, 0.03)
WORSE = (0.01, 0.02, 0.05, 0.1, 0.2)  # by how much, over a rate of `BASE`
BASE = 0.01
GOOD_S = 30.0
RULES = Rules()
_CANDIDATE, _INCUMBENT = "a@2+m", "a@1+m"


@dataclass(frozen=True)
class Scenario:
    """Rates of bad outcomes; the candidate's is the incumbent's for the first `good_s` seconds of a step."""

    candidate: float
    incumbent: float
    steps: tuple[int, ...] = STEPS
    good_s: float = 0.0


def measure() -> dict[str, Any]:
    """Shares of simulated rollouts by how they end, and seconds until harm has taken the traffic back."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        return {
            "trials": TRIALS,
            "rules": {
                **RULES.model_dump(),
                "promote_at": PROMOTE_AT,
                "roll_back_at": decided_at(),
                "split_at": SPLIT_AT,
            },
            "traffic": {"requests_a_second": REQUESTS_S, "steps": STEPS, "looks_a_second": 1 / LOOK_S, "block": BLOCK},
            "alike": [ends(pool, Scenario(rate, rate)) for rate in ALIKE],
            "worse": [ends(pool, Scenario(BASE + more, BASE)) for more in WORSE],
            "a_fifth_fails": list(turning_back(pool)),
        }


def decided_at() -> float:
    """What evidence of harm must reach."""
    return PROMOTE_AT * (len(STEPS) - 1)


def ends(pool: ProcessPoolExecutor, scenario: Scenario) -> dict[str, Any]:
    """The shares of rollouts that end in each way, and the median minutes that they take."""
    found = _many(pool, scenario)
    counts = Counter(verdict for verdict, _ in found)
    shares = {verdict: counts[verdict] / TRIALS for verdict in ("promote", "roll_back", "pause", "go_on")}
    minutes = statistics.median(seconds for _, seconds in found) / 60
    return {
        "candidate": round(scenario.candidate, 4),
        "incumbent": scenario.incumbent,
        **shares,
        "median_minutes": round(minutes, 2),
    }


def turning_back(pool: ProcessPoolExecutor) -> Iterator[dict[str, Any]]:
    """A candidate of which a fifth fails, from the start of a step or after a good time, at each step's share."""
    for step in STEPS[:-1]:
        for incumbent in (0.0, 0.01, 0.02):
            for good_s in (0.0, GOOD_S):
                steps = (step, *(later for later in STEPS if later > step))
                found = _many(pool, Scenario(0.2, incumbent, steps, good_s))
                after_s = sorted(
                    seconds - good_s for verdict, seconds in found if verdict == "roll_back" and seconds > good_s
                )
                yield {
                    "share_percent": step,
                    "incumbent": incumbent,
                    "good_s": good_s,
                    "turned_back": len(after_s) / TRIALS,
                    "median_s": round(statistics.median(after_s), 1),
                    "p90_s": round(after_s[int(0.9 * len(after_s))], 1),
                    "within_10_s": round(sum(seconds <= 10 for seconds in after_s) / len(after_s), 3),
                }


def _many(pool: ProcessPoolExecutor, scenario: Scenario) -> list[tuple[str, float]]:
    chunk = TRIALS // (4 * PROCESSES)
    return list(pool.map(one, [scenario] * TRIALS, range(TRIALS), chunksize=chunk))


def one(scenario: Scenario, seed: int) -> tuple[str, float]:
    """One rollout: its last verdict, and the seconds it took."""
    rng = random.Random(f"{scenario}{seed}")  # noqa: S311 - a simulation
    verdict, total_s = "go_on", 0.0
    for number, share in enumerate(scenario.steps[:-1]):
        verdict, seconds = _step(rng, scenario, number, share)
        total_s += seconds
        if verdict != "promote":
            break
    return verdict, total_s


def _step(rng: random.Random, scenario: Scenario, number: int, share: int) -> tuple[str, float]:
    """Looks at which nothing bad is new are left out, but for each fourth: none could roll back."""
    count = StepCount(_CANDIDATE, _INCUMBENT, None)
    seconds, looks = 0.0, 0
    waiting: list[OutcomeRow] = []  # written, but for what came in the last moments before a look
    while seconds < MOST_S:
        seconds += LOOK_S
        looks += 1
        rate = scenario.candidate if seconds > scenario.good_s else scenario.incumbent
        came = _rows(rng, share / 100, rate, scenario.incumbent)
        late = round(len(came) * WRITE_S / LOOK_S)
        new = waiting + came[: len(came) - late]
        count.add(new)
        waiting = came[len(came) - late :]
        if looks % 4 and not any(row.status != "ok" for row in new):
            continue
        verdict = _judged(count, scenario.steps, number, share, seconds)
        if verdict in ("promote", "roll_back"):
            return verdict, seconds
    return _judged(count, scenario.steps, number, share, seconds), seconds


def _rows(rng: random.Random, share: float, candidate: float, incumbent: float) -> list[OutcomeRow]:
    """The outcomes of the requests between two looks."""
    odds = (share * candidate, share, share + (1 - share) * incumbent)
    return [_KINDS[bisect_right(odds, rng.random())] for _ in range(round(REQUESTS_S * LOOK_S))]


def _judged(count: StepCount, steps: tuple[int, ...], number: int, share: int, seconds: float) -> str:
    candidate, incumbent = count.arms
    new, old = count.settled(math.inf)  # all answers are equally fast
    given = StepInput.model_construct(
        candidate=_CANDIDATE, incumbent=_INCUMBENT, step=number, steps=steps, share=share, rules=RULES,
        candidate_units=candidate, incumbent_units=incumbent, candidate_settled=new, incumbent_settled=old,
        split=(new.units, old.units), bad_blocks=count.bad_blocks, seconds=seconds,
    )  # fmt: skip
    return decide_step(given).verdict


def _row(is_candidate: bool, is_bad: bool) -> OutcomeRow:
    variant = _CANDIDATE if is_candidate else _INCUMBENT
    return OutcomeRow(
        0, "", "1970-01-01T00:00:00+00:00", None, variant, None, "ModelTimeout" if is_bad else "ok", None, 1.0, None
    )


_KINDS = (_row(True, True), _row(True, False), _row(False, True), _row(False, False))
