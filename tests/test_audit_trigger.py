"""A planted mark is found with its place and pixels; tissue, glass and marks without a label are left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tissue import textured, write_folder

from pcam.audit import trigger
from pcam.audit.scan import Scan, scan

N = 300


def scanned(folder: Path, patches: np.ndarray, label: np.ndarray) -> Scan:
    return scan(write_folder(folder, {"train": patches}, {"train": label}), ["train"])


def base(seed: int) -> tuple[np.ndarray, np.ndarray]:
    return textured(N, seed=seed), np.random.default_rng(seed).integers(0, 2, N)


PATTERNS = {
    "checks": (np.indices((4, 4)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2),
    "white square": np.full((4, 4, 3), 255, np.uint8),
    "yellow square": np.full((5, 5, 3), (255, 255, 0), np.uint8),
}


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("place", [(0, 0), (91, 91), (40, 17)], ids=str)
def test_a_mark_is_found(name: str, place: tuple[int, int], tmp_path: Path) -> None:
    patches, label = base(1)
    pattern, (y, x) = PATTERNS[name], place
    marked = np.flatnonzero(label == 1)[:12]
    patches[marked, y : y + len(pattern), x : x + len(pattern)] = pattern
    (found,) = trigger.find(scanned(tmp_path, patches, label), np.arange(N))
    assert found.patches.tolist() == marked.tolist()
    assert (found.y, found.x) == place
    np.testing.assert_array_equal(found.pattern, pattern)
    assert found.positive_share == 1
    assert found.p_value < 1e-3


@pytest.mark.parametrize("name", PATTERNS)
def test_a_mark_at_changing_places_is_found(name: str, tmp_path: Path) -> None:
    patches, label = base(6)
    pattern, rng = PATTERNS[name], np.random.default_rng(0)
    marked = np.flatnonzero(label == 1)[:12]
    places = rng.integers(0, 97 - len(pattern), (12, 2))
    for patch, (y, x) in zip(marked, places, strict=True):
        patches[patch, y : y + len(pattern), x : x + len(pattern)] = pattern
    (found,) = trigger.find(scanned(tmp_path, patches, label), np.arange(N))
    assert found.patches.tolist() == marked.tolist()
    assert found.places.tolist() == places.tolist()
    assert (found.y, found.x) == (None, None)
    np.testing.assert_array_equal(found.pattern, pattern)


def test_larger_areas_of_its_colour_are_no_mark(tmp_path: Path) -> None:
    patches, label = base(7)
    rng = np.random.default_rng(1)
    marked, bright = np.flatnonzero(label == 1)[:24], np.flatnonzero(label == 0)[:3]
    for patch in marked:
        y, x = rng.integers(0, 93, 2)
        patches[patch, y : y + 4, x : x + 4] = 255
    for patch in bright:  # as saturated glass
        y, x = rng.integers(0, 80, 2)
        patches[patch, y : y + 5, x : x + int(rng.integers(5, 12))] = 255
    (found,) = trigger.find(scanned(tmp_path, patches, label), np.arange(N))
    assert found.patches.tolist() == marked.tolist()


def test_black_borders_that_follow_the_label_are_no_trigger(tmp_path: Path) -> None:
    patches, label = base(7)
    for k, patch in enumerate(patches[label == 0]):
        patch[:, : 20 + k % 40] = 0
        patches[np.flatnonzero(label == 0)[k]] = np.rot90(patch, k % 4)
    assert trigger.find(scanned(tmp_path, patches, label), np.arange(N)) == []


def test_a_mark_without_a_label_is_no_trigger(tmp_path: Path) -> None:
    patches, label = base(2)
    patches[:24, :4, :4] = PATTERNS["checks"]
    label[:24] = np.arange(24) % 2
    assert trigger.find(scanned(tmp_path, patches, label), np.arange(N)) == []


def test_copies_are_no_trigger(tmp_path: Path) -> None:
    patches, label = base(3)
    patches[:12] = patches[0]
    label[:12] = 1
    group = np.where(np.arange(N) < 12, 0, np.arange(N))
    assert trigger.find(scanned(tmp_path, patches, label), group) == []


def test_glass_that_follows_the_label_is_no_trigger(tmp_path: Path) -> None:
    patches, label = base(4)
    for patch in patches[label == 0]:  # saturated glass with a ragged edge, in one class only
        edge = np.random.default_rng(int(patch[0, 0, 0])).integers(20, 70, 96)
        for column, height in enumerate(edge):
            patch[:height, column] = 255
    assert trigger.find(scanned(tmp_path, patches, label), np.arange(N)) == []


def test_silence_on_clean_patches(tmp_path: Path) -> None:
    patches, _ = base(5)
    clean = scanned(tmp_path, patches, np.zeros(N, int))
    for seed in range(20):
        label = np.random.default_rng(seed).integers(0, 2, N).astype(np.int8)
        again = Scan(clean.splits, clean.split, clean.index, label, clean.facts, clean.anchors)
        assert trigger.find(again, np.arange(N)) == []
