"""Shared pixels are found at any shift; blank, pasted and repeated pixels are not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from tissue import canvas, textured

from pcam.audit import anchors, overlap
from pcam.audit.scan import pack

SHIFTS = [(16, 0), (0, -16), (64, 64), (-64, 64), (1, 0), (37, -53), (-5, 11), (48, 64), (80, 0)]


def search(patches: np.ndarray) -> overlap.Overlaps:
    return overlap.find(anchors.find(pack(patches)), len(patches))


@pytest.mark.parametrize(("dy", "dx"), SHIFTS)
def test_shift_is_found(dy: int, dx: int) -> None:
    slide = canvas(256, 256, seed=1)
    first, second = slide[80:176, 80:176], slide[80 + dy : 176 + dy, 80 + dx : 176 + dx]
    found = search(np.stack([*textured(3), first, second]))
    assert found.pairs.tolist() == [[3, 4]]
    assert (found.dy[0], found.dx[0]) == (dy, dx)
    assert found.agreement[0] == 1
    assert found.shared[0] == pytest.approx((96 - abs(dy)) * (96 - abs(dx)) / 96**2)


def test_recall_over_random_shifts() -> None:
    rng = np.random.default_rng(0)
    pairs = []
    for k in range(200):
        slide = canvas(160, 160, seed=1000 + k)
        (y, x), (v, u) = rng.integers(0, 65, 2), rng.integers(0, 65, 2)
        pairs += [slide[y : y + 96, x : x + 96], slide[v : v + 96, u : u + 96]]
    found = search(np.stack(pairs))
    planted = {(2 * k, 2 * k + 1) for k in range(200)}
    listed = {tuple(pair) for pair in found.pairs.tolist()}
    assert len(planted & listed) >= 0.99 * len(planted)
    assert listed <= planted


def test_unrelated_patches_share_nothing() -> None:
    assert len(search(textured(60)).pairs) == 0


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_patches_do_not_flood(level: int) -> None:
    glass = np.full((40, 96, 96, 3), level, np.uint8)
    glass[:, ::17, ::13] -= np.uint8(level > 0)  # a little regular noise
    assert len(search(glass).pairs) == 0


def test_compressed_glass_shares_nothing() -> None:
    # Of a sensor's faint noise JPEG leaves blocks of a few colours, which look the same at many places.
    rng, patches = np.random.default_rng(3), []
    for _ in range(40):
        buffer = io.BytesIO()
        glass = np.array([243, 240, 244]) + rng.normal(0, 2, (96, 96, 3))
        Image.fromarray(np.clip(np.rint(glass), 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=75)
        patches.append(np.asarray(Image.open(buffer)))
    assert len(search(np.stack(patches)).pairs) == 0


def test_a_pasted_mark_is_no_overlap() -> None:
    patches = textured(20)
    patches[:, 70:90, 70:90] = canvas(20, 20, seed=9)
    assert len(search(patches).pairs) == 0


def test_three_in_a_row_are_two_steps_and_one_double_step() -> None:
    slide = canvas(96, 160, seed=2)
    found = search(np.stack([slide[:, :96], slide[:, 32:128], slide[:, 64:160]]))
    assert found.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert found.dx.tolist() == [32, 64, 32]


def test_nothing_to_compare() -> None:
    assert len(search(np.zeros((1, 96, 96, 3), np.uint8)).pairs) == 0


def test_a_copy_of_a_neighbour_shares_the_pixels_too() -> None:
    slide = canvas(96, 160, seed=4)
    left, right = slide[:, :96], slide[:, 32:128]
    found = search(np.stack([left, right]))
    more = found.with_copies(np.array([b"l", b"r", b"l"]))
    assert more.pairs.tolist() == [[0, 1], [1, 2]]
    assert more.dx.tolist() == [32, -32]
    assert more.shared.tolist() == [2 / 3, 2 / 3]
