"""A run made again from its record, and what counts as the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pcam.config import load_config
from pcam.errors import RunError
from pcam.storage import write_json
from pcam.training import Run, train
from pcam.training.reproduce import compare_runs, reproduce


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = load_config("mlp", ["train.epochs=1", "model.hidden=8", "train.batch_size=16"])
    return train(config, tiny, tmp_path_factory.mktemp("runs"), progress=False)


def test_a_run_is_reproduced_bit_for_bit_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    again = reproduce(run, tmp_path)
    assert again.identical and again.same_name
    assert again.rows == 4 and again.equal_rows == 4  # three steps and an epoch
    assert list(tmp_path.iterdir()) == []


def test_missing_data_are_told_in_one_line(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be made again: pcam: error: .*no such data folder"):
        reproduce(run, tmp_path, data_dir=tmp_path / "moved")


@pytest.mark.parametrize("change", ["weights", "row", "score"])
def test_any_difference_is_seen(run: Run, tmp_path: Path, change: str) -> None:
    shutil.copytree(run.path, tmp_path / run.id)
    other = Run(tmp_path / run.id)
    status = other.status
    if change == "weights":
        status["final"]["sha256"] = "0" * 64
    elif change == "score":
        status["final"]["valid_loss"] += 1e-16 + 1e-15
    else:
        lines = (other.path / "metrics.jsonl").read_text().splitlines()
        row = json.loads(lines[0])
        row["loss"] *= 1 + 1e-15
        (other.path / "metrics.jsonl").write_text("\n".join([json.dumps(row), *lines[1:]]) + "\n")
    write_json(other.path / "status.json", status)
    assert not compare_runs(run, other).identical
    assert compare_runs(run, run).identical
