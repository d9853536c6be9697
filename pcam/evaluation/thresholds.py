"""Thresholds: where a score becomes a decision, and what that costs.

A threshold tuned on the patches it is reported on looks better than it is. So a threshold here carries the split it
was chosen on, and every report refuses one that was chosen on the very split it reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcam.errors import DataError
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.ranking import counts_by_cut

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Threshold:
    """A decision rule "positive where score ≥ value".

    Attributes:
        value: the cut; above the highest score, which may be above 1, where calling no patch positive is cheapest.
        split: the split it was chosen on, or None where it was fixed before any data were seen.
        rule: how it was chosen, in words.
    """

    value: float
    split: str | None
    rule: str

    def decide(self, predictions: Predictions) -> np.ndarray:
        """Return the decisions on `predictions`, bool (N,).

        Raises:
            DataError: the threshold was chosen on this very split.
        """
        if self.split is not None and self.split == predictions.split:
            raise DataError(
                f"the threshold was chosen on '{self.split}', so figures on '{self.split}' would flatter it; "
                "report it on another split"
            )
        return predictions.score >= self.value


@dataclass(frozen=True)
class Confusion:
    """Counts of decisions against labels."""

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def n(self) -> int:
        """Number of patches."""
        return self.tp + self.fp + self.tn + self.fn


def fixed_threshold(value: float) -> Threshold:
    """A threshold that was fixed before any data were seen."""
    return Threshold(float(value), None, "fixed beforehand")


def implied_threshold(cost_fn: float, cost_fp: float) -> Threshold:
    """The threshold that the costs imply for calibrated scores, with no data: cost_fp / (cost_fp + cost_fn).

    Calling a patch of probability s positive costs (1 - s)·cost_fp on average, calling it negative s·cost_fn; they are
    equal there (Elkan 2001, IJCAI, "The foundations of cost-sensitive learning").
    """
    _check_costs(cost_fn, cost_fp)
    value = cost_fp / (cost_fp + cost_fn)
    return Threshold(value, None, f"fixed beforehand by the costs: {cost_fp:g} / ({cost_fp:g} + {cost_fn:g})")


def choose_threshold(predictions: Predictions, cost_fn: float, cost_fp: float) -> Threshold:
    """Choose the threshold that makes the mistakes on these predictions cheapest.

    Args:
        predictions: labelled predictions of the split to choose on, both classes present.
        cost_fn: cost of one missed positive patch, in any unit.
        cost_fp: cost of one false alarm, in the same unit.

    Returns:
        The threshold, halfway between the two scores it parts; among equally cheap ones the lowest, which misses
        the fewest positives.

    Raises:
        DataError: labels are missing, one class is absent or a cost is not positive.
    """
    _check_costs(cost_fn, cost_fp)
    label = both_classes(predictions)
    cuts, tp, fp = counts_by_cut(label, predictions.score)
    cost = cost_fn * (tp[-1] - tp) + cost_fp * fp
    # counts_by_cut runs from the highest cut down; the last cheapest one is the lowest threshold.
    # In floating point, three false alarms at 0.1 cost more than one miss at 0.3.
    best = int(np.flatnonzero(cost <= cost.min() * (1 + 1e-12))[-1])
    rule = f"cheapest on {predictions.split} at {cost_fn:g} per missed positive and {cost_fp:g} per false alarm"
    return Threshold(_between(cuts, best), predictions.split, rule)


def choose_for_sensitivity(predictions: Predictions, at_least: float) -> Threshold:
    """Choose the highest threshold whose sensitivity on these predictions is at least `at_least` (0 to 1).

    Raises:
        DataError: labels are missing, one class is absent or `at_least` is outside (0, 1].
    """
    if not 0 < at_least <= 1:
        raise DataError(f"sensitivity to reach is {at_least:g}; it must be above 0 and at most 1")
    label = both_classes(predictions)
    cuts, tp, _ = counts_by_cut(label, predictions.score)
    # An integer comparison: 0.95 × 20 is 19.000000000000004 in floating point and would ask for a 20th patch.
    needed = int(np.ceil(round(at_least * tp[-1], 9)))
    best = int(np.argmax(tp >= needed))
    return Threshold(
        _between(cuts, best), predictions.split, f"highest with sensitivity ≥ {at_least:g} on {predictions.split}"
    )


def confusion_matrix(predictions: Predictions, threshold: Threshold) -> Confusion:
    """Count true and false decisions.

    Raises:
        DataError: labels are missing, or the threshold was chosen on this very split.
    """
    label = predictions.labels.astype(bool)
    called = threshold.decide(predictions)
    tp, fp = int((called & label).sum()), int((called & ~label).sum())
    fn = int(label.sum()) - tp
    return Confusion(tp, fp, len(label) - tp - fp - fn, fn)


def threshold_table(
    predictions: Predictions, values: Sequence[float], *, cost_fn: float, cost_fp: float
) -> pd.DataFrame:
    """What each of several thresholds, fixed beforehand, would do on these predictions.

    Args:
        predictions: labelled predictions with both classes.
        values: the thresholds, in the order of the rows.
        cost_fn: cost of one missed positive.
        cost_fp: cost of one false alarm.

    Returns:
        One row per threshold: threshold, tp, fp, tn, fn, sensitivity, specificity, cost (sum over the patches).

    Raises:
        DataError: labels are missing or one class is absent.
    """
    import pandas as pd

    both_classes(predictions)
    rows = []
    for value in values:
        c = confusion_matrix(predictions, fixed_threshold(value))
        rates = {"sensitivity": c.tp / (c.tp + c.fn), "specificity": c.tn / (c.tn + c.fp)}
        rows.append({"threshold": value, **asdict(c), **rates, "cost": cost_fn * c.fn + cost_fp * c.fp})
    return pd.DataFrame(rows)


def decision_curve(predictions: Predictions, probabilities: Sequence[float] | np.ndarray) -> pd.DataFrame:
    """Net benefit of acting on the score, beside acting on every patch and on none.

    Who acts from probability t on says that a false alarm costs t / (1 - t) of what a missed tumour does. The net
    benefit is then (true positives - false positives × t / (1 - t)) / n: tumours found per patch, false alarms paid for
    in tumours (Vickers and Elkin 2006, Medical Decision Making 26:565). It reads the scores as probabilities, so they
    should be calibrated.

    Args:
        predictions: labelled predictions with both classes.
        probabilities: thresholds t, fixed beforehand, each in [0, 1).

    Returns:
        One row per threshold: threshold, model, all, none.

    Raises:
        DataError: labels are missing, one class is absent, or a threshold is not in [0, 1).
    """
    import pandas as pd

    label = both_classes(predictions) == 1
    cuts = np.asarray(probabilities, dtype=np.float64)
    if not ((cuts >= 0) & (cuts < 1)).all():
        raise DataError("a decision curve needs thresholds of at least 0 and below 1: at 1 an alarm costs everything")
    positive, negative = (np.sort(predictions.score[side]) for side in (label, ~label))
    price = cuts / (1 - cuts)
    found, alarms = (len(side) - np.searchsorted(side, cuts) for side in (positive, negative))
    n = len(label)
    whole = (len(positive) - len(negative) * price) / n
    return pd.DataFrame({"threshold": cuts, "model": (found - alarms * price) / n, "all": whole, "none": 0.0})


def _check_costs(cost_fn: float, cost_fp: float) -> None:
    for name, cost in (("cost_fn", cost_fn), ("cost_fp", cost_fp)):
        if not (np.isfinite(cost) and cost > 0):
            raise DataError(f"{name} is {cost:g}; a cost must be a positive number")


def both_classes(predictions: Predictions, what: str = "a threshold") -> np.ndarray:
    """Return the labels, uint8 (N,), after checking that there are both; `what` needs them, for the error.

    Raises:
        DataError: labels are missing, or a class is.
    """
    label = predictions.labels
    if label.all() or not label.any():
        raise DataError(
            f"predictions of '{predictions.split}' do not hold both classes; {what} needs positives and negatives"
        )
    return label


def _between(cuts: np.ndarray, best: int) -> float:
    """The value halfway between the chosen cut (a score that is called positive) and the next score below it."""
    if best == len(cuts) - 1:
        return 0.0
    upper, lower = (np.nextafter(1.0, 2.0) if np.isinf(cuts[best]) else cuts[best]), cuts[best + 1]
    middle = (upper + lower) / 2
    # Between two neighbouring floating-point numbers the mean rounds to one of them; only the upper one parts them.
    return float(middle if middle > lower else upper)
