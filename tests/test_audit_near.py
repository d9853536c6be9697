"""Near duplicates survive symmetry, brightness and contrast; unrelated and blank patches are not listed."""

from __future__ import annotations

import numpy as np
import pytest
from tissue import textured

from pcam.audit import near
from pcam.audit.appearance import luminance, planes
from pcam.audit.findings import groups
from pcam.audit.symmetry import apply


def spectra(patches: np.ndarray) -> np.ndarray:
    return near.spectrum(luminance(planes(np.ascontiguousarray(patches))))


def search(patches: np.ndarray) -> list[list[int]]:
    return near.find(spectra(patches), np.ones(len(patches), bool))[0].tolist()


@pytest.mark.parametrize("symmetry", range(8))
def test_amplitudes_and_forms_follow_a_symmetry(symmetry: int) -> None:
    patches = textured(5)
    before, after = spectra(patches), spectra(np.stack([apply(p, symmetry) for p in patches]))
    np.testing.assert_allclose(near.amplitudes(before), near.amplitudes(after), atol=1e-3)
    forms = [near.symmetric_form(before, k) for k in range(8)]
    same = [k for k, form in enumerate(forms) if np.allclose(form, after, atol=0.05)]
    assert len(same) == 1, "each symmetry of the patch is one form of its coefficients"
    np.testing.assert_allclose(near.find(np.concatenate([before, after]), np.ones(10, bool))[1], 1, atol=1e-4)


def changed(patch: np.ndarray, how: str) -> np.ndarray:
    rng = np.random.default_rng(5)
    values = {
        "brighter": patch * 1.08,
        "darker and noisy": patch * 0.92 + rng.normal(0, 3, patch.shape),
        "restained": patch * np.array([0.9, 1.1, 1.0]),
        "turned and restained": np.rot90(patch) * np.array([1.1, 0.95, 0.9]) + rng.normal(0, 3, patch.shape),
    }[how]
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("how", ["brighter", "darker and noisy", "restained", "turned and restained"])
def test_changed_copies_are_found_and_nothing_else(how: str) -> None:
    patches = textured(40)
    copies = np.stack([changed(p, how) for p in patches[:10]])
    assert search(np.concatenate([patches, copies])) == [[k, 40 + k] for k in range(10)]


def test_unrelated_patches_are_not_near() -> None:
    assert search(textured(100)) == []


def test_blank_patches_are_left_out() -> None:
    assert search(np.full((30, 96, 96, 3), 240, np.uint8)) == []


def test_unusable_patches_are_left_out() -> None:
    patches = textured(4)
    doubled = np.concatenate([patches, patches])
    usable = np.arange(8) != 0
    assert near.find(spectra(doubled), usable)[0].tolist() == [[1, 5], [2, 6], [3, 7]]


def test_a_large_cluster_stays_connected_without_all_its_pairs() -> None:
    patch = textured(1)[0].astype(float)
    rng = np.random.default_rng(1)
    copies = np.stack([np.clip(patch + rng.normal(0, 2, patch.shape), 0, 255).astype(np.uint8) for _ in range(60)])
    pairs = search(np.concatenate([textured(20, seed=3), copies]))
    assert len(pairs) <= 60 * 8
    assert {p for pair in pairs for p in pair} == set(range(20, 80))
    assert len(set(groups(80, np.array(pairs))[20:])) == 1


def test_most_pairs_just_above_the_threshold_are_found() -> None:
    rng = np.random.default_rng(2)
    first = rng.standard_normal((3000, near.SIZE, near.SIZE)).astype(np.float32)
    first[:, 0, 0] = 0
    copies = first[:200] + 0.25 * rng.standard_normal(first[:200].shape).astype(np.float32)  # correlation about 0.97
    copies[:, 0, 0] = 0
    everything = 400 * np.concatenate([first, copies.swapaxes(1, 2)])
    pairs, correlation = near.find(everything, np.ones(3200, bool))
    planted = np.einsum("nuv,nuv->n", first[:200], copies)
    planted /= np.linalg.norm(first[:200], axis=(1, 2)) * np.linalg.norm(copies, axis=(1, 2))
    # The search whitens by the measured sizes, which moves a correlation in the third digit.
    wanted = {(k, 3000 + k) for k in np.flatnonzero(planted >= near.CORRELATION + 0.003).tolist()}
    assert len(wanted) > 100
    listed = {tuple(pair) for pair in pairs.tolist()}
    assert len(wanted & listed) >= 0.98 * len(wanted)
    assert listed <= {(k, 3000 + k) for k in range(200)}
    assert (correlation >= near.CORRELATION).all()
