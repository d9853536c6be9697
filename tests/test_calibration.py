"""Calibration: known over-confidence is measured and mended."""

from __future__ import annotations

import numpy as np
import pytest

from pcam.errors import DataError
from pcam.evaluation import Predictions
from pcam.evaluation.calibration import expected_calibration_error, fit_temperature, reliability_table


def overconfident(seed: int, factor: float, n: int = 20_000, split: str = "valid") -> Predictions:
    """Labels drawn with the true probability; scores whose logits are `factor` times the true ones."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 1.5, n)
    label = rng.random(n) < 1 / (1 + np.exp(-logit))
    return Predictions(split, np.arange(n), label, 1 / (1 + np.exp(-factor * logit)))


def test_table_counts_every_patch_once_and_bins_evenly() -> None:
    p = overconfident(0, 1.0, n=1000)
    table = reliability_table(p, bins=8)
    assert table["n"].tolist() == [125] * 8
    assert table["n_positive"].sum() == p.n_positive
    assert table["mean_score"].is_monotonic_increasing
    assert ((table["low"] <= table["share_positive"]) & (table["share_positive"] <= table["high"])).all()


def test_intervals_over_slides_hold_the_truth_where_those_over_patches_do_not() -> None:
    """Forty slides with a shift of their own, of which the scores know nothing; a bin is a range of scores."""
    rng, slides, held = np.random.default_rng(0), np.repeat(np.arange(40), 50), {"patch": 0, "slide": 0}
    truth = np.mean(1 / (1 + np.exp(-rng.normal(0, 1.0, 400_000))))
    for _ in range(200):
        label = rng.random(2000) < 1 / (1 + np.exp(-rng.normal(0, 1.0, 40)))[slides]
        p = Predictions("test", np.arange(2000), label, rng.random(2000))
        for unit, groups in {"patch": None, "slide": slides}.items():
            table = reliability_table(p, 2, groups)
            held[unit] += int(((table["low"] <= truth) & (truth <= table["high"])).sum())
    assert held["patch"] < 0.75 * 400
    assert 0.92 * 400 < held["slide"] <= 0.98 * 400


def test_a_bin_of_one_slide_has_no_interval() -> None:
    p = overconfident(0, 1.0, n=100)
    table = reliability_table(p, 2, p.score > np.median(p.score))
    assert table[["low", "high"]].isna().all(axis=None) and table["n"].tolist() == [50, 50]


def test_equal_scores_share_a_bin() -> None:
    p = Predictions("test", np.arange(10), np.arange(10) % 2, np.full(10, 0.3))
    table = reliability_table(p)
    assert len(table) == 1 and table["share_positive"][0] == 0.5
    assert expected_calibration_error(p) == pytest.approx(0.2)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperature_recovers_the_factor_and_mends_the_scores(factor: float) -> None:
    temperature = fit_temperature(overconfident(0, factor))
    assert temperature.value == pytest.approx(factor, rel=0.05)
    test = overconfident(1, factor, split="test")
    mended = temperature.apply(test)
    assert np.array_equal(np.argsort(mended.score), np.argsort(test.score))
    assert expected_calibration_error(mended) < 0.02
    if factor != 1.0:
        assert expected_calibration_error(test) > 3 * expected_calibration_error(mended)


@pytest.mark.filterwarnings("error")
def test_scores_that_part_the_classes_perfectly_have_a_temperature_all_the_same() -> None:
    label, score = np.array([0, 0, 1, 1]), np.array([0.0, 0.4, 0.6, 1.0])
    temperature = fit_temperature(Predictions("valid", np.arange(4), label, score))
    assert temperature.value == pytest.approx(1 / 20, rel=0.01)
    mended = temperature.apply(Predictions("test", np.arange(4), label, score)).score
    assert mended.tolist() == sorted(mended) and mended[[0, 3]].tolist() == [pytest.approx(0), 1]


def test_temperature_is_not_applied_where_it_was_fitted() -> None:
    p = overconfident(0, 2.0, n=100)
    with pytest.raises(DataError, match="fitted on 'valid'"):
        fit_temperature(p).apply(p)


def test_bad_bins_are_refused() -> None:
    p = overconfident(0, 1.0, n=10)
    with pytest.raises(DataError, match="0 bins"):
        reliability_table(p, bins=0)
    with pytest.raises(DataError, match="at least one patch"):
        reliability_table(p.take(np.array([], dtype=int)))
