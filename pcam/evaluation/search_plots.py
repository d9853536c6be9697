"""Figures of a search: its history, and where in the space the good trials lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pcam.evaluation.curves import PALETTE, STYLES, panels_in_a_row
from pcam.training.outcome import TuneReport
from pcam.training.space import Dimension

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def history_figure(reports: dict[str, TuneReport]) -> Figure:
    """ROC-AUC on valid of each trial, and the best so far, for each search."""
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = panels_in_a_row(1, width=6.4)
    for number, (name, report) in enumerate(reports.items()):
        table, color = report.table(), PALETTE[number]
        # Later ones are hollow: two searches of one seed begin with the same trials.
        fill, size, marker = "none" if number else color, 22 + 40 * number, "os^D"[number % 4]
        place = (table["trial"] + 1, table["value"])
        axes.scatter(*place, edgecolors=color, facecolors=fill, s=size, marker=marker, label=name)
        style, label = STYLES[number % len(STYLES)], f"{name}, best so far"
        axes.step(table["trial"] + 1, table["best_so_far"], label=label, where="post", color=color, linestyle=style)
    axes.set(xlabel="Trial (in order of proposal)", ylabel="ROC-AUC on valid")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8, frameon=False)
    return figure


def slices_figure(report: TuneReport, space: tuple[Dimension, ...]) -> Figure:
    """One panel per searched key: ROC-AUC on valid against its value, the best over seeds marked."""
    figure, panels = panels_in_a_row(len(space), width=7.8, columns=3)
    scored = report.scored()
    for dimension, axes in zip(space, panels, strict=True):
        for trial, value in scored:
            chosen = trial.number == report.finalists[0].trial
            color, marker, size = (PALETTE[1], "D", 44) if chosen else (PALETTE[0], "o", 18)
            axes.scatter(trial.params[dimension.key], value, color=color, marker=marker, s=size)
        if dimension.log:
            axes.set_xscale("log")
        if dimension.choices:
            axes.set_xticks(dimension.choices)
        axes.set_xlabel(dimension.key)
        axes.tick_params(labelsize=8)
    low, high = scored[-1][1], scored[0][1]
    margin = 0.08 * max(high - low, 0.01)
    for axes in panels:
        axes.set_ylim(low - margin, high + margin)
    figure.supylabel("ROC-AUC on valid (diamond: best over seeds)", fontsize=10)
    return figure


def importance_figure(report: TuneReport, space: tuple[Dimension, ...], seed: int = 0) -> Figure:
    """Share of the variance of ROC-AUC on valid that each searched key explains over its range.

    Functional ANOVA on a random forest (Hutter et al. 2014, ICML), as Optuna has it; from a handful of trials it is a
    hint and no more.
    """
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    # Of the report's own trials: its journal may have gone on since.
    study = optuna.create_study(direction="maximize")
    ranges = {dimension.key: dimension.distribution for dimension in space}
    for trial in report.trials:
        if trial.value is not None:
            study.add_trial(optuna.create_trial(params=trial.params, distributions=ranges, value=trial.value))
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
    figure, (axes,) = panels_in_a_row(1, width=6.4)
    keys = sorted((dimension.key for dimension in space), key=lambda key: shares.get(key, 0.0))
    axes.barh(keys, [shares.get(key, 0.0) for key in keys], color=PALETTE[0])
    axes.set(xlabel=f"Share of the variance explained ({len(report.scored())} completed trials)", xlim=(0, 1))
    return figure


def parallel_figure(report: TuneReport, space: tuple[Dimension, ...]) -> Figure:
    """Parallel coordinates: one line per trial over all searched keys, coloured by its ROC-AUC on valid."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import Normalize

    scored = report.scored()
    colours = plt.get_cmap("cividis_r")
    scale = Normalize(scored[-1][1], scored[0][1])
    figure, (axes,) = panels_in_a_row(1, width=7.8)
    for trial, value in reversed(scored):  # the best on top
        heights = [_height(dimension, trial.params[dimension.key]) for dimension in space]
        chosen = trial.number == report.finalists[0].trial
        axes.plot(heights, color=colours(scale(value)), linewidth=3 if chosen else 1.4, alpha=0.9)
    for place, dimension in enumerate(space):
        ends = dimension.choices if dimension.choices else (dimension.low, dimension.high)
        for end in (ends[0], ends[-1]):
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
            place_of_text = (place + 0.03, _height(dimension, end))
            axes.text(*place_of_text, f"{end:g}", ha="left", va="center", fontsize=8, bbox=box, zorder=5)
    axes.set(xticks=range(len(space)), ylim=(-0.06, 1.06), yticks=[])
    axes.set_xticklabels([f"{d.key}{' (log)' if d.log else ''}" for d in space], fontsize=8)
    axes.grid(visible=True, axis="x", color="#999999")
    axes.set_ylabel("Position in the range")
    figure.colorbar(plt.cm.ScalarMappable(scale, colours), ax=axes, label="ROC-AUC on valid (thick: best over seeds)")
    return figure


def _height(dimension: Dimension, value: float) -> float:
    """Position of a value in its range, 0 to 1; choices are spaced evenly."""
    if dimension.choices:
        return dimension.choices.index(int(value)) / max(len(dimension.choices) - 1, 1)
    ends = np.array([dimension.low, dimension.high, value], dtype=np.float64)
    low, high, here = np.log(ends) if dimension.log else ends
    return float((here - low) / (high - low))
