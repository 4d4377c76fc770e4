import math
import random
from array import array

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from prompts.errors import BadInput
from suites.statistics import (
    alpha_at_look,
    alpha_left,
    binomial_at_least,
    cases_for_power,
    cases_to_decide,
    holm,
    mcnemar_p,
    percentile,
    power_of,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("passed", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_newcombes_published_intervals(passed, total, low, high):
    assert wilson_interval(passed, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing_excludes_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_wilson_refuses_more_passes_than_cases():
    with pytest.raises(BadInput, match="3 of 2"):
        wilson_interval(3, 2)


@given(total=st.integers(1, 5000), data=st.data())
def test_wilson_agrees_with_scipy(total, data):
    passed = data.draw(st.integers(0, total))
    known = scipy.stats.binomtest(passed, total).proportion_ci(method="wilson")
    assert wilson_interval(passed, total) == pytest.approx((known.low, known.high), abs=1e-9)


@given(trials=st.integers(0, 6000), probability=st.floats(0.001, 0.999), data=st.data())
@settings(max_examples=60, deadline=None)
def test_binomial_tails_agree_with_scipy(trials, probability, data):
    successes = data.draw(st.integers(0, trials))
    p = data.draw(st.sampled_from([0.5, probability]))
    known = scipy.stats.binom.sf(successes - 1, trials, p)
    assert binomial_at_least(successes, trials, p) == pytest.approx(known, rel=1e-8, abs=1e-12)


def test_binomial_tails_include_their_own_bound():
    assert binomial_at_least(2, 3) == 0.5
    assert binomial_at_least(0, 0) == 1.0
    assert binomial_at_least(4, 3) == 0.0
    assert binomial_at_least(3, 3, 1.0) == 1.0
    assert binomial_at_least(1, 3, 0.0) == 0.0


def test_binomial_refuses_a_probability_above_one():
    with pytest.raises(BadInput):
        binomial_at_least(1, 2, 1.5)


@pytest.mark.parametrize(
    ("broken", "mended", "p"),
    [(0, 0, 1.0), (5, 0, 1 / 32), (6, 0, 1 / 64), (8, 0, 1 / 256), (1, 1, 0.75), (9, 1, 11 / 1024), (0, 4, 1.0)],
)
def test_mcnemar_is_the_one_sided_exact_tail(broken, mended, p):
    assert mcnemar_p(broken, mended) == p


def test_mcnemar_halves_agresti_s_two_sided_value():
    two_sided = scipy.stats.binomtest(150, 236).pvalue  # Agresti's approval ratings: 150 against 86
    assert mcnemar_p(150, 86) == pytest.approx(two_sided / 2, rel=1e-12)


def test_holm_gives_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values):
    adjusted = holm(p_values)
    assert all(raw <= new <= 1 for raw, new in zip(p_values, adjusted, strict=True))
    pairs = sorted(zip(p_values, adjusted, strict=True))
    assert [new for _, new in pairs] == sorted(adjusted)


def test_six_to_nothing_is_the_least_that_wins_at_the_first_look_and_eight_at_the_second():
    least = [next(n for n in range(99) if mcnemar_p(n, 0) <= alpha_at_look(0.05, look)) for look in (1, 2)]
    assert least == [6, 8]


def test_all_looks_together_spend_alpha():
    assert sum(alpha_at_look(0.05, look) for look in range(1, 100_000)) == pytest.approx(0.05, abs=1e-6)
    assert alpha_left(0.05, 1) == pytest.approx(0.05 - 0.3 / math.pi**2)
    assert alpha_left(0.05, 0) == 0.05


def test_looks_count_from_one():
    with pytest.raises(BadInput, match="from 1"):
        alpha_at_look(0.05, 0)


@pytest.mark.parametrize(("percent", "value"), [(50, 20.0), (30, 20.0), (40, 20.0), (5, 15.0), (100, 50.0), (61, 40.0)])
def test_percentile_is_the_nearest_rank(percent, value):
    assert percentile([15.0, 20.0, 35.0, 40.0, 50.0], percent) == {50: 35.0}.get(percent, value)


def test_percentile_takes_the_55th_of_a_hundred_whatever_the_rounding():
    assert percentile(list(range(1, 101)), 55) == 55


@pytest.mark.parametrize(
    "seen", [lambda n: n * 7919 % 20_011 / 3, lambda n: n % 3 * 5e5, lambda n: 7.0, lambda n: n % 5 * 5e-324]
)
def test_percentile_of_many_is_what_sorting_all_of_them_gives(seen):
    values = array("d", map(seen, range(20_000)))
    whole = sorted(values)
    for percent in (0.001, 1, 50, 95, 99.99, 100):
        assert percentile(values, percent) == whole[math.ceil(percent * 200) - 1]


def test_percentile_of_nothing_is_none():
    assert percentile([], 95) is None


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(1, 100))
def test_percentile_is_one_of_the_values_with_enough_at_or_below_it(values, percent):
    found = percentile(values, percent)
    assert sum(value <= found for value in values) >= percent * len(values) / 100 - 1e-6


@pytest.mark.parametrize(
    ("discordant", "difference", "cases"),
    [(100, 50, 268), (300, 50, 776), (100, 100, 66), (300, 100, 199), (200, 200, 33), (300, 200, 50)],
)
def test_cases_to_decide_gives_the_exact_tests_sample_sizes(discordant, difference, cases):
    broken, mended = (discordant + difference) // 2, (discordant - difference) // 2
    assert cases_to_decide(broken, mended, 1000) == cases


def test_no_number_of_cases_shows_a_regression_that_is_not_there():
    assert cases_to_decide(3, 3, 50) is None
    assert cases_to_decide(0, 0, 0) is None


def test_cases_to_decide_stays_quick_for_small_differences():
    assert 20_000 < cases_to_decide(1010, 990, 20_000) < 20_000_000


def test_an_a_a_comparison_is_called_a_regression_in_at_most_alpha_of_the_trials():
    rng = random.Random(20)  # noqa: S311 - a seeded simulation holds no secret
    false_fails, trials, cases = 0, 2000, 120
    for _ in range(trials):
        sides = [(rng.random() < 0.7, rng.random() < 0.7) for _ in range(cases)]
        broken = sum(before and not after for before, after in sides)
        mended = sum(after and not before for before, after in sides)
        false_fails += (broken - mended) / cases > 0.02 and mcnemar_p(broken, mended) <= 0.05
    assert 0 < false_fails / trials <= 0.05


def test_every_tail_of_up_to_sixty_fair_trials_is_scipys():
    for trials in range(61):
        counts = range(trials + 1)
        ours = [binomial_at_least(successes, trials) for successes in counts]
        assert ours == pytest.approx(list(scipy.stats.binom.sf([n - 1 for n in counts], trials, 0.5)), rel=1e-12)


def test_mcnemar_is_scipys_one_sided_binomial_test_for_up_to_sixty_discordant_pairs():
    for discordant in range(1, 61):
        for broken in range(discordant + 1):
            known = scipy.stats.binomtest(broken, discordant, alternative="greater").pvalue
            assert mcnemar_p(broken, discordant - broken) == pytest.approx(known, rel=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferronis(p_values):
    """A hypothesis falls where every set that holds it falls: its adjusted p is the largest of theirs (Marcus 1976)."""
    indices = range(len(p_values))
    sets = [[i for i in indices if mask >> i & 1] for mask in range(1, 1 << len(p_values))]
    of_set = {tuple(some): min(1.0, len(some) * min(p_values[i] for i in some)) for some in sets}
    closed = [max(p for some, p in of_set.items() if i in some) for i in indices]
    assert holm(p_values) == pytest.approx(closed)


@pytest.mark.parametrize(
    ("discordant", "gain", "cases"),
    [(0.1, 0.05, 268), (0.3, 0.05, 776), (0.1, 0.1, 66), (0.3, 0.1, 199), (0.2, 0.2, 33), (0.3, 0.2, 50)],
)
def test_cases_for_power_are_the_least_that_have_it(discordant, gain, cases):
    assert cases_for_power(discordant, gain) == cases
    assert power_of(cases, discordant, gain) >= 0.8
    assert all(power_of(fewer, discordant, gain) < 0.8 for fewer in range(max(1, cases - 12), cases))


@pytest.mark.parametrize(
    ("cases", "discordant", "gain", "alpha"), [(33, 0.2, 0.2, 0.05), (50, 0.3, 0.2, 0.05), (120, 0.25, 0.1, 0.01)]
)
def test_power_is_scipys_sum_over_all_numbers_of_discordant_pairs(cases, discordant, gain, alpha):
    total = 0.0
    for pairs in range(cases + 1):
        critical = next((b for b in range(pairs + 1) if scipy.stats.binom.sf(b - 1, pairs, 0.5) <= alpha), pairs + 1)
        share = (discordant + gain) / (2 * discordant)
        reject = scipy.stats.binom.sf(critical - 1, pairs, share)
        total += scipy.stats.binom.pmf(pairs, cases, discordant) * reject
    assert power_of(cases, discordant, gain, alpha) == pytest.approx(total, rel=1e-9)


def test_simulated_gates_of_the_size_that_would_decide_show_the_loss_as_often_as_promised():
    cases = cases_to_decide(9, 3, 60)  # a loss of 10 points, 20% discordant
    assert cases == 134
    rng = random.Random(5)  # noqa: S311 - a seeded simulation holds no secret
    trials, shown = 2000, 0
    for _ in range(trials):
        lots = [rng.random() for _ in range(cases)]
        shown += mcnemar_p(sum(lot < 0.15 for lot in lots), sum(0.15 <= lot < 0.2 for lot in lots)) <= 0.05
    assert shown / trials == pytest.approx(0.8, abs=0.021)  # 2.33 standard errors


def test_power_beyond_the_exact_range_joins_it():
    exact, approximate = power_of(2000, 0.2, 0.025), power_of(2001, 0.2, 0.025)
    assert approximate == pytest.approx(exact, abs=0.015)
    assert power_of(100_000, 0.3, 0.01) > 0.999


@pytest.mark.parametrize(
    ("design", "told"),
    [
        ({"discordant": 0.1, "difference": 0.2}, "0.2 needs at least that share of discordant cases, not 0.1"),
        ({"discordant": 1.2, "difference": 0.2}, "not 1.2"),
        ({"discordant": 0.3, "difference": 5}, "5 points are 0.05"),
        ({"discordant": 0.3, "difference": 0}, "not 0"),
        ({"discordant": 0.3, "difference": 0.1, "alpha": 0}, "alpha lies between 0 and 1"),
        ({"discordant": 0.3, "difference": 0.1, "power": 1}, "power lies between 0 and 1"),
    ],
)
def test_a_design_that_cannot_be_is_refused(design, told):
    with pytest.raises(BadInput, match=told):
        cases_for_power(**design)
