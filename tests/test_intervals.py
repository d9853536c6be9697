"""Intervals: against scipy, and by what they are meant to do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pcam.errors import DataError
from pcam.evaluation import t_interval, wilson
from pcam.evaluation.intervals import grouped_wilson, jackknife, leave_one_out, percentile, resample_counts


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (500, 1000)])
def test_wilson_agrees_with_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_t_interval_agrees_with_scipy() -> None:
    values = [0.91, 0.93, 0.88]
    summary = t_interval(values)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (summary.low, summary.high) == pytest.approx((low, high), abs=1e-12)
    assert summary.sd == pytest.approx(np.std(values, ddof=1)) and summary.n == 3


@pytest.mark.parametrize("values", [[], [0.5], [0.5, float("nan")]])
def test_too_few_seeds_are_refused(values: list[float]) -> None:
    with pytest.raises(DataError, match="needs at least two finite values"):
        t_interval(values)


def test_resamples_draw_n_units_each_and_do_not_depend_on_the_blocks() -> None:
    narrow = np.concatenate(list(resample_counts(30, 50, seed=1)))
    wide = list(resample_counts(30, 50, seed=1, width=1 << 16))
    assert len(wide) > 1
    assert np.array_equal(np.concatenate(wide), narrow)
    assert narrow.shape == (50, 30) and (narrow.sum(axis=1) == 30).all()


def test_percentile_refuses_a_biased_choice_of_resamples() -> None:
    resampled = np.linspace(0, 1, 101)
    assert percentile(np.where(resampled < 0.04, np.nan, resampled), 100) is not None
    assert percentile(np.where(resampled < 0.1, np.nan, resampled), 100) is None


def test_percentile_of_many_units_is_the_plain_one_and_of_few_is_wider() -> None:
    resampled = np.linspace(0, 1, 10_001)
    assert percentile(resampled, 10**6) == pytest.approx((0.025, 0.975), abs=1e-4)
    widths = [high - low for low, high in (percentile(resampled, n) for n in (4, 20, 100))]
    assert widths[0] > widths[1] > widths[2] > 0.95


@pytest.mark.parametrize("n", [6, 30])
def test_expanded_percentile_of_a_mean_is_close_to_students(n: int) -> None:
    values = np.random.default_rng(0).normal(size=n)
    counts = np.concatenate(list(resample_counts(n, 20_000, seed=0)))
    low, high = percentile(counts @ values / n, n)
    summary = t_interval(values)
    assert high - low == pytest.approx(summary.high - summary.low, rel=0.1)


def test_jackknife_of_a_log_mean_is_students_interval_of_its_pseudo_values() -> None:
    values = np.array([1.0, 2.0, 4.0, 3.0, 2.5, 1.5])
    n, mean = len(values), values.mean()
    left_out = (values.sum() - values) / (n - 1)
    summary = t_interval(n * np.log(mean) - (n - 1) * np.log(left_out))
    # The kurtosis of these values is below the normal one, so the degrees of freedom are n - 1.
    expected = (np.exp(summary.low), np.exp(summary.high))
    assert jackknife(mean, left_out, bounded=False) == pytest.approx(expected, abs=1e-12)


def test_jackknife_mirrors_with_its_figure() -> None:
    left_out = 0.9 + np.random.default_rng(0).normal(0, 0.003, 20)
    low, high = jackknife(0.9, left_out)
    assert jackknife(1 - 0.9, 1 - left_out) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    assert 0.5 < low < 0.9 < high < 1


def test_jackknife_is_wider_where_few_units_carry_the_spread() -> None:
    even, one = np.resize([-0.01, 0.01], 30), np.zeros(30)
    one[0] = np.sqrt(30) * 0.01  # the same spread about the mean but for its own 1/30
    widths = [np.subtract(*jackknife(0.5, 0.5 + off - off.mean())[::-1]) for off in (even, one)]
    assert widths[1] > 1.5 * widths[0]


def test_jackknife_holds_the_value_where_the_bias_is_larger_than_the_spread() -> None:
    low, high = jackknife(0.9, 0.85 + np.array([0.0, 1e-4] * 5))
    assert low == 0.9 or high == 0.9


@pytest.mark.parametrize(
    ("value", "left_out"),
    [(1.0, [1.0, 1.0]), (0.9, [0.9, 1.0]), (0.0, [0.0, 0.1]), (0.9, [0.9, np.nan]), (0.9, [0.9, 0.9])],
)
def test_jackknife_has_no_place_for_bounds_undefined_and_constant(value: float, left_out: list[float]) -> None:
    assert jackknife(value, np.array(left_out)) is None


def test_a_block_leaves_each_unit_out_once() -> None:
    whole = np.concatenate(list(leave_one_out(7)))
    assert np.array_equal(whole, 1 - np.eye(7))
    blocks = list(leave_one_out(7, width=1 << 16))
    assert len(blocks) == 4 and np.array_equal(np.concatenate(blocks), whole)


def test_groups_of_one_trial_are_nearly_independent_trials() -> None:
    hits = np.arange(300) < 240
    found = grouped_wilson(hits.astype(float), np.ones(300))
    # The jackknife divides by n - 1, and Student's quantile of many groups is the normal one but for a percent.
    assert found == pytest.approx(wilson(240, 300), abs=2e-3)


def test_groups_that_are_alike_inside_count_as_one_trial_each() -> None:
    hits = 20.0 * (np.arange(30) < 21)
    low, high = grouped_wilson(hits, np.full(30, 20.0))
    worth = 29.0  # p (1 - p) / v with v = p (1 - p) / (30 - 1)
    assert (low, high) == pytest.approx(wilson(0.7 * worth, worth, freedom=29), abs=1e-12)
    assert high - low > 3 * np.subtract(*wilson(420, 600)[::-1])


def test_groups_more_alike_than_chance_are_worth_no_more_than_their_trials() -> None:
    assert grouped_wilson(np.full(8, 5.0), np.full(8, 10.0)) == pytest.approx(wilson(40, 80, freedom=7))


@pytest.mark.parametrize("successes", [0.0, 3.0])
def test_groups_without_variation_are_one_trial_each(successes: float) -> None:
    trials = np.array([3.0] * 12 + [0.0] * 5)
    found = grouped_wilson(np.minimum(trials, successes), trials)
    assert found == pytest.approx(wilson(12 * successes / 3, 12))
    assert grouped_wilson(np.array([2.0, 0.0]), np.array([3.0, 0.0])) is None


@pytest.mark.parametrize("unequal", [False, True])
def test_groups_of_few_and_many_errors_are_covered(unequal: bool) -> None:
    """Beta-binomial slides: 600 studies of 12 slides; the binomial error of a coverage of 95 % is 0.9 points."""
    rng, held, studies, share = np.random.default_rng(5), 0, 600, 0.85
    for _ in range(studies):
        trials = rng.lognormal(2.5, 0.8, 12).astype(int) + 1 if unequal else np.full(12, 20)
        successes = rng.binomial(trials, rng.beta(8.5, 1.5, 12))
        low, high = grouped_wilson(successes, trials)
        held += low <= share <= high
    assert 0.925 <= held / studies <= 0.985
