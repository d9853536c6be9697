"""The search: same seed, same champion; a stopped one goes on; test is never needed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pcam.config import config_leaves, load_config
from pcam.errors import ConfigError, DataError
from pcam.training import list_runs
from pcam.training.outcome import Finalist, TuneReport
from pcam.training.space import SPACES, Dimension, search_space
from pcam.training.tune import _open_study, tune

SMALL = ("train.epochs=1", "train.threads=1")


@pytest.fixture(scope="module")
def data(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny sample without its test split: a search has no business there."""
    folder = tmp_path_factory.mktemp("search")
    for file in tiny.iterdir():
        if "_test_" not in file.name:
            shutil.copy(file, folder)
    return folder


def search(data: Path, runs: Path, trials: int = 4, **options: object) -> TuneReport:
    return tune("mlp", data, trials=trials, runs_dir=runs, overrides=SMALL, finalists=2, seeds=2, **options)


@pytest.fixture(scope="module")
def report(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TuneReport:
    return search(data, tmp_path_factory.mktemp("runs"))


def test_every_trial_is_a_run_and_the_champion_is_the_best_mean(report: TuneReport) -> None:
    runs = {run.id: run for run in list_runs(Path(report.storage).parent.parent)}
    assert [trial.number for trial in report.trials] == [0, 1, 2, 3]
    for trial in report.trials:
        assert runs[trial.run].final["valid_auc"] == trial.value
        leaves = config_leaves(runs[trial.run].config)
        assert {key: leaves[key] for key in trial.params} == trial.params
    means = [finalist.mean for finalist in report.finalists]
    assert means == sorted(means, reverse=True)
    assert report.champion.mean == max(*means, report.untuned.mean)
    assert runs[report.untuned.runs[1]].config == load_config("mlp", [*SMALL, "seed=1"])
    assert {runs[run].config.seed for run in report.champion.runs} == {0, 1}
    assert f"champion, {report.champion.name}: mean valid ROC-AUC" in str(report) and "pcam train mlp" in str(report)


def finalist(trial: int | None, *values: float) -> Finalist:
    return Finalist(trial, {}, list(values), [f"run-{trial}-{number}" for number in range(len(values))])


def test_the_untuned_preset_may_win() -> None:
    better, worse = finalist(3, 0.9, 0.8), finalist(1, 0.7, 0.7)
    assert TuneReport("mlp", "tpe", "", [], [better, worse], finalist(None, 0.8, 0.8)).champion is better
    for untuned in (finalist(None, 0.9, 0.9), finalist(None, 0.8, 0.9)):
        assert TuneReport("mlp", "tpe", "", [], [better, worse], untuned).champion is untuned
    assert untuned.name == "untuned preset" and better.name == "trial 3"


def test_the_table_shows_the_best_so_far(report: TuneReport) -> None:
    table = report.table()
    assert table["best_so_far"].tolist() == table["value"].cummax().tolist()
    assert set(report.trials[0].params) <= set(table.columns)


def test_a_stopped_search_ends_as_an_unbroken_one(data: Path, report: TuneReport, tmp_path: Path) -> None:
    search(data, tmp_path, trials=2)
    continued = search(data, tmp_path, trials=4)
    assert continued.trials == report.trials and continued.finalists == report.finalists
    # Done: nothing runs, nothing changes.
    before = sorted(path.name for path in tmp_path.iterdir())
    assert search(data, tmp_path, trials=4).trials == report.trials
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_trial_left_running_by_a_dead_worker_is_closed(data: Path, tmp_path: Path) -> None:
    first = search(data, tmp_path, trials=1)
    trial = _open_study(Path(first.storage)).ask()
    trial.set_user_attr("owner", [os.uname().nodename, 2**22 + 1])  # beyond any process id of Linux
    again = search(data, tmp_path, trials=3)
    assert [t.state for t in again.trials] == ["complete", "fail", "complete"]


@pytest.mark.slow
def test_workers_share_the_trials(data: Path, tmp_path: Path) -> None:
    report = search(data, tmp_path, trials=4, workers=2)
    assert sorted(t.number for t in report.trials) == [0, 1, 2, 3]
    assert all(t.state == "complete" for t in report.trials)


def test_random_search_is_another_study(data: Path, report: TuneReport, tmp_path: Path) -> None:
    random = search(data, tmp_path, trials=1, sampler="random")
    assert Path(random.storage).name != Path(report.storage).name


@pytest.mark.parametrize("model", sorted(SPACES))
def test_spaces_search_keys_that_the_config_has(model: str) -> None:
    config = load_config(model)
    leaves = config_leaves(config)
    for dimension in search_space(config):
        assert dimension.key in leaves
        low, high = (min(dimension.choices), max(dimension.choices)) if dimension.choices else (
            dimension.low, dimension.high
        )  # fmt: skip
        load_config(model, [f"{dimension.key}={low!r}"])
        load_config(model, [f"{dimension.key}={high!r}"])


def test_dimensions_read_well() -> None:
    assert str(Dimension("train.lr", 1e-4, 1e-2, log=True)) == "0.0001 to 0.01, log scale"
    assert str(Dimension("model.hidden", choices=(32, 64))) == "32, 64"


def test_bad_input_is_refused_before_a_trial(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown preset 'mpl'"):
        tune("mpl", data, trials=1, runs_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"'model.name' is 'other': input should be "):
        tune("mlp", data, trials=1, runs_dir=tmp_path, overrides=["model.name=other"])
    with pytest.raises(DataError, match="no such data folder"):
        tune("mlp", data / "none", trials=1, runs_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
