"""Constant predictors: scikit-learn is the oracle of what they reach."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as oracle

from pcam.errors import DataError
from pcam.evaluation import Predictions, baselines, is_constant


@pytest.mark.parametrize("wobble", [0.0, 1e-8])
def test_constant_predictor_is_called_out(wobble: float) -> None:
    scores = 0.25 + wobble * np.arange(10)
    p = Predictions("test", np.arange(10), np.arange(10) % 2, scores)
    assert is_constant(p) == "constant predictor: every score is 0.25"
    assert is_constant(Predictions("test", np.arange(10), np.arange(10) % 2, np.linspace(0, 1, 10))) is None


@pytest.mark.parametrize("prevalence", [0.0, 0.17, 0.5, 1.0])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_baselines_agree_with_scikit_learn(prevalence: float, beta: float) -> None:
    label = (np.arange(100) < 100 * prevalence).astype(int)
    negative, positive, majority = baselines(label, beta)
    for baseline, called in ((negative, np.zeros(100, int)), (positive, np.ones(100, int))):
        assert baseline.accuracy == pytest.approx(oracle.accuracy_score(label, called), abs=1e-12)
        if prevalence:
            expected = oracle.fbeta_score(label, called, beta=beta, zero_division=0)
            assert baseline.f_beta == pytest.approx(expected, abs=1e-12)
        else:
            assert baseline.f_beta is None and baseline.sensitivity is None
    assert majority.accuracy == max(negative.accuracy, positive.accuracy)


def test_all_positive_beats_many_a_model_on_f2() -> None:
    assert baselines(np.array([0, 1]))[1].f_beta == pytest.approx(5 / 6)
    with pytest.raises(DataError, match="at least one labelled patch"):
        baselines(np.array([]))
