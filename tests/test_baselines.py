"""Figures that stand beside a result: other prevalences, the linear model, and the count of looks at test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, fbeta_score, precision_score, roc_auc_score

from pcam.data import open_split
from pcam.errors import DataError, StorageError
from pcam.evaluation import Predictions, baselines, fixed_threshold
from pcam.evaluation.access import log_access
from pcam.evaluation.linear import fit_linear
from pcam.evaluation.prevalence import prevalence_table


def example(n: int = 400, prevalence: float = 0.5) -> Predictions:
    rng = np.random.default_rng(0)
    label = (np.arange(n) < prevalence * n).astype(int)
    return Predictions("test", np.arange(n), label, 1 / (1 + np.exp(-(label + rng.normal(size=n)))))


@pytest.mark.parametrize("prevalence", [0.1, 0.5, 0.9])
def test_weighted_metrics_agree_with_scikit_learn(prevalence: float) -> None:
    p = example()
    row = prevalence_table(p, fixed_threshold(0.5), [prevalence]).iloc[0]
    weights = np.where(p.labels == 1, prevalence, 1 - prevalence)
    called = p.score >= 0.5
    assert row["roc_auc"] == pytest.approx(roc_auc_score(p.labels, p.score), abs=1e-12)
    assert row["pr_auc"] == pytest.approx(average_precision_score(p.labels, p.score, sample_weight=weights), abs=1e-12)
    assert row["f_beta"] == pytest.approx(fbeta_score(p.labels, called, beta=2, sample_weight=weights), abs=1e-12)
    assert row["precision"] == pytest.approx(precision_score(p.labels, called, sample_weight=weights), abs=1e-12)
    expected = baselines((np.arange(1000) < prevalence * 1000).astype(int))[1].f_beta
    assert row["all_positive_f_beta"] == pytest.approx(expected, abs=1e-12)


def test_impossible_prevalences_are_refused() -> None:
    with pytest.raises(DataError, match="prevalence 1 is not between 0 and 1"):
        prevalence_table(example(), fixed_threshold(0.5), [1.0])
    with pytest.raises(DataError, match="do not hold both classes; another prevalence needs positives"):
        prevalence_table(example(prevalence=0.0), fixed_threshold(0.5), [0.5])


def test_linear_model_is_repeatable_and_better_than_chance_on_what_it_saw(tiny: Path) -> None:
    train = open_split(tiny, "train")
    baseline = fit_linear(train)
    p = baseline.predict(train)
    assert baseline.n_train == 48 and len(baseline.weights) == 8
    assert roc_auc_score(p.labels, p.score) > 0.6
    assert np.array_equal(p.score, fit_linear(train).predict(train).score)
    assert fit_linear(train, max_patches=30).n_train == 30


def test_linear_model_needs_labels(tmp_path: Path, tiny: Path) -> None:
    import shutil

    shutil.copy(tiny / "camelyonpatch_level_2_split_test_x.h5", tmp_path)
    with pytest.raises(DataError, match="test: a linear baseline needs labels of both classes"):
        fit_linear(open_split(tmp_path, "test"))


def test_looks_at_test_are_counted_by_study_and_set_of_runs(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "test_access.jsonl"
    assert log_access(log, "study", ["b", "a"]) == 1
    assert log_access(log, "study", ["a", "b"]) == 1
    assert log_access(log, "other", ["a", "b"]) == 1
    assert log_access(log, "study", ["c"]) == 2
    assert len(log.read_text().splitlines()) == 3
    log.write_text(log.read_text() + '{"study": "st')
    with pytest.raises(StorageError, match=r"access\.jsonl, line 4: it holds no look at test; restore the file"):
        log_access(log, "study", ["c"])
