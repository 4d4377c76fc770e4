"""The gate's promises by simulation, smaller than `benchmarks.statistics` and with the same code."""

import math

import pytest

from benchmarks.statistics import drawn_pairs, drawn_repeats, verdicts
from suites.statistics import power_of

TRIALS = 300
SLACK = 2.33 * math.sqrt(0.05 * 0.95 / TRIALS)  # of a binomial share, at 1%


@pytest.mark.integration
@pytest.mark.parametrize(
    ("cases", "discordant", "suites"),
    [(60, 0.2, 1), (60, 0.2, 3), (200, 0.1, 1), pytest.param(200, 0.1, 3, marks=pytest.mark.integration)],
)
def test_identical_variants_fail_at_most_alpha_of_their_gates(cases, discordant, suites):
    found = verdicts(drawn_pairs(cases, discordant, 0.0), suites, "identical", TRIALS)
    assert 0 < found["fail"] <= 0.05 + SLACK


@pytest.mark.integration
def test_identical_variants_with_flaky_cases_fail_at_most_alpha_of_their_gates_and_most_pass():
    found = verdicts(drawn_repeats(60), 1, "flaky", TRIALS)
    assert found["fail"] <= 0.05 + SLACK
    assert found["pass"] > 0.5


@pytest.mark.integration
def test_a_true_loss_is_found_as_often_as_the_power_says():
    found = verdicts(drawn_pairs(200, 0.2, 0.1), 1, "worse", TRIALS)
    assert found["fail"] == pytest.approx(power_of(200, 0.2, 0.1), abs=0.035)
