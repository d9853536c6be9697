"""Differences between runs, and the one place of every parameter."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcam.config import Config, build_config, config_leaves
from pcam.training import train
from pcam.training.compare import (
    Difference,
    changed_libraries,
    config_difference,
    library_versions,
    parameters,
    result_difference,
)

TREE = {"model": {"name": "mlp", "hidden": 4}, "train": {"epochs": 1, "batch_size": 16, "threads": 1}}


def test_config_difference_names_each_changed_leaf() -> None:
    first, second = build_config(TREE), build_config(TREE, ["seed=1", "train.augment.flip=true"])
    assert config_difference(first, second) == [
        Difference("seed", 0, 1),
        Difference("train.augment.flip", False, True),
    ]
    assert config_difference(first, first) == []


@pytest.mark.parametrize(
    ("first", "second", "change"),
    [(1, 3, 2), (0.5, 0.25, -0.25), ("a", "b", None), (True, False, None), (None, 1, None)],
)
def test_change_is_of_numbers_only(first: object, second: object, change: float | None) -> None:
    assert Difference("k", first, second).change == change


def test_result_difference(tiny: Path, tmp_path: Path) -> None:
    runs = [train(build_config(TREE, [f"seed={seed}"]), tiny, tmp_path, progress=False) for seed in (0, 1)]
    rows = result_difference(*runs)
    assert [row.key for row in rows] == ["train_loss", "valid_loss", "valid_auc", "valid_accuracy"]
    assert rows[0].change == pytest.approx(runs[1].final["train_loss"] - runs[0].final["train_loss"])


def test_every_leaf_is_listed_with_its_default() -> None:
    assert {leaf.key: leaf.default for leaf in parameters()} == config_leaves(Config())
    leaves = {leaf.key: leaf for leaf in parameters()}
    assert leaves["train.lr"].type == "float"
    assert leaves["train.lr"].limits
    assert "quarter turns" in leaves["train.augment.rotate"].meaning


def test_changed_library() -> None:
    recorded = library_versions()
    assert changed_libraries(recorded) == []
    (found,) = changed_libraries({**recorded, "numpy": "1.0"})
    assert (found.key, found.first, found.second) == ("numpy", "1.0", recorded["numpy"])
