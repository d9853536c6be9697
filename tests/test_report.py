"""Tables about several runs, and what run records hold."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pcam.config import dump_yaml, load_config
from pcam.errors import DataError
from pcam.evaluation import Predictions, choose_threshold, fixed_threshold, report, score_metrics, t_interval
from pcam.evaluation.prevalence import prevalence_table
from pcam.storage import write_json, write_text
from pcam.training import Run, records, train


def example(seed: int, split: str = "test", n: int = 100) -> Predictions:
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    return Predictions(split, np.arange(n), label, 1 / (1 + np.exp(-(2 * label - 1 + rng.normal(size=n)))))


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = load_config("mlp", ["train.epochs=2", "model.hidden=8", "train.batch_size=16"])
    return train(config, tiny, tmp_path_factory.mktemp("runs"), progress=False)


def test_metrics_over_seeds_are_those_of_each_run() -> None:
    runs = [example(seed) for seed in range(3)]
    table = report.over_seeds(runs, [fixed_threshold(0.5)] * 3).set_index("metric")
    values = [score_metrics(p, fixed_threshold(0.5), bootstrap=0)["f_beta"].value for p in runs]
    summary = t_interval(values)
    row = table.loc["f_beta"]
    assert [row["run 0"], row["run 1"], row["run 2"]] == values
    assert (row["mean"], row["sd"], row["n"]) == (summary.mean, summary.sd, 3)
    assert (table["high"].drop("nll") <= 1).all() and (table["low"] >= 0).all()
    assert table.loc["precision", "all positive"] == 0.5
    assert row["all positive"] == pytest.approx(5 / 6) and np.isnan(table.loc["roc_auc", "all positive"])


def test_a_metric_that_one_run_lacks_is_left_out() -> None:
    constant = Predictions("test", np.arange(100), np.arange(100) % 2, np.linspace(0.6, 0.9, 100))
    table = report.over_seeds([example(0), constant], [fixed_threshold(0.5)] * 2)
    assert "roc_auc" in set(table["metric"]) and "f_beta" not in set(table["metric"])


def test_seeds_on_the_split_of_the_threshold_are_refused() -> None:
    p = example(0, "valid")
    with pytest.raises(DataError, match="chosen on 'valid'"):
        report.over_seeds([p, p], [choose_threshold(p, 5, 1)] * 2)


def test_prevalence_moves_f_beta_and_not_the_area() -> None:
    table = report.metric_choice_table(prevalence_table(example(0), fixed_threshold(0.5), [0.1, 0.5, 0.9]))
    moved = table.set_index("metric")["moved by prevalence"]
    assert moved["ROC-AUC"] == 0 and moved["F-beta"] > 0.1 and moved["PR-AUC"] > 0.05


def test_results_stand_beside_all_three_baselines() -> None:
    p = example(0)
    table = report.beside_baselines({"model": (p, fixed_threshold(0.5))}).set_index("classifier")
    assert table.index.tolist() == ["model", "all negative", "all positive", "majority"]
    assert table.loc["all positive", "f_beta"] == pytest.approx(5 / 6)
    assert np.isnan(table.loc["all positive", "roc_auc"]) and table["n_positive"].eq(50).all()


def test_reports_are_on_test_where_it_has_labels(tiny: Path, tmp_path: Path) -> None:
    assert report.reporting_split(tiny) == "test"
    for file in tiny.iterdir():
        if not file.name.endswith("test_y.h5"):
            shutil.copy(file, tmp_path)
    assert report.reporting_split(tmp_path) == "valid"
    (tmp_path / "camelyonpatch_level_2_split_valid_y.h5").unlink()
    with pytest.raises(DataError, match="neither test nor valid has labels"):
        report.reporting_split(tmp_path)


def test_learning_curves_are_read_from_the_log(run: Run) -> None:
    train_axes, valid_axes = report.learning_curves({"mlp": run}).axes
    assert train_axes.lines[0].get_ydata().tolist() == [row["train_loss"] for row in run.epochs]
    assert valid_axes.lines[0].get_xdata().tolist() == [1, 2]


def test_record_table_names_what_is_missing_or_damaged(run: Run, tmp_path: Path) -> None:
    table = records.record_table(run).set_index("evidence")
    assert (table["present"] == "yes").all()
    assert table.loc["metrics", "holds"] == "6 steps, 2 epochs"
    assert table.loc["model", "holds"] == "SHA-256 as recorded"
    copy = Run(shutil.copytree(run.path, tmp_path / run.id))
    model = copy.path / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    assert records.record_table(copy).set_index("evidence").loc["model", "holds"] == "SHA-256 NOT as recorded"
    shutil.rmtree(copy.path / "checkpoints")
    assert records.record_table(copy).set_index("evidence").loc["checkpoints", "present"] == "no"


def test_counts_of_records(run: Run) -> None:
    assert records.logged_values([run]) == sum(len(row) - 1 for row in run.steps + run.epochs)
    assert records.settings_count(run) > 20


def test_runs_that_print_the_same_accuracy_are_lookalikes(run: Run, tmp_path: Path) -> None:
    other = Run(shutil.copytree(run.path, tmp_path / "other"))
    write_text(other.path / "config.yaml", dump_yaml(load_config("mlp", ["model.hidden=9"])))
    assert records.lookalikes([run, run]) == 0  # the same configuration
    assert records.lookalikes([run, other]) == 1
    status = other.status
    status["final"]["valid_accuracy"] += 0.02
    write_json(other.path / "status.json", status)
    assert records.lookalikes([run, other]) == 0


def test_a_shared_file_keeps_one_row_of_many(tmp_path: Path) -> None:
    assert records.rows_kept_in_one_file(tmp_path, writers=5) == 1
