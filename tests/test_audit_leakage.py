"""What leaked patches add to a metric, and a copy that leaks on purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tissue import textured, write_folder

from pcam.audit import leakage
from pcam.data.format import open_split
from pcam.errors import DataError
from pcam.evaluation.predictions import Predictions


def predictions(n: int = 400, leaked: int = 100, seed: int = 0) -> tuple[Predictions, np.ndarray]:
    """Scores that know the leaked patches and nothing of the others."""
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 2).astype(np.uint8)
    mask = np.arange(n) < leaked
    score = np.where(mask, 0.1 + 0.8 * label, rng.random(n))
    return Predictions("test", np.arange(n), label, score), mask


def test_remembered_patches_raise_the_metric_and_their_removal_shows_it() -> None:
    p, mask = predictions()
    found = leakage.effect(p, mask)
    assert found.clean == pytest.approx(0.5, abs=0.08) and found.everything > 0.6
    assert found.difference == pytest.approx(found.everything - found.clean)
    assert found.low is not None and found.high is not None
    assert 0 < found.low < found.difference < found.high
    assert (found.n, found.n_leaked, found.n_positive) == (400, 100, 200)


def test_without_a_leak_there_is_no_difference() -> None:
    p, _ = predictions()
    found = leakage.effect(p, np.zeros(400, bool))
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_whole_groups_are_resampled() -> None:
    p, mask = predictions()
    by_group = leakage.effect(p, mask, np.arange(400) // 40, group_kind="slide")
    assert "10 slides" in by_group.method
    assert by_group.difference == leakage.effect(p, mask).difference


def test_mistakes_are_named() -> None:
    p, mask = predictions()
    with pytest.raises(DataError, match="3 flags for 400 predictions"):
        leakage.effect(p, mask[:3])
    with pytest.raises(DataError, match="without the leaked patches a class is missing"):
        leakage.effect(p, p.labels == 1)


def test_a_leaky_copy_holds_test_patches_in_train(tmp_path: Path) -> None:
    patches = {name: textured(n, seed=n) for name, n in (("train", 20), ("valid", 4), ("test", 10))}
    data = write_folder(tmp_path / "data", patches)
    leaked = leakage.leaky_copy(data, tmp_path / "leaky", share=0.5, seed=1)
    train, test = open_split(tmp_path / "leaky", "train"), open_split(tmp_path / "leaky", "test")
    held = {patch.tobytes(): label for patch, label in zip(train.read(slice(None)), train.labels, strict=True)}  # type: ignore[arg-type]
    assert leaked.sum() == 5 and len(train) == 20
    np.testing.assert_array_equal(test.read(slice(None)), patches["test"])
    for patch, label, flag in zip(patches["test"], test.labels, leaked, strict=True):  # type: ignore[arg-type]
        assert (patch.tobytes() in held) == flag
        assert not flag or held[patch.tobytes()] == label


def test_a_leaky_copy_needs_all_splits(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", {"train": textured(4)})
    with pytest.raises(DataError, match="needs train, valid and test, all with labels"):
        leakage.leaky_copy(data, tmp_path / "leaky", share=0.5)
