"""The same classifier on a population with another share of positives, computed by weighting the classes.

Sensitivity and specificity belong to the classifier; precision, F-beta, accuracy and PR-AUC belong to the classifier
and the population. The training split of the course copy has one positive in six, its valid split one in two: a figure
of the second kind cannot be carried from one to the other, nor compared between slices of different prevalence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pcam.errors import DataError
from pcam.evaluation.metrics import f_beta
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.ranking import RankedScores, average_precision, roc_auc
from pcam.evaluation.thresholds import Threshold, both_classes

if TYPE_CHECKING:
    import pandas as pd


def prevalence_table(
    predictions: Predictions, threshold: Threshold, prevalences: Sequence[float], beta: float = 2.0
) -> pd.DataFrame:
    """Metrics of the same scores and decisions at other prevalences.

    Args:
        predictions: labelled predictions with both classes.
        threshold: not chosen on the split of the predictions.
        prevalences: shares of positives, each between 0 and 1.
        beta: weight of sensitivity against precision in F-beta.

    Returns:
        One row per prevalence: prevalence, roc_auc, pr_auc, f_beta, all_positive_f_beta, accuracy, precision.

    Raises:
        DataError: one class is absent, a prevalence is not inside (0, 1), or the threshold belongs to this split.
    """
    import pandas as pd

    label, called = both_classes(predictions, "another prevalence") == 1, threshold.decide(predictions)
    ranked = RankedScores.of(predictions.labels, predictions.score)
    rows = []
    for prevalence in prevalences:
        if not 0 < prevalence < 1:
            raise DataError(f"prevalence {prevalence:g} is not between 0 and 1")
        weights = np.where(label, prevalence / label.sum(), (1 - prevalence) / (~label).sum())
        masses = ranked.masses(weights[None, ranked.order])
        tp, fp, fn = (weights[mask].sum() for mask in (called & label, called & ~label, ~called & label))
        tn = weights[~called & ~label].sum()
        rows.append(
            {
                "prevalence": prevalence,
                "roc_auc": roc_auc(*masses)[0],
                "pr_auc": average_precision(*masses)[0],
                "f_beta": f_beta(np.array([tp]), np.array([fp]), np.array([fn]), beta)[0],
                "all_positive_f_beta": (1 + beta**2) * prevalence / (beta**2 * prevalence + 1),
                "accuracy": tp + tn,
                "precision": tp / (tp + fp) if called.any() else np.nan,
            }
        )
    return pd.DataFrame(rows)
