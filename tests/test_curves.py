"""Figures of predictions and of a search: what is drawn is what was computed."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pcam.errors import DataError
from pcam.evaluation import Predictions, choose_threshold, confusion_matrix, curves, fixed_threshold, search_plots
from pcam.evaluation.deployment import scenario_figure
from pcam.training.outcome import Finalist, Trial, TuneReport
from pcam.training.space import SPACES


@pytest.fixture(autouse=True)
def closed() -> object:
    yield
    plt.close("all")


def example(split: str, seed: int = 0, n: int = 200) -> Predictions:
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    return Predictions(split, np.arange(n), label, 1 / (1 + np.exp(-(2 * label - 1 + rng.normal(size=n)))))


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_roc_runs_from_corner_to_corner_and_marks_the_threshold() -> None:
    p, threshold = example("test"), choose_threshold(example("valid", 1), 5, 1)
    figure = curves.roc_and_pr({"model": p, "other": example("test", 2)}, threshold)
    roc, pr = figure.axes
    line = roc.lines[0].get_xydata()
    assert line[0].tolist() == [0, 0] and line[-1].tolist() == [1, 1]
    counts = confusion_matrix(p, threshold)
    point = roc.lines[1].get_xydata()[0]
    assert point.tolist() == [counts.fp / (counts.fp + counts.tn), counts.tp / (counts.tp + counts.fn)]
    assert pr.lines[0].get_ydata()[-1] == 0.5  # everything called positive: precision is the prevalence
    assert roc.get_xlabel() and pr.get_ylabel() == "Precision"


def test_confusion_figure_shows_counts_and_shares() -> None:
    counts = confusion_matrix(example("test"), fixed_threshold(0.5))
    shown = texts(curves.confusion_figure(counts))
    assert f"{counts.fn:,}\nfalse negative\n{counts.fn / 100:.1%} of row" in shown


def test_cost_curve_agrees_with_counting() -> None:
    p = example("test")
    figure = curves.cost_curve(p, fixed_threshold(0.3), cost_fn=5, cost_fp=1)
    grid, cost = figure.axes[0].lines[0].get_data()
    for place in (0, 120, 250, 400):
        counts = confusion_matrix(p, fixed_threshold(grid[place]))
        assert cost[place] == pytest.approx((5 * counts.fn + counts.fp) / len(p))
    assert "5 per miss, 1 per false alarm" in texts(figure) and "fixed beforehand" in texts(figure)


def test_reliability_figure_has_a_line_a_model() -> None:
    figure = curves.reliability_figure({"one": example("test"), "two": example("test", 3)})
    assert len(figure.axes[0].containers) == 2


def test_decision_figure_draws_all_and_none_beside_the_model() -> None:
    p = example("test")
    axes = curves.decision_figure({"cnn": p}, implied=1 / 6).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"cnn", "call every patch tumour", "call none", "stated costs: 0.17"}
    assert lines["cnn"].get_ydata()[0] == pytest.approx(p.labels.mean())
    assert not np.any(lines["call none"].get_ydata())


@pytest.mark.parametrize(
    "draw", [lambda p, t: curves.roc_and_pr({"m": p}, t), lambda p, t: curves.cost_curve(p, t, 5, 1)]
)
def test_a_threshold_of_the_split_shown_is_refused(draw: object) -> None:
    p = example("valid")
    with pytest.raises(DataError, match="chosen on 'valid'"):
        draw(p, choose_threshold(p, 5, 1))


def search() -> TuneReport:
    rng = np.random.default_rng(0)
    trials = []
    for number in range(6):
        params = {d.key: d.choices[0] if d.choices else rng.uniform(d.low, d.high) for d in SPACES["mlp"]}
        trials.append(Trial(number, params, 0.7 + 0.01 * number, f"run-{number}", "complete"))
    trials.append(Trial(6, trials[0].params, None, None, "fail"))
    best = Finalist(5, trials[5].params, [0.75, 0.74], ["a", "b"])
    return TuneReport("mlp", "tpe", "study.log", trials, [best], Finalist(None, {}, [0.7, 0.7], ["c", "d"]))


def test_search_figures_show_each_completed_trial() -> None:
    report, space = search(), SPACES["mlp"]
    history = search_plots.history_figure({"TPE": report}).axes[0]
    assert np.ma.count(history.collections[0].get_offsets()[:, 1]) == 6
    panels = search_plots.slices_figure(report, space).axes
    assert [len(panel.collections) for panel in panels] == [6] * len(space)
    parallel = search_plots.parallel_figure(report, space).axes[0]
    assert len(parallel.lines) == 6
    assert all(0 <= height <= 1 for line in parallel.lines for height in line.get_ydata())
    assert sum(line.get_linewidth() == 3 for line in parallel.lines) == 1


def test_scenario_figure_says_where_the_area_is_undefined() -> None:
    rows = [
        ("nothing", 0.9, 0.0, 0.0, "no"),
        ("blank glass", np.nan, 1.0, 1.0, "no"),
        ("weights lost", 0.6, 0, 0, "yes"),
    ]
    table = pd.DataFrame(rows, columns=["scenario", "roc_auc", "alarm_rate", "outliers", "canary"])
    figure = scenario_figure(table)
    assert texts(figure).count("undefined") == 1
    assert len(figure.axes[1].patches) == 9
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()  # rows side by side
