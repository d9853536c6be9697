"""The ablation: its rows are those of the runs that it names, and what the records do not bear out is not shown."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pcam.data import open_split
from pcam.evaluation import predict_split
from pcam.evaluation.ablation import VARIANTS, Measured, ablation_table, read_measured
from pcam.journal.plan import open_plan
from pcam.training import open_run
from pcam.training.validate import roc_auc

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["train.epochs=1", "train.batch_size=32", "train.precision=float32", "model.width=2", "train.threads=1"]


def start(data: Path, root: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "ablation.py"), "--data", str(data), "--seeds", "2", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PCAM_WORK": str(root)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root
    )


@pytest.fixture(scope="module")
def work(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal's work folder in which two processes at once have measured."""
    root = tmp_path_factory.mktemp("ablation")
    both = [
        start(tiny, root, "--only", *keys, "--set", *SMALL)
        for keys in (("cnn", "twice-the-epochs"), ("test-time-symmetries", "mlp"))
    ]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert errors == ""
    return open_plan(tiny, root).work


@pytest.fixture
def spoilt(work: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(work, tmp_path / "work"))


def test_rows_are_those_of_the_runs_they_name(work: Path, tiny: Path) -> None:
    table = pd.read_csv(work / "ablation" / "ablation.csv")
    assert table["variant"].tolist() == ["cnn", "test-time symmetries", "twice the epochs", "mlp"]
    assert set(table["overrides"]) == {" ".join(SMALL)}
    assert table["runs"][0] == table["runs"][1], "scoring in another way trains nothing"
    for row in table.itertuples():
        runs = [open_run(work / "runs" / name) for name in row.runs.split()]
        assert [run.config.seed for run in runs] == [0, 1]
        assert [run.config.train.epochs for run in runs] == [2 if row.variant == "twice the epochs" else 1] * 2
        for name in ("valid", "test"):
            split = open_split(tiny, name)
            scored = [predict_split(run, split, symmetries=row.variant == "test-time symmetries") for run in runs]
            aucs = [roc_auc(predictions.labels, predictions.score) for predictions in scored]
            found = {end: getattr(row, f"{name}_{end}") for end in ("auc", "auc_sd", "auc_low", "auc_high", "gap", "n")}
            assert found["auc"] == pytest.approx(np.mean(aucs))
            assert found["auc_sd"] == pytest.approx(np.std(aucs, ddof=1))
            assert found["auc_low"] <= found["auc"] <= found["auc_high"]
            assert found["gap"] == pytest.approx(found["auc"] - table[f"{name}_auc"][0])
            assert found["n"] == 24
        assert row.core_seconds == pytest.approx(min(run.final["seconds"] for run in runs), abs=0.06)


def test_a_second_call_trains_nothing_and_says_the_same(work: Path, tiny: Path) -> None:
    before = (work / "ablation" / "ablation.csv").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in work.glob("runs/*/*")}
    again = start(tiny, work.parent, "--only", "mlp", "--set", *SMALL)
    printed, _ = again.communicate(timeout=300)
    assert again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in work.glob("runs/*/*")} == times
    assert (work / "ablation" / "ablation.csv").read_bytes() == before
    assert "cnn " in printed, "the whole table is printed"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "magic"], "invalid choice: 'magic'"),
        (["--set", "train.epoch=3"], "unknown key 'train.epoch'; did you mean 'epochs'?"),
        (["--seeds", "1"], "an interval over seeds needs at least 2"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_trained(
    words: list[str], message: str, tiny: Path, tmp_path: Path
) -> None:
    process = start(tiny, tmp_path, *words)
    assert message in process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert not list(tmp_path.iterdir())


def test_what_the_records_do_not_bear_out_is_refused(spoilt: Path, tiny: Path) -> None:
    good, refused = read_measured(tiny, spoilt)
    assert (len(good), refused) == (8, [])
    records = sorted(path for path in (spoilt / "ablation").glob("*.json") if path.name.startswith("cnn-"))
    runs = [spoilt / "runs" / json.loads(path.read_text())["run"] for path in records]
    config = runs[0] / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.003", "lr: 0.004"))
    shutil.rmtree(runs[1])
    for path, change in zip(
        sorted((spoilt / "ablation").glob("mlp-*.json")),
        ({"test": 0.999}, {"variant": "mlp with magic"}),
        strict=True,
    ):
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    good, refused = read_measured(tiny, spoilt)
    assert [m.variant for m in good] == ["twice the epochs"] * 2
    reasons = {problem.partition(": ")[0]: problem.partition(": ")[2] for problem in refused}
    assert len(reasons) == 6
    assert reasons[records[0].name] == f"run {runs[0].name} was trained with another configuration"
    assert "not a run folder" in reasons[records[1].name]
    assert any(reason == "the predictions of test give another ROC-AUC" for reason in reasons.values())
    assert any(reason == "there is no variant 'mlp with magic' any more" for reason in reasons.values())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda record: "{", r"it cannot be checked \(ablation record .*\.json cannot be read"),
        (lambda record: "[]", r"it cannot be checked \("),
        (lambda record: json.dumps(record | {"overrides": [1]}), r"it cannot be checked \("),
        (lambda record: json.dumps(record | {"weights": 7}), r"run \w+ has another number of weights"),
        (lambda record: json.dumps(record | {"test": 0.999, "n_test": 0}), r"the predictions of test give another"),
        (lambda record: json.dumps(record | {"n_test": 23}), r"the predictions of test give another"),
    ],
    ids=["half", "list", "number", "weights", "no patches", "fewer patches"],
)
def test_a_damaged_or_changed_record_is_refused_alone(
    damage: Callable[[dict[str, Any]], str], reason: str, spoilt: Path, tiny: Path
) -> None:
    path = sorted((spoilt / "ablation").glob("mlp-*.json"))[0]
    path.write_text(damage(json.loads(path.read_text())))
    good, refused = read_measured(tiny, spoilt)
    assert len(good) == 7
    assert [re.match(rf"{path.name}: {reason}", problem) is not None for problem in refused] == [True], refused


def test_without_a_split_its_figures_are_not_shown(spoilt: Path, tiny: Path, tmp_path: Path) -> None:
    part = Path(shutil.copytree(tiny, tmp_path / "part", ignore=shutil.ignore_patterns("*_test_*", "manifest.json")))
    good, refused = read_measured(part, spoilt)
    assert good == []
    assert {problem.partition(": ")[2] for problem in refused} == {"the data hold no test split"}


def test_runs_on_other_patches_are_refused(spoilt: Path, tmp_path: Path) -> None:
    from pcam.data.synthetic import write_sample

    other = write_sample(tmp_path / "other", train=48, valid=24, test=24, seed=4)
    good, refused = read_measured(other, spoilt)
    assert good == []
    assert len(refused) == 8
    assert all("was trained on other patches" in problem for problem in refused)


def test_gaps_are_paired_by_seed_within_a_set_of_overrides() -> None:
    cnn = [Measured("cnn", (), seed, "r", valid=v) for seed, v in enumerate((0.90, 0.92, 0.94))]
    two = [Measured("p4m", (), seed, "r", valid=v) for seed, v in ((1, 0.93), (2, 0.95), (7, 0.5))]
    short = [replace(m, overrides=("train.epochs=1",)) for m in two]
    one = [Measured("mlp", (), 0, "r", valid=0.8)]
    table = ablation_table([*short, *one, *two, *cnn]).set_index(["overrides", "variant"])
    assert list(table.index) == [("", "cnn"), ("", "p4m"), ("train.epochs=1", "p4m")]
    assert table.loc[("", "p4m"), "valid_gap"] == pytest.approx(0.01)
    assert table.loc[("", "cnn"), "valid_gap"] == 0
    assert np.isnan(table.loc[("train.epochs=1", "p4m"), "valid_gap"])
    assert table["test_auc"].isna().all()


def test_a_diverged_training_is_told_and_not_averaged(tiny: Path, tmp_path: Path) -> None:
    broken = ["train.optimizer=sgd", "train.lr=100", "train.schedule=constant", "train.epochs=30"]
    process = start(tiny, tmp_path, "--only", "mlp", "--set", *SMALL, *broken)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert re.search(r"mlp, seed 0: .*loss became (nan|inf) at step", printed)
    assert errors.count("not in the table: mlp") == 2


def test_every_variant_is_a_valid_config_of_its_own() -> None:
    keys = [variant.key for variant in VARIANTS]
    assert len(set(keys)) == len(keys)
    asked = {(variant.config(0), variant.symmetries) for variant in VARIANTS if not variant.key.startswith("cnn_long")}
    assert len(asked) == len(VARIANTS) - 2
    assert {variant.against for variant in VARIANTS} <= {variant.name for variant in VARIANTS}
