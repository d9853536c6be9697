"""Comparison of two models on the same patches.

Two models meet the same hard patches, so their errors go together; the difference of two metrics is far more certain
than two separate intervals suggest. DeLong's test does this for ROC-AUC over independent patches; the paired
bootstrap resamples the same groups for both and serves clustered patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pcam.errors import DataError
from pcam.evaluation.intervals import LEVEL, percentile, resample_counts
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.ranking import RankedScores, average_precision, placements, roc_auc

_RANKINGS = {"roc_auc": roc_auc, "pr_auc": average_precision}


@dataclass(frozen=True)
class Difference:
    """Metric of the first model minus that of the second, on the same patches.

    Attributes:
        value, low, high: the difference and its 95 % interval.
        p_value: two-sided, of no difference; None where the method gives none.
        n: number of patches.
        n_positive: number of positives among them.
        method: how the interval was made.
    """

    value: float
    low: float
    high: float
    p_value: float | None
    n: int
    n_positive: int
    method: str


def delong(first: Predictions, second: Predictions, level: float = LEVEL) -> Difference:
    """Difference of two correlated ROC-AUCs over independent patches.

    DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44:837), in O(n log n).

    Args:
        first: labelled predictions of one model.
        second: predictions of another model on the same patches.
        level: confidence level.

    Raises:
        DataError: the two are not about the same labelled patches, or a class has fewer than two.
    """
    from scipy.special import ndtr, ndtri

    label = _same_patches(first, second).astype(bool)
    n_positive, n_negative = int(label.sum()), int((~label).sum())
    if min(n_positive, n_negative) < 2:
        raise DataError(f"DeLong's test needs two patches of each class, found {n_positive} and {n_negative}")
    by_positive, by_negative = zip(*(placements(p.score[label], p.score[~label]) for p in (first, second)), strict=True)
    value = float(by_positive[0].mean() - by_positive[1].mean())
    variance = float(
        np.var(by_positive[0] - by_positive[1], ddof=1) / n_positive
        + np.var(by_negative[0] - by_negative[1], ddof=1) / n_negative
    )
    error = math.sqrt(variance)
    half = float(ndtri(0.5 + level / 2)) * error
    # Where nothing varies, as between a perfect ranking and a constant one, any difference is infinitely many errors.
    p_value = float(2 * ndtr(-abs(value) / error)) if error > 0 else float(value == 0)
    return Difference(value, value - half, value + half, p_value, len(label), n_positive, "DeLong over patches")


def paired_bootstrap(
    first: list[Predictions],
    second: list[Predictions],
    groups: np.ndarray | None = None,
    *,
    metric: str = "roc_auc",
    group_kind: str = "group",
    bootstrap: int = 1000,
    seed: int = 0,
) -> Difference:
    """Difference of the mean metric of two sets of runs, the same patches being resampled for all of them.

    Args:
        first: predictions of the runs (say, one per seed) of one configuration.
        second: those of another, on the same patches.
        groups: (N,), slide or overlap group of each patch; whole groups are then resampled.
        metric: "roc_auc" or "pr_auc".
        group_kind: what a group is, for the text of `method`.
        bootstrap: number of resamples.
        seed: seed of the resampling.

    Raises:
        DataError: the predictions are not about the same labelled patches, or no interval can be made.
    """
    if not first or not second or metric not in _RANKINGS:
        raise DataError(f"a paired comparison needs runs on both sides and a metric of {', '.join(_RANKINGS)}")
    label = _same_patches(*first, *second)
    n = len(label)
    _, unit = (None, np.arange(n)) if groups is None else np.unique(groups, return_inverse=True)
    units = int(unit.max()) + 1
    sides = [[RankedScores.of(label, p.score) for p in side] for side in (first, second)]

    def difference(weights: np.ndarray) -> np.ndarray:
        means = [
            np.mean([_RANKINGS[metric](*ranked.masses(weights[:, ranked.order])) for ranked in side], axis=0)
            for side in sides
        ]
        return means[0] - means[1]

    value = float(difference(np.ones((1, n)))[0])
    blocks = resample_counts(units, bootstrap, seed, width=n)
    resampled = np.concatenate([difference(counts[:, unit].astype(np.float64)) for counts in blocks])
    interval = percentile(resampled, units) if units > 1 else None
    if interval is None:
        raise DataError(f"no interval from {units} {group_kind}(s): too few resamples hold both classes")
    what = "patches" if groups is None else f"{group_kind}s"
    method = f"paired expanded percentile bootstrap over {units} {what}, {bootstrap} resamples"
    return Difference(value, *interval, None, n, int(label.sum()), method)


def _same_patches(*all_predictions: Predictions) -> np.ndarray:
    """The labels, after checking that every one of the predictions is about the same patches."""
    reference = all_predictions[0]
    for other in all_predictions[1:]:
        same = other.split == reference.split and np.array_equal(other.index, reference.index)
        if not (same and np.array_equal(other.labels, reference.labels)):
            raise DataError("a paired comparison needs predictions of the same patches with the same labels")
    return reference.labels
