"""Metrics of the order of the scores: ROC-AUC and average precision, for many weightings at once.

A bootstrap resample is a vector of multiplicities. With the patches sorted by score once, both areas of a resample
are a few cumulative sums over its multiplicities, so a block of resamples is one matrix and nothing is sorted again.
Tied scores are merged first: the curve has one point per distinct score, as in scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RankedScores:
    """Patches in ascending order of score.

    Attributes:
        order: int (N,), positions of the patches in that order.
        positive: float64 (N,), labels in that order.
        starts: int (D,), where each of the D distinct scores begins.
        values: float64 (D,), the distinct scores.
    """

    order: np.ndarray
    positive: np.ndarray
    starts: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, label: np.ndarray, score: np.ndarray) -> RankedScores:
        """Sort `score` (N,) with its `label` (N,) of 0 and 1."""
        order = np.argsort(score, kind="stable")
        sorted_score = score[order]
        starts = np.concatenate([[0], np.flatnonzero(np.diff(sorted_score)) + 1])
        return cls(order, label[order].astype(np.float64), starts, sorted_score[starts])

    def masses(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positive and negative weight at each distinct score.

        Args:
            weights: (R, N), multiplicities in sorted order, one resample a row.

        Returns:
            Two float64 arrays (R, D).
        """
        positive = weights * self.positive
        negative = weights - positive
        if len(self.starts) < len(self.order):
            positive = np.add.reduceat(positive, self.starts, axis=1)
            negative = np.add.reduceat(negative, self.starts, axis=1)
        return positive, negative


def roc_auc(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Area under the ROC curve: the chance that a positive outscores a negative, ties counting half.

    The Mann-Whitney form (Hanley and McNeil 1982, Radiology 143:29).

    Args:
        positive: (R, D) positive weight at each distinct score, ascending.
        negative: (R, D) negative weight likewise.

    Returns:
        float64 (R,), NaN where a class has no weight.
    """
    below = np.cumsum(negative, axis=1)
    totals = below[:, -1] * positive.sum(axis=1)
    below -= 0.5 * negative
    wins = np.einsum("rd,rd->r", positive, below)
    return np.divide(wins, totals, out=np.full(len(wins), np.nan), where=totals > 0)


def area(label: np.ndarray, score: np.ndarray) -> float:
    """Return `roc_auc` of scores (N,) with labels (N,) of 0 and 1, each patch counted once."""
    return float(roc_auc(*RankedScores.of(label, score).masses(np.ones((1, len(label)))))[0])


def placements(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each positive's score the share of negatives below it, for each negative's that of positives above it.

    Ties count half. Either's mean is the ROC-AUC; they are the structural components of DeLong et al. 1988.
    """
    return _share_below(negative, positive), 1 - _share_below(positive, negative)


def _share_below(scores: np.ndarray, points: np.ndarray) -> np.ndarray:
    ordered = np.sort(scores)
    return (np.searchsorted(ordered, points, "left") + np.searchsorted(ordered, points, "right")) / (2 * len(ordered))


def average_precision(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Area under the precision-recall curve as a step function: Σ (recall step) × precision.

    No interpolation between points, since that is optimistic (Davis and Goadrich 2006, ICML).

    Args:
        positive: (R, D) positive weight at each distinct score, ascending.
        negative: (R, D) negative weight likewise.

    Returns:
        float64 (R,), NaN where there is no positive weight.
    """
    true_positive = np.cumsum(positive[:, ::-1], axis=1)
    called = np.cumsum(negative[:, ::-1], axis=1)
    called += true_positive
    total = true_positive[:, -1].copy()
    # Where nothing is called positive there is no recall step either: the term is 0, not 0/0.
    precision = np.divide(true_positive, called, out=true_positive, where=called > 0)
    area = np.einsum("rd,rd->r", positive[:, ::-1], precision)
    return np.divide(area, total, out=np.full(len(area), np.nan), where=total > 0)


def counts_by_cut(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True and false positives of every decision rule "score ≥ cut" that differs from the next.

    Args:
        label: (N,) of 0 and 1.
        score: (N,).

    Returns:
        cuts, true positives, false positives; each (D + 1,), from calling none positive (cut = ∞) to calling all.
    """
    ranked = RankedScores.of(label, score)
    positive, negative = ranked.masses(np.ones((1, len(label))))
    cuts = np.concatenate([[np.inf], ranked.values[::-1]])
    true_positive = np.concatenate([[0.0], np.cumsum(positive[0, ::-1])])
    false_positive = np.concatenate([[0.0], np.cumsum(negative[0, ::-1])])
    return cuts, true_positive, false_positive
