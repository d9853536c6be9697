"""Metrics of predictions, each with its interval, its n and, where it is undefined, the reason.

One function does the work, `score_metrics`: ROC-AUC and PR-AUC of the scores, Brier score and negative
log-likelihood of the probabilities and, at a threshold, F-beta, accuracy, sensitivity, specificity and precision.
A constant predictor is called out instead of scored (`pcam.evaluation.constant`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pcam.errors import DataError
from pcam.evaluation.constant import is_constant
from pcam.evaluation.intervals import (
    MOST_LEFT_OUT,
    grouped_wilson,
    jackknife,
    leave_one_out,
    percentile,
    resample_counts,
    wilson,
)
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.ranking import RankedScores, average_precision, roc_auc
from pcam.evaluation.thresholds import Threshold

SCORE_METRICS = ("roc_auc", "pr_auc", "brier", "nll")
DECISION_METRICS = ("f_beta", "accuracy", "sensitivity", "specificity", "precision")
# Scales of the jackknife. A proportion near 1 rests on so few errors that there its interval could span half of it.
SCALES = {"roc_auc": "logit", "pr_auc": "logit", "brier": "logit", "nll": "log", "f_beta": "logit"}
_TP, _FP, _TN, _FN = 2, 3, 4, 5  # columns of `_patch_terms`
PROPORTIONS = {  # of what and among what they are counted
    "accuracy": ((_TP, _TN), (_TP, _FP, _TN, _FN)),
    "sensitivity": ((_TP,), (_TP, _FN)),
    "specificity": ((_TN,), (_TN, _FP)),
    "precision": ((_TP,), (_TP, _FP)),
}


@dataclass(frozen=True)
class Metric:
    """A figure and what it stands on.

    Attributes:
        name: key of the metric.
        value: the figure, or None where it is undefined.
        low, high: 95 % interval, or None where there is none.
        n: number of patches.
        n_positive: number of patches with label 1, or None where labels are unknown.
        method: how the interval was made, and for F-beta its beta.
        reason: why the value or its interval is missing; empty where both are there.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    n_positive: int | None
    method: str
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


def score_metrics(
    predictions: Predictions,
    threshold: Threshold | None = None,
    groups: np.ndarray | None = None,
    *,
    group_kind: str = "group",
    beta: float = 2.0,
    bootstrap: int = 1000,
    seed: int = 0,
    allow_constant: bool = False,
) -> dict[str, Metric]:
    """Compute every metric with a 95 % interval.

    Args:
        predictions: predictions of one split.
        threshold: for the metrics of decisions, which are left out without it. One that was chosen on the split of
            the predictions is refused.
        groups: (N,), the slide or overlap group of each patch; whole groups are then left out or resampled.
        group_kind: what a group is, for the text of `method`.
        beta: weight of sensitivity against precision in F-beta (van Rijsbergen 1979).
        bootstrap: number of resamples where the jackknife does not serve; 0 leaves both out, and proportions alone
            have intervals.
        seed: seed of the resampling.
        allow_constant: score a constant predictor too. For parts of a split only: within a slice a good predictor
            may well call every patch negative.

    Returns:
        Metrics by name, in the order of SCORE_METRICS and DECISION_METRICS.

    Raises:
        DataError: the threshold was chosen on the split it is to be reported on, or groups are not one per patch.
    """
    if groups is not None and len(groups) != len(predictions):
        raise DataError(f"{len(groups)} groups for {len(predictions)} predictions; give one group per patch")
    called = None if threshold is None else threshold.decide(predictions)
    names = SCORE_METRICS if called is None else SCORE_METRICS + DECISION_METRICS
    reasons = _undefined(predictions, threshold, called, allow_constant)
    n, n_positive = len(predictions), predictions.n_positive
    if all(name in reasons for name in names):
        return {name: Metric(name, None, None, None, n, n_positive, "none", reasons[name]) for name in names}

    ranked = RankedScores.of(predictions.labels, predictions.score)
    terms = _patch_terms(predictions, called)
    values = _values(ranked.masses(np.ones((1, n))), terms.sum(axis=0, keepdims=True), beta)
    units = n if groups is None else len(np.unique(groups))
    what = "patches" if groups is None else f"{group_kind}s"
    intervals = {} if called is None else _wilson_intervals(terms, groups, what)
    wanted = set(names) - set(reasons) - set(PROPORTIONS) if bootstrap and units > 1 else set()
    if wanted and units <= MOST_LEFT_OUT:
        left_out = _reweighted(ranked, terms, groups, beta, leave_one_out(units, width=n))
        for name in wanted & set(SCALES):
            if found := jackknife(float(values[name][0]), left_out[name], bounded=SCALES[name] == "logit"):
                intervals[name] = found, f"jackknife over {units} {what}, Student's t on the {SCALES[name]} scale"
    if wanted := wanted - set(intervals):
        resampled = _reweighted(ranked, terms, groups, beta, resample_counts(units, bootstrap, seed, width=n))
        for name in wanted:
            if found := percentile(resampled[name], units):
                intervals[name] = found, f"expanded percentile bootstrap over {units} {what}, {bootstrap} resamples"
    for name in set(intervals) & {"roc_auc", "pr_auc", "f_beta"}:
        if intervals[name][0] in ((0.0, 0.0), (1.0, 1.0)):  # no resample can show what it has never seen
            trials = _trials(name, predictions, terms, groups)
            how = f"Wilson score over {trials} {what}, each one trial"
            intervals[name] = wilson(float(values[name][0]) * trials, trials), how

    def metric(name: str) -> Metric:
        prefix = f"beta = {beta:g}; " if name == "f_beta" else ""
        if name in reasons:
            return Metric(name, None, None, None, n, n_positive, prefix + "none", reasons[name])
        value = float(values[name][0])
        if name not in intervals:
            few = (
                f"one {group_kind} only" if units == 1 or name in PROPORTIONS else "too few resamples hold both classes"
            )
            why = f"no interval: {few if bootstrap or name in PROPORTIONS else 'no resamples were asked for'}"
            return Metric(name, value, None, None, n, n_positive, prefix + "none", why)
        interval, method = intervals[name]
        return Metric(name, value, *interval, n, n_positive, prefix + method)

    return {name: metric(name) for name in values}


def f_beta(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, beta: float) -> np.ndarray:
    """F-beta = (1 + beta²) TP / ((1 + beta²) TP + beta² FN + FP), NaN where all three counts are 0."""
    top = (1 + beta**2) * tp
    return _ratio(top, top + beta**2 * fn + fp)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)


def _patch_terms(predictions: Predictions, called: np.ndarray | None) -> np.ndarray:
    """What each patch adds to every sum: Brier and log-likelihood terms, then TP, FP, TN, FN; float64 (N, 2 or 6)."""
    label, score = predictions.labels.astype(np.float64), predictions.score
    # Clipped as in scikit-learn, so that one certain mistake does not make the mean infinite.
    clipped = np.clip(score, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps)
    columns = [(score - label) ** 2, -np.where(label == 1, np.log(clipped), np.log1p(-clipped))]
    if called is not None:
        columns += [called * label, called * (1 - label), ~called * (1 - label), ~called * label]
    return np.column_stack(columns)


def _values(masses: tuple[np.ndarray, np.ndarray], sums: np.ndarray, beta: float) -> dict[str, np.ndarray]:
    """Every metric of R weightings, from their masses (R, D) at the distinct scores and their sums (R, 2 or 6)."""
    total = masses[0].sum(axis=1) + masses[1].sum(axis=1)
    values = {
        "roc_auc": roc_auc(*masses),
        "pr_auc": average_precision(*masses),
        "brier": _ratio(sums[:, 0], total),
        "nll": _ratio(sums[:, 1], total),
    }
    if sums.shape[1] > 2:
        tp, fp, tn, fn = sums[:, 2:].T
        values |= {
            "f_beta": f_beta(tp, fp, fn, beta),
            "accuracy": _ratio(tp + tn, total),
            "sensitivity": _ratio(tp, tp + fn),
            "specificity": _ratio(tn, tn + fp),
            "precision": _ratio(tp, tp + fp),
        }
    return values


def _reweighted(
    ranked: RankedScores, terms: np.ndarray, groups: np.ndarray | None, beta: float, blocks: Iterator[np.ndarray]
) -> dict[str, np.ndarray]:
    """Every metric under the R multiplicities of the units that `blocks` hold in all: name → float64 (R,)."""
    # Patches are exchangeable, so multiplicities may be taken in sorted order at once.
    unit_of_rank, unit_terms = None, terms[ranked.order]
    if groups is not None:
        _, unit = np.unique(groups, return_inverse=True)
        unit_of_rank = unit[ranked.order]
        unit_terms = np.column_stack([np.bincount(unit, column) for column in terms.T])
    found = []
    for counts in blocks:
        weights = counts.astype(np.float64)
        masses = ranked.masses(weights if unit_of_rank is None else weights[:, unit_of_rank])
        found.append(_values(masses, weights @ unit_terms, beta))
    return {name: np.concatenate([block[name] for block in found]) for name in found[0]}


def _wilson_intervals(
    terms: np.ndarray, groups: np.ndarray | None, what: str
) -> dict[str, tuple[tuple[float, float], str]]:
    """Intervals of the proportions that have one, and how they were made."""
    found = {}
    for name, columns in PROPORTIONS.items():
        hits, trials = (terms[:, list(which)].sum(axis=1) for which in columns)
        if groups is None and trials.any():
            found[name] = wilson(hits.sum(), trials.sum()), f"Wilson score over {what}"
        elif groups is not None:
            _, unit = np.unique(groups, return_inverse=True)
            hits, trials = np.bincount(unit, hits), np.bincount(unit, trials)
            counted = int((trials > 0).sum())
            how = f"Wilson score over {counted} {what}, "
            how += "each one trial" if hits.sum() in (0, trials.sum()) else "trials by the design effect, Student's t"
            if interval := grouped_wilson(hits, trials):
                found[name] = interval, how
    return found


def _trials(name: str, predictions: Predictions, terms: np.ndarray, groups: np.ndarray | None) -> int:
    """How many units a perfect ranking or F-beta rests on: those that count, of the class that fewer of them hold.

    Each is then one trial that could have gone wrong, as in Hanley and Lippman-Hand 1983 (JAMA 249:1743).
    """
    unit, label = np.arange(len(terms)) if groups is None else groups, predictions.labels == 1
    sides = [terms[:, [_TP, _FP, _FN]].any(axis=1)] if name == "f_beta" else [label, ~label]
    return min(len(np.unique(unit[side])) for side in sides)


def _undefined(
    predictions: Predictions, threshold: Threshold | None, called: np.ndarray | None, allow_constant: bool
) -> dict[str, str]:
    """Why which metrics are undefined on these predictions."""
    everything = SCORE_METRICS + DECISION_METRICS
    if len(predictions) == 0:
        return dict.fromkeys(everything, "there are no patches")
    if predictions.label is None:
        return dict.fromkeys(everything, "the labels are not known")
    if not allow_constant:
        if constant := is_constant(predictions):
            return dict.fromkeys(everything, constant)
        if constant := is_constant(predictions, threshold):
            return dict.fromkeys(DECISION_METRICS, constant) | _undefined(predictions, None, None, True)
    n_positive = int(predictions.labels.sum())
    reasons: dict[str, str] = {}
    if called is not None and not called.any():
        reasons["precision"] = "no patch is called positive"
    if n_positive == 0:
        reasons |= dict.fromkeys(("roc_auc", "pr_auc", "sensitivity", "f_beta"), "there is no positive patch")
    if n_positive == len(predictions):
        reasons |= dict.fromkeys(("roc_auc", "pr_auc", "specificity"), "there is no negative patch")
    return reasons
