"""The learning curve: known laws are recovered, intervals cover, and what is not determined is not promised."""

from __future__ import annotations

import math
import random

import pytest

from suites.advice.curve import Curve, Fit, Measured, Needed, fit_errors, learn_curve, pool, pool_parts


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suites.advice.curve.DRAWS", 120)


def exactly(fit: Fit, sizes: tuple[int, ...], total: int = 100_000) -> list[Measured]:
    return [Measured(size, round(total * fit.error(size)), total) for size in sizes]


@pytest.mark.parametrize("law", [Fit(0.05, 1.2, 0.5), Fit(0.0, 0.9, 0.35), Fit(0.1, 3.0, 1.0)])
def test_a_known_law_is_recovered_from_many_answers(law: Fit):
    fit, is_law = fit_errors(exactly(law, (25, 50, 100)))
    assert is_law
    assert fit.c == pytest.approx(law.c, abs=0.051)
    for size in (25, 100, 200, 400):
        assert fit.error(size) == pytest.approx(law.error(size), abs=0.01)


def test_the_same_size_is_pooled():
    assert pool([Measured(50, 3, 10), Measured(25, 5, 10), Measured(50, 1, 20)]) == (
        Measured(25, 5, 10),
        Measured(50, 4, 30),
    )


def test_folds_that_differ_by_a_row_are_one_size():
    parts = {"full": [Measured(66, 3, 34), Measured(67, 9, 33), Measured(67, 8, 33)], "half": [Measured(33, 10, 34)]}
    assert pool_parts(parts) == (Measured(33, 10, 34), Measured(67, 20, 100))


@pytest.mark.parametrize("with_parts", [False, True])
def test_a_lucky_fold_promises_nothing(with_parts: bool):
    """All sizes have three quarters right. Taken for sizes of their own, folds forecast 85% and more too often."""
    dice = random.Random(5)  # noqa: S311
    apart, pooled = [], []
    for _ in range(400):
        sizes = {"full": (39, 40, 41), **({"half": (20,), "quarter": (10,)} if with_parts else {})}
        parts = {
            part: [Measured(size, sum(dice.random() < 0.25 for _ in range(20)), 20) for size in its]
            for part, its in sizes.items()
        }
        each = [point for points in parts.values() for point in points]
        apart.append(1 - fit_errors(pool(each))[0].error(60) >= 0.85 - 1e-9)
        pooled.append(1 - fit_errors(pool_parts(parts))[0].error(60) >= 0.85 - 1e-9)
    assert sum(apart) > 1.5 * sum(pooled)
    assert sum(pooled) / len(pooled) <= (0.1 if with_parts else 0.06)


@pytest.mark.parametrize(
    "points",
    [
        [Measured(25, 3, 50), Measured(50, 4, 50), Measured(100, 5, 50)],  # rises
        [Measured(25, 5, 50), Measured(50, 5, 50), Measured(100, 5, 50)],  # flat
        [Measured(50, 9, 50), Measured(100, 5, 50)],  # two sizes
        [Measured(100, 5, 50)],
    ],
)
def test_what_points_do_not_determine_is_a_level_and_no_promise(points: list[Measured]):
    curve = learn_curve(points, (150, 600), 0.99)
    assert curve.method == "level"
    assert curve.forecasts[0].accuracy == curve.forecasts[1].accuracy
    assert curve.needed is not None
    assert curve.needed.answer in ("cannot say", "out of reach")


def test_rising_errors_are_pooled_with_their_neighbours():
    fit, is_law = fit_errors([Measured(25, 9, 100), Measured(50, 3, 100), Measured(100, 12, 100)])
    assert not is_law
    assert fit.a == pytest.approx(15 / 200)


@pytest.mark.parametrize(("law", "total"), [(Fit(0.02, 1.5, 0.6), 60), (Fit(0.1, 2.0, 0.8), 60)])
def test_intervals_cover_the_truth_at_small_numbers(law: Fit, total: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("suites.advice.curve.DRAWS", 60)
    dice, covered, covered_far = random.Random(3), 0, 0  # noqa: S311
    for trial in range(20):
        points = [
            Measured(size, sum(dice.random() < law.error(size) for _ in range(count)), count)
            for size, count in ((25, total // 3), (50, total // 3), (100, total))
        ]
        now, far = learn_curve(points, (150, 600), None, seed=trial).forecasts
        covered += now.ci95[0] <= 1 - law.error(150) <= now.ci95[1]
        covered_far += far.ci95[0] <= 1 - law.error(600) <= far.ci95[1]
    assert covered >= 17
    assert covered_far >= 17


def curve_of(law: Fit, bar: float | None, total: int = 20_000) -> Curve:
    return learn_curve(exactly(law, (25, 50, 100), total), (150, 300, 600), bar)


def needed_of(law: Fit, bar: float) -> Needed:
    found = curve_of(law, bar).needed
    assert found is not None
    return found


def test_how_many_examples_a_threshold_takes():
    law = Fit(0.02, 1.0, 0.5)  # error 0.02 + 1/√n: 0.07 at 400
    found = needed_of(law, 0.93)
    assert found.answer == "number"
    assert found.examples == pytest.approx(400, rel=0.2)
    assert found.low is not None
    assert found.low <= found.examples
    assert found.high is None or found.high >= found.examples


def test_a_threshold_that_is_reached_and_one_that_is_out_of_reach():
    assert needed_of(Fit(0.02, 1.0, 0.5), 0.85) == Needed("reached", 150)
    assert needed_of(Fit(0.2, 5.0, 1.0), 0.95) == Needed("out of reach")
    assert learn_curve(exactly(Fit(0.2, 5.0, 1.0), (25, 50, 100), 20), (150,), 0.9).needed == Needed("cannot say")


def test_without_a_threshold_nothing_is_said_of_reaching_it():
    curve = curve_of(Fit(0.02, 1.0, 0.5), None)
    assert curve.needed is None
    assert curve.forecasts[0].reach is None


def test_the_same_points_give_the_same_forecast():
    assert curve_of(Fit(0.02, 1.0, 0.5), 0.9, 50) == curve_of(Fit(0.02, 1.0, 0.5), 0.9, 50)


def test_examples_for_an_error():
    assert Fit(0.1, 1.0, 0.5).examples_for(0.1) == math.inf
    assert Fit(0.1, 1.0, 0.5).examples_for(1.0) == 0.0
    assert Fit(0.1, 1.0, 0.5).examples_for(0.2) == pytest.approx(100)
    with pytest.raises(ValueError, match="at least one training"):
        learn_curve([], (10,), None)
