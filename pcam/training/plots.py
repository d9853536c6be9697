"""Figures of what runs have logged; colours after Okabe and Ito, told apart without colour vision too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from pcam.training.gradients import Spike, epoch_means
from pcam.training.runs import Run
from pcam.training.twins import Twins

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))


def gradient_norms(runs: Sequence[Run], spikes: Sequence[Sequence[Spike]] = ()) -> Figure:
    """Draw the gradient norm of every step (thin) and the mean of every epoch (thick) of runs with other seeds.

    Args:
        runs: one line each.
        spikes: of each run, ringed.
    """
    figure, axes = plt.subplots(figsize=(7.4, 3.6))
    for run, colour in zip(runs, COLOURS, strict=False):
        steps, means = run.steps, epoch_means(run.steps)
        axes.plot([r["step"] for r in steps], [r["grad_norm"] for r in steps], color=colour, lw=0.6, alpha=0.55)
        places = [r["step"] for r in steps]
        level = [means[r["epoch"]] for r in steps]
        axes.plot(places, level, color=colour, lw=2, drawstyle="steps-mid", label=f"seed {run.config.seed}")
    for found, colour in zip(spikes, COLOURS, strict=False):
        axes.plot([s.step for s in found], [s.norm for s in found], "o", mfc="none", ms=9, mec=colour)
    axes.set(yscale="log", xlabel="optimiser step", ylabel="global gradient norm (log scale)")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))  # more labels would overlap
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.legend(title="thin: each step; thick: epoch mean; rings: spikes", ncols=len(runs), frameon=False)
    return _clean(figure)


def schedules(runs: Mapping[str, Sequence[Run]]) -> Figure:
    """Draw the rate of every step (first seed) and the valid loss of every epoch (mean, and range over seeds).

    Args:
        runs: by the name of their schedule, equally long ones that differ in their seed.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6))
    for (name, of_seeds), colour, style in zip(runs.items(), COLOURS, STYLES, strict=False):
        steps = of_seeds[0].steps
        label = name.replace("_", "-")
        left.plot([r["step"] for r in steps], [r["lr"] for r in steps], color=colour, ls=style, label=label)
        losses = [[row["valid_loss"] for row in run.epochs] for run in of_seeds]
        by_epoch = list(zip(*losses, strict=True))
        done = range(1, len(by_epoch) + 1)
        right.fill_between(done, [min(x) for x in by_epoch], [max(x) for x in by_epoch], color=colour, alpha=0.12, lw=0)
        right.plot(done, [fmean(x) for x in by_epoch], color=colour, ls=style, marker=".", label=label)
    left.set(xlabel="optimiser step", ylabel="learning rate")
    right.set(xlabel="epochs done", ylabel="valid loss (nats)")
    right.legend(frameon=False)
    return _clean(figure)


def pair_gaps(pairs: Mapping[str, Twins]) -> Figure:
    """Draw how far the two runs of each pair end from each other, in valid loss; pairs of the same bits say so.

    The axis is logarithmic, as another order of a sum and another seed are some powers of ten apart.
    """
    figure, axes = plt.subplots(figsize=(7.2, 0.36 * len(pairs) + 0.9))
    gaps = {name: pair.gap("valid_loss") for name, pair in pairs.items()}
    apart = [gap for gap in gaps.values() if gap] or [1.0]
    start = min(apart) / 10
    for place, (name, pair) in enumerate(pairs.items()):
        end = max(gaps[name], start)
        if gaps[name]:
            axes.plot([start, end], [place, place], color=COLOURS[0], lw=2.5, marker="o", markevery=[1])
        note = "same bits" if pair.same_weights else f"{gaps[name]:.1e}"
        axes.annotate(note, (end, place), (8, 0), textcoords="offset points", va="center")
    axes.set(xscale="log", xlim=(start, max(apart) * 20), yticks=range(len(pairs)), ylim=(len(pairs) - 0.5, -0.5))
    axes.set_yticklabels(pairs)
    axes.set(xlabel="gap in valid loss between the two runs (nats, log scale)", ylabel="switched off or changed")
    _clean(figure)
    axes.grid(visible=False, axis="y")  # it would strike through the notes
    return figure


def _clean(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.tight_layout()
    return figure
