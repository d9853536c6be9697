"""The linear baseline: logistic regression on eight colour and texture features of the whole patch.

It knows nothing of shapes or of the centre square. What a network gains over it is what seeing tissue is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcam.data.format import Split
from pcam.errors import DataError
from pcam.evaluation.features import FEATURE_NAMES, input_features
from pcam.evaluation.predictions import Predictions

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True)
class LinearBaseline:
    """A fitted baseline; make one with `fit_linear`."""

    model: Pipeline
    n_train: int

    def predict(self, split: Split) -> Predictions:
        """Score every patch of a split."""
        score = self.model.predict_proba(_features(split))[:, 1]
        return Predictions(split.name, np.arange(len(split)), split.labels, score)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each feature, in logits per standard deviation of the training patches."""
        return dict(zip(FEATURE_NAMES, self.model[-1].coef_[0].tolist(), strict=True))


def fit_linear(split: Split, max_patches: int | None = None) -> LinearBaseline:
    """Fit the baseline on a labelled split.

    Args:
        split: the training split.
        max_patches: use this many patches, drawn at random; None: all of them.

    Raises:
        DataError: labels are missing or hold one class only.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if split.labels is None or len(np.unique(split.labels)) < 2:
        raise DataError(f"{split.directory}: {split.name}: a linear baseline needs labels of both classes")
    keep = np.arange(len(split))
    if max_patches is not None and max_patches < len(split):
        keep = np.sort(np.random.default_rng(0).permutation(len(split))[:max_patches])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return LinearBaseline(model.fit(_features(split, keep), split.labels[keep]), len(keep))


def _features(split: Split, indices: np.ndarray | None = None) -> np.ndarray:
    return input_features(split, indices)[list(FEATURE_NAMES)].to_numpy()
