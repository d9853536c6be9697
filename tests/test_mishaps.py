"""Each mishap is done, and seen."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pcam.config import build_config, config_leaves
from pcam.data.format import open_split, split_path
from pcam.errors import DataError
from pcam.training.mishaps import complaint, hashes_of_changed_leaves, run_names_of_copies


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("train.epoch=3", "unknown key 'train.epoch'; did you mean 'epochs'"),
        ("train.lr=fast", "'train.lr' is 'fast'"),
        ("train.epochs=0", "'train.epochs' is 0"),
    ],
)
def test_a_mistake_is_refused_in_one_line(override: str, answer: str) -> None:
    assert answer in complaint(override)
    assert "\n" not in complaint(override)


def test_what_is_right_is_not_refused() -> None:
    assert complaint("train.epochs=3") == ""


def test_every_leaf_moves_the_hash() -> None:
    moved = hashes_of_changed_leaves()
    assert moved.keys() == config_leaves(build_config({})).keys()
    assert all(moved.values())


def test_a_run_keeps_its_name_for_the_same_patches_only(tiny: Path, tmp_path: Path) -> None:
    names = run_names_of_copies(build_config({}), open_split(tiny, "valid"), tmp_path / "copies", patches=8)
    same = {what for what, name in names.items() if name == names["as it is"]}
    assert same == {"as it is", "in another folder", "compressed", "stored as float32"}
    assert len(set(names.values())) == 1 + len(names) - len(same)


def test_a_split_without_labels_is_refused(tmp_path: Path) -> None:
    with h5py.File(split_path(tmp_path, "test", "x"), "w") as file:
        file["x"] = np.zeros((2, 96, 96, 3), np.uint8)
    with pytest.raises(DataError, match="test has no labels; a run needs them"):
        run_names_of_copies(build_config({}), open_split(tmp_path, "test"), tmp_path / "copies")
