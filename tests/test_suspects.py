"""Label suspects: cleanlab's, found without it."""

from __future__ import annotations

import numpy as np
import pytest
from cleanlab.filter import find_label_issues

from pcam.errors import DataError
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.suspects import label_suspects


def predicted(seed: int, spread: float) -> Predictions:
    rng = np.random.default_rng(seed)
    label = (rng.random(500) < 0.4).astype(int)
    return Predictions(
        "test", np.arange(500), label, 1 / (1 + np.exp(-(2.0 * label - 1 + spread * rng.normal(size=500))))
    )


@pytest.mark.parametrize("spread", [0.5, 1.5, 4])
@pytest.mark.parametrize("seed", range(3))
def test_they_are_those_of_confident_learning(seed: int, spread: float) -> None:
    p = predicted(seed, spread)
    probability = np.stack([1 - p.score, p.score], axis=1)
    expected = find_label_issues(p.labels, probability, filter_by="confident_learning", n_jobs=1)
    np.testing.assert_array_equal(label_suspects(p), expected)


def test_swapped_labels_are_among_them() -> None:
    p = predicted(0, 0.5)
    label = p.labels.copy()
    label[:20] = 1 - label[:20]
    suspects = label_suspects(Predictions("test", p.index, label, p.score))
    # A suspect has to be surer than the mean, so about half of the swapped ones are; of the others next to none.
    assert suspects[:20].mean() >= 0.4
    assert suspects[20:].mean() < 0.01


def test_one_class_gives_none_and_no_labels_are_refused() -> None:
    score = np.linspace(0, 1, 9)
    assert not label_suspects(Predictions("test", np.arange(9), np.ones(9, int), score)).any()
    with pytest.raises(DataError, match="have no labels"):
        label_suspects(Predictions("test", np.arange(9), None, score))
