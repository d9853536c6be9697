"""Broken values are found exactly, counted per class, and tested against the label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tissue import textured, write_folder

from pcam.audit import integrity
from pcam.audit.scan import as_bytes, read_block, scan
from pcam.data.format import open_split, split_path
from pcam.errors import DataError


def planted(folder: Path) -> Path:
    x = textured(12).astype(np.float32)
    x[1] = 0
    x[2] = 255
    x[3] = (40, 90, 200)
    x[4, 5, 6, 0] = np.nan
    x[5, 10:15, 10:15] = 1e5
    x[6, 0, 0, 0] = -1
    x[7, 0, 0, 0] += 0.5 if x[7, 0, 0, 0] < 255 else -0.5
    x[8] = np.nan
    x[9] = 0
    x[9, 0, 0, 0] = np.inf
    x[10] = 0
    x[10, 50, 50, 1] = 1  # almost black is not black
    return write_folder(folder, {"train": x})


def test_each_issue_is_found_once_and_exactly(tmp_path: Path) -> None:
    facts = scan(planted(tmp_path), ["train"]).facts
    found = {issue: patches.tolist() for issue, (patches, _) in integrity.find(facts).items()}
    assert found == {"black": [1], "white": [2], "constant": [3], "nan": [4, 8], "out_of_range": [5, 6, 9]}
    assert np.flatnonzero(facts.fractional).tolist() == [7]


def test_score_is_the_share_of_broken_values(tmp_path: Path) -> None:
    found = integrity.find(scan(planted(tmp_path), ["train"]).facts)
    assert found["nan"][1] == pytest.approx([1 / 27648, 1])
    assert found["out_of_range"][1] == pytest.approx([75 / 27648, 1 / 27648, 1 / 27648])


def test_as_bytes_never_wraps_around() -> None:
    raw = np.array([np.nan, -3, 0.4, 254.6, 1e5, np.inf], np.float32)
    assert as_bytes(raw).tolist() == [0, 0, 0, 255, 255, 255]


def test_damage_that_follows_the_label_is_told_from_damage_that_does_not() -> None:
    label = (np.arange(400) % 2).astype(np.int8)
    even = integrity.count("train", "black", np.arange(400) % 20 < 2, label)
    tied = integrity.count("train", "black", (np.arange(400) % 20 < 4) & (label == 1), label)
    assert even.p_value is not None and even.p_value > 0.5
    assert tied.p_value is not None and tied.p_value < 1e-6
    assert (even.negative.count, even.positive.count) == (20, 20)  # type: ignore[union-attr]
    assert even.total.low < even.total.share == 0.1 < even.total.high


def test_without_labels_there_is_no_test() -> None:
    counted = integrity.count("test", "black", np.array([True, False]), np.full(2, -1, np.int8))
    assert counted.negative is None and counted.p_value is None and counted.total.count == 1


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    from broken import make_broken

    with pytest.raises(DataError, match=r"train_x\.h5: x: damaged: patches near 0 cannot be read; fetch it again"):
        scan(make_broken("damaged_chunk", tmp_path / "data"), ["train"])


@pytest.mark.parametrize("storage", [{}, {"chunks": (4, 96, 96, 3), "compression": "gzip"}], ids=["mapped", "chunks"])
def test_a_block_is_what_the_split_holds(storage: dict[str, object], tmp_path: Path) -> None:
    patches = textured(133)
    split = open_split(write_folder(tmp_path, {"train": patches}, **storage), "train")
    np.testing.assert_array_equal(read_block(split, 0), patches[:128])
    np.testing.assert_array_equal(read_block(split, 128), patches[128:])


def test_a_file_that_became_shorter_is_told_in_one_line(tmp_path: Path) -> None:
    split = open_split(write_folder(tmp_path, {"train": textured(8)}), "train")
    assert len(split) == 8
    path = split_path(tmp_path, "train", "x")
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"train_x\.h5: x: damaged: patches near 0 cannot be read; fetch it again"):
        read_block(split, 0)
