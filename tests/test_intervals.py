"""Intervals: against scipy, and by what they are meant to do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pcam.errors import DataError
from pcam.evaluation import t_interval, wilson
from pcam.evaluation.intervals import percentile, resample_counts


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
