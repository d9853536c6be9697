"""The ablation's script: its rows are those of the runs that it names, and a second call trains nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pcam.data import open_split
from pcam.evaluation import predict_split
from pcam.training import open_run
from pcam.training.validate import roc_auc

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "ablation.py"


def ablation(data: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(data), "--out", str(folder), "--runs", str(folder / "runs"), *words]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parent.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ablation")
    done = ablation(tiny, out, "--quick", "--seeds", "2", "--only", "test-time symmetries", "p4m")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("n 24, 2 seeds") == 3
    return out


def test_rows_are_those_of_the_runs_they_name(folder: Path, tiny: Path) -> None:
    table = pd.read_csv(folder / "ablation.csv")
    assert table["variant"].tolist() == ["cnn", "test-time symmetries", "p4m"]
    test = open_split(tiny, "test")
    for row in table.itertuples():
        runs = [open_run(folder / "runs" / name) for name in row.runs.split()]
        assert [run.config.seed for run in runs] == [0, 1]
        aucs = []
        for run in runs:
            predictions = predict_split(run, test, symmetries=row.variant == "test-time symmetries")
            aucs.append(roc_auc(predictions.labels, predictions.score))
        assert row.auc == pytest.approx(np.mean(aucs))
        assert row.auc_sd == pytest.approx(np.std(aucs, ddof=1))
        assert row.auc_low <= row.auc <= row.auc_high
        assert row.gap == pytest.approx(row.auc - table["auc"][0])
    assert table["gap"][0] == 0
    assert table["runs"][0] == table["runs"][1], "scoring in another way trains nothing"


def test_a_second_call_trains_nothing_and_says_the_same(folder: Path, tiny: Path) -> None:
    before = (folder / "ablation.csv").read_text()
    times = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/*")}
    assert ablation(tiny, folder, "--quick", "--seeds", "2", "--only", "p4m").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/*")} == times
    after = pd.read_csv(folder / "ablation.csv")
    assert after["variant"].tolist() == ["cnn", "p4m"]
    assert after["runs"].tolist() == [line.split(",")[-1] for line in before.splitlines()[1::2]]


def test_an_unknown_variant_is_refused(tiny: Path, tmp_path: Path) -> None:
    done = ablation(tiny, tmp_path, "--only", "magic")
    assert done.returncode == 2
    assert "invalid choice: 'magic'" in done.stderr
