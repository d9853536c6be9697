"""Label suspects: patches whose label a model contradicts surely enough to look at the label before blaming the model.

Candidates, never truth: a model is surely wrong about some patches, too. The scores must come from a model that was not
trained on the patches, as those of valid and test do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pcam.evaluation.predictions import Predictions


def label_suspects(predictions: Predictions) -> NDArray[np.bool_]:
    """Find the patches that confident learning counts as mislabelled (Northcutt et al. 2021, JAIR 70:1373).

    A score speaks surely for a class where its probability of that class is at least the mean over the patches that
    carry the label; a patch is a suspect where its score speaks surely for the other class.

    Args:
        predictions: N labelled predictions of patches that the model has not been trained on.

    Returns:
        bool (N,); all False where a class is absent.

    Raises:
        DataError: labels are missing.
    """
    label, score = predictions.labels == 1, predictions.score
    if label.all() or not label.any():
        return np.zeros(len(label), dtype=bool)
    positive, negative = score >= score[label].mean(), 1 - score >= (1 - score[~label]).mean()
    # Where a patch reaches both, the likelier class is meant.
    says_tumour = np.where(positive & negative, score > 0.5, positive)
    says_none = np.where(positive & negative, score <= 0.5, negative)
    return np.where(label, says_none, says_tumour).astype(bool)
