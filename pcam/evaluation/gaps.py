"""The gap of a metric between a slice and the rest of its split, with an error that respects slides.

Patches of one slide share stain, scanner and tumour, so they are not independent draws: with 54 slides, an
interval that takes patches for independent is several times too narrow. Each metric is therefore written as
its value plus a mean of influences, one per patch; influences are added up within a slide, and the spread of
those sums over slides is the error (Obuchowski 1997, Biometrics 53:567, for the ROC-AUC of clustered data; with
one patch per slide it is the error of DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837). It has a closed
form: no random numbers, and milliseconds where a bootstrap over 32,768 patches takes minutes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import t as student

from pcam.evaluation.ranking import placements

LEVEL = 0.95
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Judged:
    """Scored patches of known truth, and what they were called.

    Attributes:
        label: bool (N,), True where the patch is positive.
        score: float64 (N,).
        called: bool (N,), True where the score reaches the threshold.
        group: int64 (N,), the slide (or the patch itself where slides are not known).
        beta: of F-beta.
    """

    label: Mask
    score: Floats
    called: Mask
    group: NDArray[np.int64]
    beta: float


@dataclass(frozen=True)
class Gap:
    """A metric in a slice and outside it.

    Attributes:
        value: the metric in the slice, with its 95 % interval `low` to `high`.
        rest_value: the metric on all other patches of the split.
        gap: `value - rest_value`; negative where the slice is worse.
        p: one-sided p-value of "the slice is not worse than the rest", not corrected for anything.
        difference, error: on the logit scale, what the p-value is made of; NaN where a value is 0 or 1.
        freedom: its degrees of freedom.
    """

    value: float
    low: float
    high: float
    rest_value: float
    gap: float
    p: float
    difference: float
    error: float
    freedom: int


def roc_auc(judged: Judged, inside: Mask) -> tuple[float, Floats]:
    """Return the ROC-AUC of the patches `inside` and every patch's influence on it (0 outside): see `placements`."""
    positive, negative = inside & judged.label, inside & ~judged.label
    of_positive, of_negative = placements(judged.score[positive], judged.score[negative])
    value = float(of_positive.mean())
    influence = np.zeros(len(inside))
    influence[positive] = (of_positive - value) / len(of_positive)
    influence[negative] = (of_negative - value) / len(of_negative)
    return value, influence


def sensitivity(judged: Judged, inside: Mask) -> tuple[float, Floats]:
    """Return the share of positives `inside` that are called positive, and each patch's influence on it."""
    return _share(judged.called, inside & judged.label)


def specificity(judged: Judged, inside: Mask) -> tuple[float, Floats]:
    """Return the share of negatives `inside` that are called negative, and each patch's influence on it."""
    return _share(~judged.called, inside & ~judged.label)


def _share(hit: Mask, of: Mask) -> tuple[float, Floats]:
    value = float(hit[of].mean())
    return value, np.where(of, hit - value, 0.0) / of.sum()


def f_beta(judged: Judged, inside: Mask) -> tuple[float, Floats]:
    """Return F-beta of the patches `inside` and each patch's influence on it (delta method of a ratio).

    F-beta = (1 + β²) TP / ((1 + β²) TP + β² FN + FP).
    """
    b2 = judged.beta**2
    hit = inside & judged.label & judged.called
    top = (1 + b2) * hit
    bottom = top + b2 * (inside & judged.label & ~judged.called) + (inside & ~judged.label & judged.called)
    if not bottom.sum():
        return float("nan"), np.zeros(len(inside))
    value = float(top.sum() / bottom.sum())
    return value, (top - value * bottom) / bottom.sum()


def all_positive_f_beta(judged: Judged, inside: Mask) -> tuple[float, Floats]:
    """Return the F-beta that calling every patch `inside` positive would have: no model, prevalence alone."""
    everything = Judged(judged.label, judged.score, np.ones_like(judged.called), judged.group, judged.beta)
    return f_beta(everything, inside)


METRICS = {
    "roc_auc": roc_auc,
    "sensitivity": sensitivity,
    "specificity": specificity,
    "f_beta": f_beta,
    "f_beta_all_positive": all_positive_f_beta,
}

_CLASS = {"sensitivity": True, "specificity": False}  # the one class that these are made of; the others need both


def gap_of(metric: str, judged: Judged, inside: Mask) -> Gap:
    """Compare a metric between a slice and the rest.

    Args:
        metric: a key of `METRICS`.
        judged: the N patches of a split.
        inside: bool (N,), True in the slice; both sides need the classes that the metric is made of.
    """
    value, here = METRICS[metric](judged, inside)
    rest_value, there = METRICS[metric](judged, ~inside)
    groups, others = (_groups(metric, judged, side) for side in (inside, ~inside))
    low, high = _interval(value, _clustered_error(here, judged.group), groups)
    # Few slides say little about their spread: Student's t with the slides of the slice, not the normal law.
    freedom = max(groups - 1, 1)
    on_logits = 0 < value < 1 and 0 < rest_value < 1
    if on_logits:
        difference = _logit(value) - _logit(rest_value)
        influence = here / (value * (1 - value)) - there / (rest_value * (1 - rest_value))
    else:  # no logit at 0 and 1
        difference, influence = value - rest_value, here - there
    error = _clustered_error(influence, judged.group) if min(groups, others) > 1 else math.inf
    p = float(student.cdf(difference / error, freedom)) if error > 0 else float(difference >= 0)
    if value == 0:  # nothing varies where all went wrong: each group is one trial that the rest would fail as well
        rest_low, _ = _interval(rest_value, _clustered_error(there, judged.group), others)
        p = (1 - rest_low) ** groups
    scale = (difference, error) if on_logits else (math.nan, math.nan)
    return Gap(value, low, high, rest_value, value - rest_value, p, *scale, freedom)


def beyond_usual(slides: Sequence[Gap]) -> Floats:
    """Test each of K slides against how much slides differ anyway.

    Every slide has a stain, a scanner and a patient of its own, so that of many slides some are always worse than the
    rest. The variance between slides is estimated from the others (DerSimonian and Laird 1986, Controlled Clinical
    Trials 7:177) and added to the slide's own.

    Args:
        slides: one metric's gap of each slide to the rest of the split.

    Returns:
        float64 (K,), one-sided p-values; those of `slides` where a value is 0 or 1 or fewer than three can be compared.
    """
    # A slide on which all went wrong is one trial of the rest's rate, however many patches it has.
    p = np.array([max(gap.p, 1 - gap.rest_value) if gap.value == 0 else gap.p for gap in slides])
    difference, error = (np.array([getattr(gap, name) for gap in slides]) for name in ("difference", "error"))
    usable = np.flatnonzero(np.isfinite(difference) & (error > 0))
    for slide in usable if len(usable) > 3 else usable[:0]:
        others = usable[usable != slide]
        weight = error[others] ** -2
        spread = (weight * (difference[others] - np.average(difference[others], weights=weight)) ** 2).sum()
        between = (spread - (len(others) - 1)) / (weight.sum() - (weight**2).sum() / weight.sum())
        whole = math.sqrt(error[slide] ** 2 + max(0.0, between))
        p[slide] = max(
            p[slide], float(student.cdf(difference[slide] / whole, min(slides[slide].freedom, len(others) - 1)))
        )
    return p


def holm(p: Floats) -> Floats:
    """Correct p-values (m,) so that all claims below α together are false with probability α at most (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _groups(metric: str, judged: Judged, side: Mask) -> int:
    """Count the groups that a metric of the patches in `side` rests on; of two classes the one on fewer limits it."""
    classes = (_CLASS[metric],) if metric in _CLASS else (True, False)
    return min(int(np.count_nonzero(np.bincount(judged.group[side & (judged.label == one)]))) for one in classes)


def _clustered_error(influence: Floats, group: NDArray[np.int64]) -> float:
    """Return the standard error of a sum of influences whose groups are independent of each other.

    It is never less than that of independent patches. Where few patches are wrong they may lie on one slide, and cancel
    each other there: two mistakes in all, one in the slice and one outside, would then pass for proof of a weakness.
    """
    sums = np.bincount(group, weights=influence)
    involved = len(np.unique(group[influence != 0]))
    correction = involved / (involved - 1) if involved > 1 else 1.0
    return float(np.sqrt(max(correction * (sums**2).sum(), (influence**2).sum())))


def _interval(value: float, error: float, groups: int) -> tuple[float, float]:
    """Return the 95 % interval of a value in [0, 1]: symmetric on the logit scale, so that it stays inside."""
    if not 0 < value < 1:
        # Nothing varied. With n independent groups all alike, a share below 0.05^(1/n) can still be excluded
        # (Hanley & Lippman-Hand 1983, JAMA 249:1743, "if nothing goes wrong, is everything all right?").
        reach = (1 - LEVEL) ** (1 / groups)
        return (reach, 1.0) if value == 1 else (0.0, 1 - reach) if value == 0 else (value, value)
    if groups < 2:  # how slides differ cannot be known from one
        return 0.0, 1.0
    half = float(student.ppf((1 + LEVEL) / 2, groups - 1)) * error / (value * (1 - value))
    return float(expit(_logit(value) - half)), float(expit(_logit(value) + half))
