"""Predictors that do not look at the patch: told apart from those that do, and scored, to stand beside them.

An all-positive classifier has a high F2 wherever positives abound, which says nothing about the patches. So a constant
predictor is called out instead of scored, and `baselines` gives what such predictors reach, beside every result.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pcam.errors import DataError
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.thresholds import Threshold


@dataclass(frozen=True)
class Baseline:
    """A classifier that does not look at the patch, scored on the same labels as the result it stands beside."""

    name: str
    f_beta: float | None
    accuracy: float
    sensitivity: float | None
    specificity: float | None
    n: int
    n_positive: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


def is_constant(predictions: Predictions, threshold: Threshold | None = None) -> str | None:
    """Tell whether the predictor does not depend on the patch.

    Args:
        predictions: the predictions of a whole split.
        threshold: where given, its decisions are looked at too.

    Returns:
        One line that says what is constant, or None where nothing is.
    """
    score = predictions.score
    # A net whose output has died still wobbles in the last digits of float32; that is no ranking.
    if len(score) and np.ptp(score) < 1e-6:
        return f"constant predictor: every score is {score[0]:.3g}"
    if threshold is not None and len(score):
        called = threshold.decide(predictions)
        if called.all() or not called.any():
            kind = "positive" if called[0] else "negative"
            return f"constant decisions: every patch is called {kind} at threshold {threshold.value:.3g}"
    return None


def baselines(label: np.ndarray, beta: float = 2.0) -> tuple[Baseline, Baseline, Baseline]:
    """Score the three classifiers that do not look at the patch: all-negative, all-positive and majority.

    At prevalence p, all-positive has F-beta = (1 + beta²) p / (beta² p + 1). That is 0.833 at p = 1/2 and beta = 2,
    more than many a trained model reaches, so F-beta is never shown without it.

    Args:
        label: (N,) of 0 and 1, N > 0.
        beta: weight of sensitivity against precision.

    Raises:
        DataError: there are no labels.
    """
    n, n_positive = len(label), int(np.sum(label))
    if n == 0:
        raise DataError("baselines need at least one labelled patch")

    def constant(name: str, positive: bool) -> Baseline:
        prevalence = n_positive / n
        f_beta = (1 + beta**2) * prevalence / (beta**2 * prevalence + 1) if positive else 0.0
        accuracy = prevalence if positive else 1 - prevalence
        sensitivity = float(positive) if n_positive else None
        specificity = float(not positive) if n_positive < n else None
        return Baseline(name, f_beta if n_positive else None, accuracy, sensitivity, specificity, n, n_positive)

    majority = constant("majority", n_positive * 2 > n)
    return constant("all_negative", False), constant("all_positive", True), majority
