"""Calibration: does a score of 0.8 mean that eight patches in ten are positive?

The reliability table bins patches by score and sets the mean score of a bin beside its share of positives. The
expected calibration error is the mean distance of the two. A temperature, fitted on valid, stretches or shrinks all
logits by one factor: it mends over-confidence and changes neither order nor ROC-AUC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcam.errors import DataError
from pcam.evaluation.intervals import grouped_wilson, wilson
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.thresholds import both_classes

if TYPE_CHECKING:
    import pandas as pd


def reliability_table(predictions: Predictions, bins: int = 10, groups: np.ndarray | None = None) -> pd.DataFrame:
    """Bin patches by score, as many in each bin as ties allow.

    Bins of equal count, not equal width: most scores lie near 0 and 1, and bins in between would hold a handful.

    Args:
        predictions: labelled predictions.
        bins: number of bins; equal scores share one, so there may be fewer.
        groups: (N,), slide or overlap group of each patch: a bin then has as many trials as its groups are worth.

    Returns:
        One row per bin, in order of score: n, n_positive, mean_score, share_positive, low, high (Wilson's 95 %; NaN
        where all patches of a bin are of one group).

    Raises:
        DataError: labels are missing, there are no patches or `bins` is not positive.
    """
    import pandas as pd

    if bins < 1:
        raise DataError(f"{bins} bins; a reliability table needs at least one")
    label, score = predictions.labels, predictions.score
    if len(label) == 0:
        raise DataError("a reliability table needs at least one patch")
    inner_edges = np.quantile(score, np.arange(1, bins) / bins)
    bin_of = np.searchsorted(inner_edges, score, side="right")
    unit = None if groups is None else np.unique(groups, return_inverse=True)[1]
    rows = []
    for number in np.unique(bin_of):
        here = bin_of == number
        n, n_positive = int(here.sum()), int(label[here].sum())
        if unit is None:
            low, high = wilson(n_positive, n)
        else:
            counts = np.bincount(unit[here], label[here]), np.bincount(unit[here])
            low, high = grouped_wilson(*counts) or (np.nan, np.nan)
        rows.append((n, n_positive, float(score[here].mean()), n_positive / n, low, high))
    return pd.DataFrame(rows, columns=["n", "n_positive", "mean_score", "share_positive", "low", "high"])


def expected_calibration_error(predictions: Predictions, bins: int = 10) -> float:
    """Mean over patches of |mean score - share of positives| in the patch's bin (Naeini et al. 2015, AAAI).

    It is biased upwards where bins are small: compare it only between predictions of the same patches.

    Raises:
        DataError: as `reliability_table`.
    """
    table = reliability_table(predictions, bins)
    gap = (table["mean_score"] - table["share_positive"]).abs()
    return float((gap * table["n"]).sum() / table["n"].sum())


@dataclass(frozen=True)
class Temperature:
    """A factor that divides every logit (Guo et al. 2017, ICML), and the split it was fitted on."""

    value: float
    split: str

    def apply(self, predictions: Predictions) -> Predictions:
        """Return the predictions with rescaled scores; their order stays, but that scores may meet at 0 or 1.

        Raises:
            DataError: the temperature was fitted on this very split.
        """
        from scipy.special import expit

        if predictions.split == self.split:
            raise DataError(f"the temperature was fitted on '{self.split}'; apply it to another split")
        logit = _logit(predictions.score) / self.value
        return Predictions(predictions.split, predictions.index, predictions.label, expit(logit))


def fit_temperature(predictions: Predictions) -> Temperature:
    """Fit the temperature that makes the labels of `predictions` likeliest; between 1/20 and 20.

    Raises:
        DataError: labels are missing or one class is absent.
    """
    from scipy.optimize import minimize_scalar

    sign, logit = 2.0 * both_classes(predictions, "a temperature") - 1, _logit(predictions.score)
    # -log sigmoid(z) = log(1 + e^-z), in a form that does not overflow.
    found = minimize_scalar(
        lambda log_t: np.logaddexp(0, -sign * logit * np.exp(-log_t)).mean(), bounds=(-3.0, 3.0), method="bounded"
    )
    return Temperature(float(np.exp(found.x)), predictions.split)


def _logit(score: np.ndarray) -> np.ndarray:
    clipped = np.clip(score, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps)
    return np.log(clipped) - np.log1p(-clipped)
