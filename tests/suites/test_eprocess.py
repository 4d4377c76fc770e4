"""The e-processes of rollouts: exact expectations under their nulls, by counting every way in which units can fall."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator

import pytest

from suites import eprocess
from suites.eprocess import broken_split, harm, no_harm

SHARES = (0.05, 0.25, 0.5)


def multinomial(units: int, odds: tuple[float, ...]) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every way in which `units` fall into cells, with its probability."""
    for counts in itertools.product(range(units + 1), repeat=len(odds) - 1):
        rest = units - sum(counts)
        if rest < 0:
            continue
        cells = (*counts, rest)
        ways = math.factorial(units) / math.prod(math.factorial(count) for count in cells)
        yield cells, ways * math.prod(odd**count for odd, count in zip(odds, cells, strict=True))


def cells(share: float, candidate: float, incumbent: float) -> tuple[float, ...]:
    """The odds of a unit to be the candidate's and good, its and bad, the incumbent's and good, its and bad."""
    other = 1 - share
    return share * (1 - candidate), share * candidate, other * (1 - incumbent), other * incumbent


def expected_no_harm(units: int, share: float, candidate: float, incumbent: float, margin: float) -> float:
    return math.fsum(
        probability * no_harm((found[0], found[1]), (found[2], found[3]), share, margin)
        for found, probability in multinomial(units, cells(share, candidate, incumbent))
    )


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("margin", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("incumbent", [0.0, 0.01, 0.3, 0.7])
def test_that_there_is_no_harm_is_a_fair_bet_where_the_candidate_is_worse_by_the_margin(
    share: float, margin: float, incumbent: float
) -> None:
    assert expected_no_harm(8, share, incumbent + margin, incumbent, margin) == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("candidate", [0.05, 0.4, 1.0])
def test_it_loses_on_average_where_the_candidate_is_worse_by_more(share: float, candidate: float) -> None:
    assert expected_no_harm(8, share, candidate, 0.01, 0.02) < 1


@pytest.mark.parametrize("share", SHARES)
def test_it_gains_on_average_where_the_candidate_is_no_worse(share: float) -> None:
    assert expected_no_harm(8, share, 0.0, 0.01, 0.02) > 1


def blocks_of(bad: tuple[int, ...]) -> list[tuple[int, int]]:
    """Bad outcomes as they came (1 the candidate's), in blocks."""
    parts = [bad[start : start + eprocess.BLOCK] for start in range(0, len(bad), eprocess.BLOCK)]
    return [(sum(part), len(part) - sum(part)) for part in parts]


def expected_harm(length: int, rate: float) -> float:
    """Over all orders of bad outcomes of which each is the candidate's with probability `rate`, at a share of `SHARE`."""
    return math.fsum(
        rate ** sum(bad) * (1 - rate) ** (length - sum(bad)) * harm(blocks_of(bad), 0.25)
        for bad in itertools.product((0, 1), repeat=length)
    )


@pytest.mark.parametrize("length", [0, 1, 4, 9])
def test_that_there_is_harm_is_a_fair_bet_where_both_do_alike(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eprocess, "BLOCK", 2)  # several starts within a few outcomes

    assert expected_harm(length, 0.25) == pytest.approx(1.0, rel=1e-9)


def test_it_loses_on_average_where_the_candidate_does_better_and_gains_where_it_does_worse() -> None:
    assert expected_harm(9, 0.1) < 1 < expected_harm(9, 0.4)


@pytest.mark.parametrize("share", SHARES)
def test_that_the_split_is_broken_is_a_fair_bet_where_it_is_not(share: float) -> None:
    units = 40
    expected = math.fsum(
        math.comb(units, found)
        * share**found
        * (1 - share) ** (units - found)
        * broken_split(found, units - found, share)
        for found in range(units + 1)
    )
    assert expected == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize(
    ("found", "least", "most"),
    [
        (harm([(2, 0)], 0.05), 40, 100),  # two bad outcomes, both the candidate's, whose share is a twentieth
        (harm([(1, 0)], 0.05), 5, 10),
        (harm([(0, 30)], 0.05), 0, 1),
        (harm([], 0.05), 1, 1),
        (broken_split(100, 900, 0.05), 1000, 1e9),
        (broken_split(50, 950, 0.05), 0, 1),
        (no_harm((0, 0), (0, 0), 0.05, 0.02), 0.999, 1.001),
        (no_harm((300, 0), (5700, 0), 0.05, 0.02), 20, 1e4),
    ],
)
def test_what_evidence_amounts_to(found: float, least: float, most: float) -> None:
    assert least <= found <= most


def test_harm_that_begins_late_is_found_in_spite_of_a_long_good_time() -> None:
    good_time = [(0, eprocess.BLOCK)] * 20

    assert harm([*good_time, (8, 2), (8, 2)], 0.05) > 1000
    assert harm([*good_time, (1, 9), (0, 10)], 0.05) < 5


def test_whatever_is_certain_stays_a_number_that_json_holds() -> None:
    assert 1e290 < harm([(10, 0)] * 400, 0.05) <= eprocess.MOST
    assert 1e290 < no_harm((10**6, 0), (10**6, 0), 0.5, 0.02) <= eprocess.MOST
    assert 1e290 < broken_split(10**6, 0, 0.05) <= eprocess.MOST


@pytest.mark.integration
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("e_value", ["harm", "no_harm"])
def test_who_looks_again_and_again_is_misled_in_fewer_than_one_case_in_twenty(seed: int, e_value: str) -> None:
    """At the edge of each null: no worse at all for harm, worse by the margin for no harm."""
    rng = random.Random(f"{seed}{e_value}")  # noqa: S311 - a simulation
    ever: Callable[[random.Random], bool] = _ever_harm if e_value == "harm" else _ever_no_harm
    misled = sum(ever(rng) for _ in range(200))

    assert misled <= 20  # 1 in 20 of 200 is 10; more than 20 of them happens once in 900 times


def _ever_harm(rng: random.Random) -> bool:
    bad: list[int] = []
    for _ in range(150):
        bad.append(int(rng.random() < 0.25))
        if harm(blocks_of(tuple(bad)), 0.25) >= 20:
            return True
    return False


def _ever_no_harm(rng: random.Random) -> bool:
    counts = [[0, 0], [0, 0]]
    for number in range(1500):
        arm = int(rng.random() >= 0.25)
        counts[arm][rng.random() < (0.01, 0.03)[1 - arm]] += 1
        if number % 10 == 0 and no_harm((counts[0][0], counts[0][1]), (counts[1][0], counts[1][1]), 0.25, 0.02) >= 20:
            return True
    return False
