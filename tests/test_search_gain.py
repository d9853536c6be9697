"""The gain of a search: what two intervals say together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel
from sklearn.metrics import roc_auc_score

from pcam.errors import DataError
from pcam.evaluation import Predictions
from pcam.evaluation.search_gain import search_gain

LABELS = np.arange(200) % 2


def run(strength: float, seed: int) -> Predictions:
    noise = np.random.default_rng(seed).normal(size=200)
    return Predictions("test", np.arange(200), LABELS, 1 / (1 + np.exp(-noise - strength * LABELS)))


def runs(*strengths: float, seed: int = 0) -> list[Predictions]:
    return [run(strength, seed + number) for number, strength in enumerate(strengths)]


def test_both_intervals_have_the_same_middle_and_the_seeds_one_is_students() -> None:
    first, second = runs(2, 2.2, 1.9), runs(1, 1.1, 1.4, seed=10)
    gain = search_gain(first, second)
    one, other = ([roc_auc_score(LABELS, p.score) for p in side] for side in (first, second))
    expected = ttest_rel(one, other).confidence_interval(0.95)
    assert (gain.seeds.low, gain.seeds.high) == pytest.approx((expected.low, expected.high))
    assert gain.seeds.mean == pytest.approx(gain.patches.value) == pytest.approx(np.mean(one) - np.mean(other))
    assert [(over, interval["n"]) for over, interval in gain.intervals.items()] == [("patches", 200), ("seeds", 3)]


def test_a_gain_needs_both_intervals() -> None:
    strong, weak = runs(3, 3, 3), runs(0.5, 0.5, 0.5, seed=10)
    assert search_gain(strong, weak).verdict == "a gain"
    assert search_gain(weak, strong).verdict == "a loss"
    assert search_gain(weak, weak).verdict == "no difference"
    unsteady = search_gain(runs(4, 4, 0.6), weak)
    assert unsteady.patches.low > 0 and unsteady.seeds.low < 0 and unsteady.verdict == "no evidence of a gain"


def test_one_seed_is_no_interval() -> None:
    with pytest.raises(DataError, match="needs at least two finite values"):
        search_gain(runs(1), runs(2))
