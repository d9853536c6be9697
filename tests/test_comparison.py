"""Paired comparison: DeLong against a direct computation, the bootstrap against DeLong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pcam.errors import DataError
from pcam.evaluation import Predictions
from pcam.evaluation.comparison import delong, paired_bootstrap


def two_models(seed: int, n: int = 120, gain: float = 1.0, ties: bool = False) -> tuple[Predictions, Predictions]:
    """Predictions of a better and a worse model that share the noise of the patches."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    label[:4] = 0, 1, 0, 1
    shared = rng.normal(size=n)
    logits = [slope * label + shared + rng.normal(0, 0.5, n) for slope in (1 + gain, 1.0)]
    scores = [np.round(1 / (1 + np.exp(-logit)), 1 if ties else 12) for logit in logits]
    first, second = (Predictions("test", np.arange(n), label, score) for score in scores)
    return first, second


def delong_by_definition(first: Predictions, second: Predictions) -> tuple[float, float]:
    """Difference and its standard error from the n_positive × n_negative table of wins, as in the paper of 1988."""
    columns = []
    for p in (first, second):
        positive, negative = p.score[p.labels == 1], p.score[p.labels == 0]
        wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
        columns.append((wins.mean(), wins.mean(axis=1), wins.mean(axis=0)))
    s10 = np.cov([c[1] for c in columns])
    s01 = np.cov([c[2] for c in columns])
    contrast = np.array([1, -1])
    variance = contrast @ (s10 / len(columns[0][1]) + s01 / len(columns[0][2])) @ contrast
    return columns[0][0] - columns[1][0], math.sqrt(variance)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_delong_equals_its_definition(seed: int, ties: bool) -> None:
    first, second = two_models(seed, ties=ties)
    value, error = delong_by_definition(first, second)
    found = delong(first, second)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert found.value == pytest.approx(
        roc_auc_score(first.labels, first.score) - roc_auc_score(second.labels, second.score), abs=1e-12
    )
    assert (found.high - found.low) / (2 * 1.959963984540054) == pytest.approx(error, abs=1e-12)
    assert found.p_value == pytest.approx(math.erfc(abs(value) / error / math.sqrt(2)), abs=1e-12)


def test_delong_finds_no_difference_between_a_model_and_itself() -> None:
    first, _ = two_models(0)
    found = delong(first, first)
    assert (found.value, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("other", [np.full(8, 0.5), np.repeat([0.9, 0.1], 4)])
def test_delong_sees_a_perfect_ranking_beside_one_that_is_none(other: np.ndarray) -> None:
    label, index = np.repeat([0, 1], 4), np.arange(8)
    perfect, blind = (Predictions("test", index, label, score) for score in (np.linspace(0, 1, 8), other))
    assert delong(perfect, blind).value >= 0.5 and delong(perfect, blind).p_value == 0


def test_p_values_are_uniform_where_there_is_no_difference() -> None:
    p_values = [delong(*two_models(seed, gain=0.0)).p_value for seed in range(300)]
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09


def test_paired_bootstrap_agrees_with_delong_over_patches() -> None:
    first, second = two_models(1, n=600)
    expected, found = delong(first, second), paired_bootstrap([first], [second])
    assert found.value == pytest.approx(expected.value, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.008)
    assert found.method.startswith("paired expanded percentile bootstrap over 600 patches")


def test_paired_bootstrap_of_runs_compares_their_means() -> None:
    first, second = two_models(2)
    third, fourth = two_models(2, gain=0.3)
    found = paired_bootstrap([first, third], [second, fourth], np.arange(120) // 4, group_kind="slide", bootstrap=100)
    auc = [roc_auc_score(first.labels, p.score) for p in (first, third, second, fourth)]
    assert found.value == pytest.approx((auc[0] + auc[1]) / 2 - (auc[2] + auc[3]) / 2, abs=1e-12)
    assert "over 30 slides" in found.method and found.low <= found.value <= found.high


def test_different_patches_are_refused() -> None:
    first, second = two_models(3)
    for other in (second.take(np.arange(50)), Predictions("valid", second.index, second.labels, second.score)):
        with pytest.raises(DataError, match="predictions of the same patches"):
            delong(first, other)
    with pytest.raises(DataError, match="runs on both sides"):
        paired_bootstrap([first], [])
    with pytest.raises(DataError, match="two patches of each class"):
        delong(first.take(np.arange(2)), second.take(np.arange(2)))
    with pytest.raises(DataError, match="no interval from 1 slide"):
        paired_bootstrap([first], [second], np.zeros(120), group_kind="slide")
