"""Twins agree, part when a control is off, and a difference is seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pcam.config import Config, build_config
from pcam.errors import RunError
from pcam.training import train
from pcam.training.sources import SOURCES, Source
from pcam.training.twins import Twins, all_equal, cost_of_determinism, switched_off, train_twins

CONFIG = build_config(
    {
        "model": {"name": "cnn", "width": 2, "depth": 2, "dropout": 0.2},
        "train": {"epochs": 1, "batch_size": 16, "threads": 1, "augment": {"flip": True}},
    },
)


def test_two_fresh_processes_end_in_the_same_bits(tiny: Path, tmp_path: Path) -> None:
    (pair,) = train_twins({"cnn": CONFIG}, tiny, tmp_path / "twins")
    assert pair.runs[0].path != pair.runs[1].path
    assert pair.runs[0].id == pair.runs[1].id
    assert pair.same_weights
    assert pair.same_log
    assert pair.gap("valid_loss") == 0
    assert all_equal([pair])


def test_each_control_off_parts_the_twins(tiny: Path, tmp_path: Path) -> None:
    pairs = switched_off(CONFIG, tiny, tmp_path / "off")
    assert pairs.keys() == {
        *("nothing", "initialisation", "order", "augmentation", "library"),
        *("determinism", "threads", "workers"),
    }
    same = {name for name, pair in pairs.items() if pair.same_weights}
    # Other threads and free algorithms may or may not move bits on this machine; the rest is certain.
    assert same - {"determinism", "threads"} == {"nothing", "workers"}


def test_a_difference_is_seen(tiny: Path, tmp_path: Path) -> None:
    other: Config = build_config(CONFIG.model_dump(), ["seed=1"])
    pair = Twins("x", tuple(train(c, tiny, tmp_path, progress=False) for c in (CONFIG, other)))  # type: ignore[arg-type]
    assert not pair.same_weights
    assert not pair.same_log
    assert pair.gap("train_loss") > 0
    assert not all_equal([pair])
    assert not all_equal([])


def test_a_failing_twin_says_why(tiny: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny, data)
    (data / "camelyonpatch_level_2_split_valid_x.h5").unlink()
    with pytest.raises(RunError, match=r"twin of cnn: pcam: error: .*valid_x\.h5: file: missing"):
        train_twins({"cnn": CONFIG}, data, tmp_path / "twins")


def test_cost_is_timed_in_pairs() -> None:
    timed = cost_of_determinism(CONFIG, pairs=3, steps=2)
    assert len(timed) == 3
    assert all(with_ > 0 and without > 0 for with_, without in timed)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_every_named_test_exists(source: Source, root: Path) -> None:
    assert source.missing_tests(root / "tests") == []


def test_a_missing_test_is_named(root: Path) -> None:
    source = Source("x", "y", ("test_loader.py::test_nothing", "test_nowhere.py::test_x"))
    assert source.verdict(root / "tests") == "missing: test_loader.py::test_nothing, test_nowhere.py::test_x"
    assert Source("x", "y", ()).verdict() == "stated, not tested"


def test_what_the_tests_leave_open_is_told(root: Path) -> None:
    there = ("test_twins.py::test_what_the_tests_leave_open_is_told",)
    assert Source("x", "y", there).verdict(root / "tests") == "tested"
    assert Source("x", "y", there, "no GPU").verdict(root / "tests") == "in part: no GPU"
