import math
import random
import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.bootstrap import UNITS, Cluster, exchange_p, mean_difference, resampled_means
from suites.statistics import mcnemar_p

MICE_TREATED = [94, 197, 16, 38, 99, 141, 23]  # survival in days: Efron and Tibshirani 1993, table 2.1


def alone(values):
    """Each value a cluster of one case."""
    return [Cluster(round(value * UNITS), 1) for value in values]


def drawn(kind, count, seed=3):
    rng = np.random.default_rng(seed)
    return {
        "normal": rng.normal(0.05, 0.3, count),
        "skewed": rng.exponential(0.4, count) - 0.2,
        "few": np.where(rng.random(count) < 0.3, rng.uniform(-1, 0.4, count), 0.0),
    }[kind]


@pytest.mark.parametrize("kind", ["normal", "skewed", "few"])
@pytest.mark.parametrize("count", [25, 120])
def test_the_interval_is_scipys_bca_interval(kind, count):
    values = drawn(kind, count)
    known = scipy.stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    found = mean_difference(alone(values), seed=1)
    width = known.high - known.low
    assert found.mean == pytest.approx(values.mean(), abs=1e-8)
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.04 * width)
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(count), rel=1e-6)


def test_resampled_means_spread_as_published():
    """Efron and Tibshirani 1993, table 2.2: the bootstrap's standard error of the treated mice's mean is 23.36."""
    means = resampled_means([Cluster(days, 1) for days in MICE_TREATED], seed=2)
    assert len(means) == 10_000
    assert statistics.mean(means) == pytest.approx(86.86, abs=0.7)
    assert statistics.pstdev(means) == pytest.approx(23.36, rel=0.03)


def test_a_p_value_says_where_the_interval_ends():
    """The one-sided bound at 1 − p touches 0: so 0 leaves the 95% interval just where p falls below 2.5%."""
    for shift in (0.02, 0.04, 0.06, 0.08, 0.1):
        values = drawn("normal", 80) - drawn("normal", 80).mean() - shift
        found = mean_difference(alone(values), seed=4)
        z = scipy.stats.norm.sf(shift / (values.std() / math.sqrt(80)))
        assert found.p_loss == pytest.approx(z, abs=0.02)
        assert (found.high < 0) == (found.p_loss < 0.025)


def test_what_is_gained_is_what_is_lost_with_the_sides_changed():
    values = drawn("skewed", 60)
    found, mirrored = mean_difference(alone(values), seed=5), mean_difference(alone(-values), seed=5)
    assert (mirrored.mean, mirrored.p_gain, mirrored.p_loss) == (-found.mean, found.p_loss, found.p_gain)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-3)


def test_the_same_seed_gives_the_same_figures_and_another_one_others():
    values = alone(drawn("normal", 40))
    assert mean_difference(values, seed=6) == mean_difference(values, seed=6)
    assert mean_difference(values, seed=6).low != mean_difference(values, seed=7).low


def test_figures_are_the_same_on_every_machine():
    found = mean_difference(alone([-0.5, 0.25, 0.0, -0.125, -1.0, 0.5, -0.75, -0.25]), seed=1)
    assert (found.mean, found.p_loss) == (-0.234375, 17 / 128)
    assert (found.low, found.high) == pytest.approx((-0.578125, 0.078125), abs=1e-12)


def test_nothing_changed_is_no_difference():
    found = mean_difference(alone([0.0] * 30), seed=1)
    assert (found.mean, found.low, found.high, found.p_loss, found.p_gain) == (0.0, 0.0, 0.0, 1.0, 1.0)
    assert mean_difference([], seed=1).p_loss == 1.0


@pytest.mark.parametrize(("changed", "p"), [(1, 0.5), (4, 1 / 16), (5, 1 / 32), (6, 1 / 64)])
def test_as_few_changed_cases_show_a_loss_as_with_the_exact_test(changed, p):
    found = mean_difference(alone([-0.3] * changed + [0.0] * 20), seed=1)
    assert found.p_loss == p == mcnemar_p(changed, 0)


@given(broken=st.integers(0, 6), mended=st.integers(0, 6))
def test_the_exchange_test_of_passes_is_mcnemars(broken, mended):
    totals = [-UNITS] * broken + [UNITS] * mended
    assert exchange_p(totals, seed=1) == pytest.approx(
        (mcnemar_p(broken, mended), mcnemar_p(mended, broken)), abs=1e-15
    )


def test_the_drawn_exchange_test_agrees_with_scipys_permutation_test():
    values = drawn("few", 100)
    known = scipy.stats.permutation_test(
        (values, np.zeros(100)), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples",
        alternative="less", n_resamples=20_000, vectorized=True, rng=np.random.default_rng(2),
    ).pvalue  # fmt: skip
    assert exchange_p([round(value * UNITS) for value in values], seed=3)[0] == pytest.approx(known, abs=0.012)


def test_cases_of_one_cluster_are_one_observation():
    values = list(drawn("normal", 20))
    copies = [Cluster(round(value * UNITS) * 5, 5) for value in values]
    once, fivefold = mean_difference(alone(values), seed=8), mean_difference(copies, seed=8)
    assert (fivefold.mean, fivefold.low, fivefold.p_loss) == pytest.approx((once.mean, once.low, once.p_loss))
    assert mean_difference(alone(values * 5), seed=8).high - once.mean < 0.6 * (once.high - once.mean)


def test_clusters_of_unlike_sizes_weigh_as_many_cases_as_they_have():
    found = mean_difference([Cluster(-3 * UNITS, 3), Cluster(UNITS, 1), Cluster(0, 4)], seed=9)
    assert found.mean == -0.25
    assert -1.0 <= found.low < -0.25 < found.high <= 1.0


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=15))
@settings(max_examples=30, deadline=None)
def test_any_differences_give_an_interval_and_two_p_values(values):
    found = mean_difference(alone(values), seed=1, resamples=200)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert 0 < found.p_loss <= 1
    assert 0 < found.p_gain <= 1


@pytest.mark.parametrize(("count", "share"), [(20, 1.0), pytest.param(60, 0.2, marks=pytest.mark.integration)])
def test_identical_variants_lose_in_at_most_alpha_of_the_comparisons_however_their_scores_scatter(count, share):
    """The worst found for the bootstrap alone: a tenth of the differences are large, the others small."""
    rng = random.Random(11)  # noqa: S311 - a seeded simulation holds no secret
    trials, lost = 400, 0
    for _ in range(trials):
        sizes = (1.0 if rng.random() < 0.1 else 0.05 for _ in range(count))
        values = [rng.choice((-1, 1)) * size * (rng.random() < share) for size in sizes]
        lost += mean_difference(alone(values), seed=rng.randrange(2**40), resamples=300).p_loss <= 0.05
    slack = 2.33 * math.sqrt(0.05 * 0.95 / trials)  # of a binomial, at 1%
    assert lost / trials <= 0.05 + slack
