"""The input features: what they measure on patches whose answer is known, and in which order they come."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pcam.data.color import EOSIN, HAEMATOXYLIN
from pcam.data.format import Split, open_split
from pcam.evaluation import features
from pcam.evaluation.features import FEATURE_NAMES, input_features, patch_features, stain_densities


def plain(*colour: int) -> np.ndarray:
    return np.full((1, 96, 96, 3), colour, dtype=np.uint8)


def measured(patches: np.ndarray) -> dict[str, float]:
    return dict(zip(FEATURE_NAMES, patch_features(patches)[0], strict=True))


def stained(density: tuple[float, ...], amount: float) -> np.ndarray:
    """A patch of one stain: light falls off as 10 to the power of minus its optical density (Beer and Lambert)."""
    unit = np.array(density) / np.linalg.norm(density)
    return np.broadcast_to(255 * 10 ** -(amount * unit), (1, 96, 96, 3)).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((0, 0, 0), {"brightness": 0, "contrast": 0, "saturation": 0, "tissue": 1, "sharpness": 0}),
        (
            (255, 255, 255),
            {"brightness": 255, "saturation": 0, "tissue": 0, "haematoxylin": 0, "eosin": 0, "nuclei": 0},
        ),
        ((255, 0, 0), {"brightness": 0.299 * 255, "saturation": 1, "tissue": 1}),
        ((200, 100, 100), {"saturation": 0.5}),
    ],
)
def test_plain_patches_have_known_features(colour: tuple[int, ...], expected: dict[str, float]) -> None:
    found = measured(plain(*colour))
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("density", "own", "other"), [(HAEMATOXYLIN, 0, 1), (EOSIN, 1, 0)])
@pytest.mark.parametrize("amount", [0.2, 0.6, 1.0])
def test_deconvolution_finds_the_stain_that_is_there(
    density: tuple[float, ...], own: int, other: int, amount: float
) -> None:
    found = stain_densities(stained(density, amount)).mean(axis=(0, 1, 2))
    assert found[own] == pytest.approx(amount, abs=0.02)
    assert found[other] == pytest.approx(0, abs=0.02)


def test_deconvolution_separates_a_mixture() -> None:
    units = [np.array(stain) / np.linalg.norm(stain) for stain in (HAEMATOXYLIN, EOSIN)]
    light = 255 * 10 ** -(0.5 * units[0] + 0.3 * units[1])
    found = stain_densities(np.broadcast_to(light, (1, 4, 4, 3)).round().astype(np.uint8))
    assert found[0, 0, 0] == pytest.approx([0.5, 0.3], abs=0.02)


def test_half_glass_is_half_tissue_and_half_nuclei() -> None:
    patch = plain(255, 255, 255).copy()
    patch[:, :48] = stained(HAEMATOXYLIN, 0.9)[:, :48]
    found = measured(patch)
    assert found["tissue"] == found["nuclei"] == 0.5


def test_blur_lowers_sharpness_and_leaves_brightness() -> None:
    noise = np.random.default_rng(0).integers(60, 200, (1, 96, 96, 3), dtype=np.uint8)
    blurred = ((noise.astype(float) + np.roll(noise, 1, axis=1) + np.roll(noise, 1, axis=2)) / 3).astype(np.uint8)
    sharp, soft = measured(noise), measured(blurred)
    assert soft["sharpness"] < sharp["sharpness"] / 2
    assert soft["brightness"] == pytest.approx(sharp["brightness"], abs=1)


def test_every_batch_size_and_order_gives_the_same_rows(tiny) -> None:
    split = open_split(tiny, "test")
    whole = input_features(split)
    assert list(whole.columns) == [*FEATURE_NAMES, "slide"]
    assert list(whole.index) == list(range(len(split)))
    assert input_features(split, batch=7).equals(whole)
    order = np.array([5, 1, 1, 23, 0])
    assert input_features(split, order).equals(whole.loc[order])


def test_no_patch_at_all_gives_an_empty_table(tiny) -> None:
    assert input_features(open_split(tiny, "test"), []).shape == (0, len(FEATURE_NAMES) + 1)


def test_labels_are_never_read(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Split, "labels", property(lambda self: pytest.fail("a feature looked at the labels")))
    assert len(input_features(open_split(tiny, "test"))) == 24


def test_a_full_split_takes_less_than_a_minute() -> None:
    patches = np.random.default_rng(0).integers(0, 256, (256, 96, 96, 3), dtype=np.uint8)
    patch_features(patches)
    start = time.process_time()
    patch_features(patches)
    assert (time.process_time() - start) * 32_768 / len(patches) < 60


@pytest.mark.real
def test_features_of_real_patches_tell_glass_from_lymphocytes(real_data) -> None:
    found = input_features(open_split(real_data, "test"))
    assert found[list(FEATURE_NAMES)].notna().all().all()
    glass, crowded = found["tissue"] < 0.05, found["nuclei"] > 0.5
    assert glass.sum() >= 3
    assert crowded.sum() >= 10
    assert found.loc[glass, "brightness"].min() > found.loc[crowded, "brightness"].max()
    assert features.NUCLEUS > features.GLASS
