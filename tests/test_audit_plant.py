"""Planting keeps its books: the truth names every changed patch, and no other patch changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tissue import textured, write_folder

from pcam.audit.plant import ISSUE_OF, plant
from pcam.data.format import open_split
from pcam.errors import DataError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "source", {"train": textured(60), "test": textured(20, seed=1)})


def test_truth_names_every_changed_patch(source: Path, tmp_path: Path) -> None:
    shares = dict.fromkeys(set(ISSUE_OF) - {"nan", "out_of_range", "flipped_label"}, 0.025)
    truth = plant(source, tmp_path / "out", dict(sorted(shares.items())), seed=1)
    named = {row.patch for row in truth}
    assert len(named) == len(truth) == 20
    for name in ("train", "test"):
        before, after = (open_split(d, name).read(slice(None)) for d in (source, tmp_path / "out"))
        changed = np.flatnonzero((before != after).any(axis=(1, 2, 3))).tolist()
        assert changed == sorted(index for split, index in named if split == name)


def test_broken_values_make_the_split_float32(source: Path, tmp_path: Path) -> None:
    truth = plant(source, tmp_path / "out", {"nan": 0.05, "out_of_range": 0.05})
    for split in {row.patch[0] for row in truth}:
        raw = open_split(tmp_path / "out", split).read_raw(slice(None))
        assert raw.dtype == np.float32
        for row in truth:
            if row.patch[0] == split:
                values = raw[row.patch[1]]
                assert (np.isnan(values) if row.defect == "nan" else values == 1e5).sum() == 75


def test_flipped_labels_and_triggers(source: Path, tmp_path: Path) -> None:
    truth = plant(source, tmp_path / "out", {"trigger": 0.05, "flipped_label": 0.05})
    for row in truth:
        old, new = (open_split(d, row.patch[0]).labels[row.patch[1]] for d in (source, tmp_path / "out"))  # type: ignore[index]
        assert (old == new == 1) if row.defect == "trigger" else (old != new)


def test_the_same_seed_plants_the_same(source: Path, tmp_path: Path) -> None:
    one, two, other = (
        plant(source, tmp_path / name, {"restained": 0.1}, seed=seed, limit=20)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one == two != other


def test_unknown_defect_and_too_many(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown defect 'blck'; did you mean 'black'\?"):
        plant(source, tmp_path / "out", {"blck": 0.1})
    with pytest.raises(DataError, match="defect 'exact': too few patches"):
        plant(source, tmp_path / "out", {"exact": 0.9})
