"""Shared slides and prior shift."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tissue import textured, write_folder

from pcam.audit import slides
from pcam.audit.integrity import Share
from pcam.audit.scan import scan


def folder(path: Path, meta: dict[str, list[str]]) -> Path:
    return write_folder(path, {"train": textured(4), "valid": textured(3, seed=1)}, slides=meta)


def test_a_patch_of_an_earlier_splits_slide_is_listed(tmp_path: Path) -> None:
    found = scan(folder(tmp_path, {"train": ["a", "b", "b", "c"], "valid": ["d", "b", "b"]}), ["train", "valid"])
    pairs, scores = slides.shared(found)
    assert pairs.tolist() == [[1, 5], [1, 6]]
    assert scores.tolist() == [0.5, 0.5]


def test_separate_slides_and_missing_meta_give_nothing(tmp_path: Path) -> None:
    separate = scan(folder(tmp_path / "a", {"train": ["a"] * 4, "valid": ["b"] * 3}), ["train", "valid"])
    without = scan(folder(tmp_path / "b", {}), ["train", "valid"])
    assert len(slides.shared(separate)[0]) == 0
    assert len(slides.shared(without)[0]) == 0
    assert slides.slide_codes(without) is None
    assert len(set(slides.slide_codes(separate).tolist())) == 2  # type: ignore[union-attr]


def test_prior_shift_of_the_course_copy() -> None:
    # 26,214 of 157,286 against 16,369 of 32,768: the interval must not hold zero.
    from pcam.evaluation.intervals import wilson

    balance = {
        "train": Share(26214, 157286, *wilson(26214, 157286)),
        "valid": Share(16369, 32768, *wilson(16369, 32768)),
    }
    (shift,) = slides.prior_shifts(balance)
    assert shift.difference == pytest.approx(0.3329, abs=1e-4)
    assert shift.low > 0.32 and shift.high < 0.34


def test_newcombe_interval_against_the_published_example() -> None:
    # Newcombe 1998, Statistics in Medicine 17:873, table II (a): 56/70 − 48/80, method 10: 0.0524 to 0.3339.
    from pcam.evaluation.intervals import wilson

    balance = {"b": Share(48, 80, *wilson(48, 80)), "a": Share(56, 70, *wilson(56, 70))}
    (shift,) = slides.prior_shifts(balance)
    assert (shift.low, shift.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_class_balance_skips_unlabelled_splits(tmp_path: Path) -> None:
    path = write_folder(tmp_path, {"train": textured(4), "test": textured(2, seed=2)})
    (path / "camelyonpatch_level_2_split_test_y.h5").unlink()
    balance = slides.class_balance(scan(path, ["train", "test"]))
    assert list(balance) == ["train"] and balance["train"].share == 0.5
    assert np.isclose(balance["train"].low, 0.15, atol=0.01)
