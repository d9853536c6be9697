"""Figures of what runs have logged; colours after Okabe and Ito, told apart without colour vision too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from pcam.training.gradients import epoch_means
from pcam.training.runs import Run

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))


def gradient_norms(runs: Sequence[Run]) -> Figure:
    """Draw the gradient norm of every step (thin) and the mean of every epoch (thick) of runs with other seeds."""
    figure, axes = plt.subplots(figsize=(8, 3.6))
    for run, colour in zip(runs, COLOURS, strict=False):
        steps, means = run.steps, epoch_means(run.steps)
        axes.plot([r["step"] for r in steps], [r["grad_norm"] for r in steps], color=colour, lw=0.6, alpha=0.55)
        places = [r["step"] for r in steps]
        axes.plot(places, [means[r["epoch"]] for r in steps], color=colour, lw=2, label=f"seed {run.config.seed}")
    axes.set(yscale="log", xlabel="optimiser step", ylabel="global gradient norm (log scale)")
    axes.legend(title="thin: each step; thick: epoch mean", ncols=len(runs), frameon=False)
    return _clean(figure)


def schedules(runs: Mapping[str, Run]) -> Figure:
    """Draw the learning rate of every step, and the valid loss after every epoch, of runs by schedule name."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    for (name, run), colour, style in zip(runs.items(), COLOURS, STYLES, strict=False):
        steps, epochs = run.steps, run.epochs
        label = name.replace("_", "-")
        left.plot([r["step"] for r in steps], [r["lr"] for r in steps], color=colour, ls=style, label=label)
        done = [r["epoch"] + 1 for r in epochs]
        right.plot(done, [r["valid_loss"] for r in epochs], color=colour, ls=style, marker=".", label=label)
    left.set(xlabel="optimiser step", ylabel="learning rate")
    right.set(xlabel="epochs done", ylabel="valid loss (nats)")
    right.legend(frameon=False)
    return _clean(figure)


def _clean(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.tight_layout()
    return figure
