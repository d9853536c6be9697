"""Changed copies of a data folder: whole, in the contract's form, and of the same kind as their source."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pcam.data.copies import write_copy
from pcam.data.format import data_kind, open_split, validate
from pcam.data.pack import pack


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_copy_keeps_the_contract_and_its_kind(tiny: Path, tmp_path: Path, dtype: type) -> None:
    split = open_split(tiny, "test")
    assert split.labels is not None
    write_copy(tiny, tmp_path, {"test": split.read(slice(None)).astype(dtype)}, {"test": split.labels})
    assert validate(tmp_path, "test") == []
    assert open_split(tmp_path, "test").fingerprint() == split.fingerprint()
    assert data_kind(tmp_path) == "synthetic"


@pytest.mark.parametrize("damage", ["lost", "folder"])
def test_a_copy_of_a_sample_is_one_though_its_marker_is_gone(tiny: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(tiny, tmp_path / "sample")
    (tmp_path / "sample" / "sample.json").unlink()
    if damage == "folder":
        (tmp_path / "sample" / "sample.json").mkdir()
    split = open_split(tmp_path / "sample", "test")
    assert split.labels is not None and data_kind(split.directory) == "synthetic"
    write_copy(split.directory, tmp_path / "changed", {"test": split.read(slice(None))}, {"test": split.labels})
    pack(split.directory, tmp_path / "packed", progress=False)
    assert data_kind(tmp_path / "changed") == data_kind(tmp_path / "packed") == "synthetic"
