"""Figures of runs show every run, step and pair that they are given."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest

from pcam.config import build_config
from pcam.training import Run, train
from pcam.training.gradients import Spike
from pcam.training.plots import gradient_norms, pair_gaps, schedules
from pcam.training.twins import Twins

matplotlib.use("Agg")
TREE = {"model": {"name": "mlp", "hidden": 4}, "train": {"epochs": 2, "batch_size": 16, "threads": 1}}


@pytest.fixture(scope="module")
def runs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    return [train(build_config(TREE, [f"seed={seed}"]), tiny, folder, progress=False) for seed in (0, 1)]


def test_gradient_norms(runs: list[Run]) -> None:
    (axes,) = gradient_norms(runs, [[Spike(1, 0, 2.0, 1.0)], []]).axes
    thin, thick, *_ = axes.lines
    assert list(thin.get_ydata()) == [row["grad_norm"] for row in runs[0].steps]
    assert len(thick.get_ydata()) == len(runs[0].steps)
    assert any(list(line.get_xdata()) == [1] for line in axes.lines)
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"seed 0", "seed 1"}


def test_schedules(runs: list[Run]) -> None:
    left, right = schedules({"one_cycle": runs, "other": runs[1:]}).axes
    assert list(left.lines[0].get_ydata()) == [row["lr"] for row in runs[0].steps]
    assert list(right.lines[1].get_ydata()) == [row["valid_loss"] for row in runs[1].epochs]
    means = [(a["valid_loss"] + b["valid_loss"]) / 2 for a, b in zip(runs[0].epochs, runs[1].epochs, strict=True)]
    assert list(right.lines[0].get_ydata()) == pytest.approx(means)
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in (left, right))


def test_pairs_of_the_same_bits_alone_can_be_drawn(runs: list[Run]) -> None:
    (axes,) = pair_gaps({"nothing": Twins("nothing", (runs[0], runs[0]))}).axes
    assert [text.get_text() for text in axes.texts] == ["same bits"] and not axes.lines


def test_pair_gaps(runs: list[Run]) -> None:
    pairs = {"nothing": Twins("nothing", (runs[0], runs[0])), "seed": Twins("seed", (runs[0], runs[1]))}
    (axes,) = pair_gaps(pairs).axes
    notes = [text.get_text() for text in axes.texts]
    assert notes[0] == "same bits"
    assert axes.get_xscale() == "log" and not axes.get_ygridlines()[0].get_visible()
    (line,) = axes.lines  # the pair of the same bits has no place on a logarithmic axis
    assert line.get_xdata()[-1] == pairs["seed"].gap("valid_loss")
    assert float(notes[1]) == pytest.approx(pairs["seed"].gap("valid_loss"), rel=0.1)
