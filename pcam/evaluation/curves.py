"""Figures of predictions: ROC and precision-recall curves, confusion matrix, cost of a threshold, calibration.

Each function draws one question's figure from predictions alone and returns it. Colours are Okabe and Ito's (2008),
which stay apart under the common kinds of colour blindness; line styles differ too, for print.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pcam.evaluation.calibration import reliability_table
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.ranking import counts_by_cut
from pcam.evaluation.thresholds import Confusion, Threshold, decision_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
STYLES = ("-", "--", "-.", ":")
_GREY = "#666666"


def roc_and_pr(models: Mapping[str, Predictions], threshold: Threshold | None = None) -> Figure:
    """ROC and precision-recall curves side by side, with chance and the decisions at a threshold.

    Args:
        models: name → labelled predictions with both classes, all on the same patches.
        threshold: marks the operating point of the first model.

    Raises:
        DataError: labels are missing, or the threshold was chosen on the split shown.
    """
    figure, (roc, pr) = panels_in_a_row(2)
    for number, (name, p) in enumerate(models.items()):
        style: dict[str, Any] = {"color": PALETTE[number % len(PALETTE)], "linestyle": STYLES[number % len(STYLES)]}
        style["label"] = name
        _, tp, fp = counts_by_cut(p.labels, p.score)
        sensitivity = tp / tp[-1]
        roc.plot(fp / fp[-1], sensitivity, **style)
        # From the second point on: nothing called positive has no precision.
        pr.plot(sensitivity[1:], tp[1:] / (tp[1:] + fp[1:]), **style)
        if threshold is not None and number == 0:
            called, label = threshold.decide(p), p.labels == 1
            text = f"threshold {threshold.value:.3f}"
            point: dict[str, Any] = {"color": PALETTE[7], "marker": "o", "linestyle": "", "label": text}
            roc.plot(called[~label].mean(), called[label].mean(), **point)
            if called.any():
                pr.plot(called[label].mean(), label[called].mean(), **point)
    prevalence = float(next(iter(models.values())).labels.mean())
    roc.plot([0, 1], [0, 1], color=_GREY, linewidth=1, label="chance")
    pr.plot([0, 1], [prevalence, prevalence], color=_GREY, linewidth=1, label="chance (prevalence)")
    roc.set(xlabel="False positive rate (1 − specificity)", ylabel="Sensitivity", title="ROC")
    pr.set(xlabel="Sensitivity (recall)", ylabel="Precision", title="Precision-recall")
    for axes in (roc, pr):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.legend(loc="lower right" if axes is roc else "lower left", fontsize=8, frameon=False)
    return figure


def confusion_figure(confusion: Confusion) -> Figure:
    """Confusion matrix with counts and, in each row, the share of its class."""
    figure, (axes,) = panels_in_a_row(1, width=4.0)
    counts = np.array([[confusion.tn, confusion.fp], [confusion.fn, confusion.tp]])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.3)
    names = [["true negative", "false positive"], ["false negative", "true positive"]]
    for row in range(2):
        for column in range(2):
            share = shares[row, column]
            text = f"{counts[row, column]:,}\n{names[row][column]}\n{share:.1%} of row"
            axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.85 else "black")
    axes.set(xticks=[0, 1], yticks=[0, 1], xlabel="Decision", ylabel="Label")
    axes.set_xticklabels(["no tumour", "tumour"])
    axes.set_yticklabels(["no tumour", "tumour"], rotation=90, va="center")
    axes.grid(visible=False)
    return figure


def cost_curve(predictions: Predictions, threshold: Threshold, cost_fn: float, cost_fp: float) -> Figure:
    """Mean cost per patch against the threshold, with sensitivity and specificity, and the chosen threshold marked.

    Raises:
        DataError: labels are missing, or the threshold was chosen on the split shown.
    """
    threshold.decide(predictions)
    figure, (costs, rates) = panels_in_a_row(2)
    grid = np.linspace(0, 1, 401)
    positive = np.sort(predictions.score[predictions.labels == 1])
    negative = np.sort(predictions.score[predictions.labels == 0])
    sensitivity = 1 - np.searchsorted(positive, grid) / len(positive)
    specificity = np.searchsorted(negative, grid) / len(negative)
    missed, alarms = (1 - sensitivity) * len(positive), (1 - specificity) * len(negative)
    costs.plot(grid, (cost_fn * missed + cost_fp * alarms) / len(predictions), color=PALETTE[0], label="all mistakes")
    costs.plot(grid, cost_fn * missed / len(predictions), color=PALETTE[1], linestyle="--", label="missed positives")
    costs.plot(grid, cost_fp * alarms / len(predictions), color=PALETTE[2], linestyle="-.", label="false alarms")
    rates.plot(grid, sensitivity, color=PALETTE[1], linestyle="--", label="sensitivity")
    rates.plot(grid, specificity, color=PALETTE[2], linestyle="-.", label="specificity")
    for axes in (costs, rates):
        label = f"chosen on {threshold.split}" if threshold.split else "fixed beforehand"
        axes.axvline(threshold.value, color=PALETTE[7], linewidth=1, linestyle=":", label=label)
        axes.set(xlabel="Threshold (score)", xlim=(0, 1))
        axes.legend(fontsize=8, frameon=False)
    costs.set(ylabel=f"Mean cost per patch\n({cost_fn:g} per miss, {cost_fp:g} per false alarm)", ylim=(0, None))
    rates.set(ylabel="Rate", ylim=(-0.02, 1.02))
    return figure


def reliability_figure(models: Mapping[str, Predictions], bins: int = 10, groups: np.ndarray | None = None) -> Figure:
    """Share of positives against mean score in bins of equal count, with Wilson's 95 % intervals.

    Args:
        models: name → labelled predictions, all on the same patches.
        bins: number of bins.
        groups: (N,), slide or overlap group of each patch, which the intervals then respect.

    Raises:
        DataError: labels are missing.
    """
    figure, (axes,) = panels_in_a_row(1, width=4.2)
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, label="perfectly calibrated")
    for number, (name, p) in enumerate(models.items()):
        table = reliability_table(p, bins, groups)
        share = table["share_positive"]
        # Rounding may put an end of Wilson's interval a hair inside the share at 0 and 1.
        bars = np.clip([share - table["low"], table["high"] - share], 0, None)
        axes.errorbar(
            table["mean_score"], share, bars, label=name, color=PALETTE[number], marker="os^D"[number % 4],
            linestyle=STYLES[number % len(STYLES)], linewidth=1, markersize=4, capsize=2,
        )  # fmt: skip
    axes.set(xlabel="Mean score of the bin", ylabel="Share of positives", aspect="equal")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(fontsize=8, frameon=False)
    return figure


def decision_figure(models: Mapping[str, Predictions], implied: float) -> Figure:
    """Decision curves: net benefit against the threshold probability, beside acting on all patches and on none.

    Args:
        models: name → labelled, calibrated predictions with both classes, all on the same patches.
        implied: the probability that the stated costs imply; marked.

    Raises:
        DataError: as `decision_curve`.
    """
    figure, (axes,) = panels_in_a_row(1, width=5.6)
    grid = np.linspace(0, 0.99, 199)
    for number, (name, p) in enumerate(models.items()):
        table = decision_curve(p, grid)
        axes.plot(grid, table["model"], color=PALETTE[number], linestyle=STYLES[number % len(STYLES)], label=name)
    prevalence = float(p.labels.mean())
    axes.plot(grid, table["all"], color=_GREY, linestyle="--", linewidth=1, label="call every patch tumour")
    axes.plot(grid, table["none"], color=PALETTE[7], linewidth=1, label="call none")
    axes.axvline(implied, color=PALETTE[7], linewidth=1, linestyle=":", label=f"stated costs: {implied:.2f}")
    axes.set(xlabel="Threshold probability t (a false alarm costs t / (1 − t) of a missed tumour)")
    axes.set(ylabel="Net benefit (tumours per patch)", xlim=(0, 1), ylim=(-0.25 * prevalence, 1.08 * prevalence))
    figure.legend(*axes.get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside lower center", ncols=2)
    return figure


def panels_in_a_row(count: int, width: float = 8.0, columns: int = 0) -> tuple[Figure, tuple[Axes, ...]]:
    """A figure of `count` panels of the book's look, in one row or, where `columns` are given, in rows of so many."""
    import matplotlib.pyplot as plt

    columns = columns or count
    rows = -(-count // columns)
    size = (width, 3.9 if rows == 1 else 2.6 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for spare in axes.flat[count:]:
        spare.remove()
    panels = tuple(axes.flat[:count])
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(visible=True, color="#DDDDDD", linewidth=0.6)
        panel.set_axisbelow(True)
    return figure, panels
