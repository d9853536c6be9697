"""Texture features tell textures apart, and stay what they are when a patch is turned or mirrored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tissue import canvas, textured, write_folder

from pcam.audit import symmetry
from pcam.audit.scan import scan
from pcam.audit.texture import describe, texture_features


def test_one_row_of_finite_numbers_a_patch() -> None:
    blank = np.stack([np.full((96, 96, 3), value, np.uint8) for value in (0, 200, 255)])
    for patches in (textured(3), blank):
        features = describe(patches)
        assert features.shape == (3, 2025) and features.dtype == np.float32 and np.isfinite(features).all()


@pytest.mark.parametrize("which", range(1, 8))
def test_a_turned_patch_has_the_same_texture(which: int) -> None:
    patches = textured(4)
    features = describe(patches)
    turned = describe(np.stack([symmetry.apply(patch, which) for patch in patches]))
    # Quantiles are taken on a grid of pixels that does not turn with the patch, so they differ a little.
    between = np.abs(features[:, None] - features[None]).mean(axis=2)
    assert np.abs(turned - features).mean() < 0.1 * between[np.triu_indices(4, 1)].min()


def test_the_centre_counts_by_itself() -> None:
    patch = canvas(96, 96, 0)
    other = patch.copy()
    other[:8] = canvas(8, 96, 1)
    first, second = describe(np.stack([patch, other]))
    regional = 8 * 30  # mean, deviation, skewness and five quantiles of thirty responses
    np.testing.assert_allclose(first[:regional], second[:regional], atol=2e-3)
    assert np.abs(first[2 * regional : 3 * regional] - second[2 * regional : 3 * regional]).max() > 0.01


def test_patches_are_read_by_number(tmp_path: Path) -> None:
    patches = {"train": textured(70), "test": textured(5, seed=1)}
    found = scan(write_folder(tmp_path, patches), ["train", "test"])
    wanted = np.array([72, *range(66)])
    np.testing.assert_array_equal(
        texture_features(found, wanted)[:4], describe(np.concatenate([patches["test"], patches["train"]])[[2, 5, 6, 7]])
    )
