"""A batch beside its split, and its hard patches."""

from __future__ import annotations

from pathlib import Path

import h5py
import matplotlib
import numpy as np
import pytest

from pcam.config import build_config
from pcam.data.format import Split, open_split, split_path
from pcam.errors import DataError
from pcam.evaluation.batches import batch_contrast, batch_figure, chance_bound, patch_losses
from pcam.evaluation.features import FEATURE_NAMES
from pcam.training import train

matplotlib.use("Agg")


@pytest.fixture
def split(tiny: Path) -> Split:
    return open_split(tiny, "train")


def test_an_odd_batch_stands_out(split: Split) -> None:
    brightness = split.read(slice(None)).mean((1, 2, 3))
    table = batch_contrast(split, np.argsort(brightness)[:8].astype(np.int64)).set_index("feature")
    assert [*table.index] == [*FEATURE_NAMES, "share of positives"]
    assert table.loc["brightness", "standard errors away"] < -2
    assert table.loc["brightness", "batch"] < table.loc["brightness", "split"]


def test_the_whole_split_does_not(split: Split) -> None:
    table = batch_contrast(split, np.arange(len(split)))
    np.testing.assert_allclose(table["standard errors away"], 0, atol=1e-9)


@pytest.mark.parametrize(("n", "bound"), [(1, 1.960), (9, 2.773)])
def test_chance_bound(n: int, bound: float) -> None:
    assert chance_bound(n) == pytest.approx(bound, abs=1e-3)


def test_losses_are_those_of_the_finished_model(tiny: Path, tmp_path: Path) -> None:
    tree = {"model": {"name": "mlp", "hidden": 4}, "train": {"epochs": 1, "batch_size": 16, "threads": 1}}
    run = train(build_config(tree), tiny, tmp_path, progress=False)
    valid = open_split(tiny, "valid")
    losses = patch_losses(run, valid, np.arange(len(valid)))
    assert losses.mean() == pytest.approx(run.final["valid_loss"])


@pytest.mark.parametrize("count", [3, 20])
def test_figure_shows_the_hardest_first(split: Split, count: int) -> None:
    indices, losses = np.arange(count), np.linspace(0, 1, count)
    figure = batch_figure(split, indices, losses, columns=4, rows=2)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == min(count, 8)
    assert titles[0].startswith(f"{count - 1} · ") and titles[0].endswith("loss 1.00")


def test_labels_are_needed(tmp_path: Path) -> None:
    with h5py.File(split_path(tmp_path, "test", "x"), "w") as file:
        file["x"] = np.zeros((2, 96, 96, 3), np.uint8)
    with pytest.raises(DataError, match="test has no labels; a training batch needs them"):
        batch_contrast(open_split(tmp_path, "test"), np.array([0]))
