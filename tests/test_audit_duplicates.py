"""Copies, as they are or turned, are found exactly; blank patches are in no pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tissue import textured, write_folder

from pcam.audit import duplicates
from pcam.audit.scan import Scan, scan
from pcam.audit.symmetry import apply


def scanned(folder: Path, *patches: np.ndarray) -> Scan:
    return scan(write_folder(folder, {"train": np.stack(patches)}), ["train"])


def test_copies_and_turned_copies_are_told_apart(tmp_path: Path) -> None:
    a, b, c = textured(3)
    found = scanned(tmp_path, a, b, a, np.ascontiguousarray(apply(b, 6)), c, a)
    assert duplicates.exact(found).tolist() == [[0, 2], [0, 5], [2, 5]]
    pairs, which = duplicates.symmetric(found)
    assert pairs.tolist() == [[1, 3]] and which.tolist() == [6]
    assert np.flatnonzero(duplicates.representatives(found)).tolist() == [0, 1, 3, 4]


def test_a_patch_with_its_own_symmetry_is_an_exact_copy(tmp_path: Path) -> None:
    half = textured(1)[0][:, :48]
    mirror = np.concatenate([half, half[:, ::-1]], axis=1)
    found = scanned(tmp_path, mirror, mirror[:, ::-1])
    assert duplicates.exact(found).tolist() == [[0, 1]]
    assert len(duplicates.symmetric(found)[0]) == 0


def test_equal_keys_of_different_pictures_are_no_pair(tmp_path: Path) -> None:
    patch = textured(1)[0]
    half = patch.copy()
    half[:, :48] = half[::-1, :48]  # every orbit keeps its pixels, but no symmetry does this
    found = scanned(tmp_path, patch, half)
    assert found.facts.orbit_key[0] == found.facts.orbit_key[1]
    assert len(duplicates.symmetric(found)[0]) == 0


def test_blank_patches_do_not_flood(tmp_path: Path) -> None:
    blank = [np.full((96, 96, 3), level, np.uint8) for level in (0, 255, 90)] * 20
    found = scanned(tmp_path, *blank)
    assert len(duplicates.exact(found)) == len(duplicates.symmetric(found)[0]) == 0


def test_of_many_copies_each_is_tied_to_the_first(tmp_path: Path) -> None:
    found = scanned(tmp_path, *[textured(1)[0]] * 40)
    assert duplicates.exact(found).tolist() == [[0, other] for other in range(1, 40)]
