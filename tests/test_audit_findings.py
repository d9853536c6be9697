"""Rows, copies and groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tissue import canvas, textured, write_folder

from pcam.audit import audit, findings, symmetry, tables
from pcam.audit.scan import scan
from pcam.data.format import split_path


def test_groups_are_connected_components() -> None:
    pairs = np.array([[0, 3], [3, 5], [1, 2]])
    assert findings.groups(6, pairs).tolist() == [0, 1, 1, 0, 2, 0]


def test_patches_of_one_slide_are_one_group() -> None:
    together = np.array([7, -1, 7, -1, 9])
    assert findings.groups(5, np.array([[1, 4]]), together=together).tolist() == [0, 1, 0, 2, 1]


def test_pairs_extend_to_exact_copies() -> None:
    digest = np.array([b"a", b"b", b"a", b"c"])
    pairs, row, order = findings.with_copies(np.array([[0, 1], [1, 3]]), digest)
    assert sorted(zip(map(tuple, pairs.tolist()), row.tolist(), order.tolist(), strict=True)) == [
        ((0, 1), 0, 1),
        ((1, 2), 0, -1),
        ((1, 3), 1, 1),
    ]


def test_without_keeps_what_is_new() -> None:
    listed = np.array([[0, 1]])
    assert findings.without(np.array([[0, 1], [0, 2]]), listed).tolist() == [False, True]


def test_csv_names_splits_and_leaves_absent_partners_empty(tmp_path: Path) -> None:
    found = scan(write_folder(tmp_path, {"train": textured(3), "test": textured(2, seed=1)}), ["train", "test"])
    rows = findings.collect(
        [
            ("black", np.array([4]), np.ones(1)),
            ("exact_duplicate", np.array([[0, 3]]), np.ones(1)),
            ("shared_slide", np.array([[1, 4]]), np.array([0.25])),
        ]
    )
    rows.write(tmp_path / "findings.csv", found)
    assert (tmp_path / "findings.csv").read_text().splitlines() == [
        "split,index,issue,score,partner_split,partner_index",
        "test,1,black,1,,",
        "train,0,exact_duplicate,1,test,0",
        "test,1,shared_slide,0.25,train,1",
    ]
    assert findings.tied_to(found, rows, "test").tolist() == [True, True]
    assert findings.tied_to(found, rows, "train").tolist() == [True, True, False]
    assert findings.tied_to(found, rows, "test", others=["valid"]).tolist() == [False, False]


@pytest.mark.parametrize("kind", ["exact_duplicate", "symmetry_duplicate", "near_duplicate", "pixel_overlap"])
def test_of_many_copies_each_is_tied(kind: str, tmp_path: Path) -> None:
    # Forty in each split: more than have all their pairs listed.
    slide, rng = canvas(96, 128, seed=3), np.random.default_rng(0)
    base = slide[:, :96]
    copies = {name: np.repeat(base[None], 40, axis=0) for name in ("train", "test")}
    if kind == "symmetry_duplicate":
        copies["test"][1:] = np.stack([symmetry.apply(base, 1 + k % 6) for k in range(39)])
        copies["train"][:] = symmetry.apply(base, 7)
    elif kind == "near_duplicate":
        for array in copies.values():
            array[:] = np.clip(array + rng.normal(0, 3, array.shape), 0, 255)
    elif kind == "pixel_overlap":
        copies["test"][:] = slide[:, 32:]
    folder = write_folder(tmp_path / "data", {**copies, "valid": textured(2)})
    report = audit(folder, tmp_path / "out", suspects="none")
    tied = {name: findings.tied_to(report.scan, report.findings, name, issues=[kind]) for name in (*copies, "valid")}
    assert (tied["train"].sum(), tied["test"].sum(), tied["valid"].sum()) == (40, 40, 0)


def test_copies_with_different_labels_are_counted(tmp_path: Path) -> None:
    patches = textured(8)
    patches[5], patches[6], patches[7] = patches[0], patches[1], symmetry.apply(patches[2], 3)
    labels = {"train": np.array([0, 1, 0, 1, 1]), "test": np.array([1, 1, 1])}
    folder = write_folder(tmp_path / "data", {"train": patches[:5], "test": patches[5:]}, labels)
    report = audit(folder, tmp_path / "out", suspects="none")
    counts = {"exact_duplicate": 1, "symmetry_duplicate": 1, "near_duplicate": 0}
    assert report.summary["pairs_with_different_labels"] == counts
    assert "exact_duplicate: in 1 pairs the two labels differ, so one of them is in doubt" in str(report)
    assert tables.pairs(report)["labels differ"].dropna().tolist() == [1, 1, 0]
    split_path(folder, "test", "y").unlink()
    bare = audit(folder, tmp_path / "bare", suspects="none")
    assert set(bare.summary["pairs_with_different_labels"].values()) == {0}
