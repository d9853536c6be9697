"""The search: same seed, same champion; a stopped one goes on; test is never needed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import psutil
import pytest

from pcam import training
from pcam.config import Config, config_leaves, load_config
from pcam.errors import ConfigError, DataError, RunError, StorageError
from pcam.evaluation.search_plots import importance_figure
from pcam.training import Run, TrainingFailed, list_runs, pruning, train
from pcam.training.outcome import Finalist, TuneReport
from pcam.training.space import SPACES, Dimension, search_space
from pcam.training.study import counted_trials, deciding_trials, open_study
from pcam.training.tune import study_name, tune

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
    assert f"champion, {report.champion.name}: mean valid ROC-AUC" in str(report)
    words = str(report).splitlines()[-1].removeprefix("pcam train ").split()  # a command that gives the champion's run
    assert load_config(words[0], [*SMALL, *words[1:]]) == runs[report.champion.runs[0]].config


def finalist(trial: int | None, *values: float) -> Finalist:
    return Finalist(trial, {}, list(values), [f"run-{trial}-{number}" for number in range(len(values))])


def test_the_untuned_preset_may_win() -> None:
    better, worse = finalist(3, 0.9, 0.8), finalist(1, 0.7, 0.7)
    assert TuneReport("mlp", "tpe", "", [], [better, worse], finalist(None, 0.8, 0.8)).champion is better
    for untuned in (finalist(None, 0.9, 0.9), finalist(None, 0.8, 0.9)):
        assert TuneReport("mlp", "tpe", "", [], [better, worse], untuned).champion is untuned
    assert untuned.name == "untuned preset" and better.name == "trial 3"


def test_what_diverges_over_seeds_is_out_of_the_running(
    data: Path, report: TuneReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [trial.number for trial, _ in report.scored()]
    diverging = [report.trials[places[0]].params]

    def unstable(config: Config, *args: object, **options: object) -> Run:
        leaves = config_leaves(config)
        if config.seed == 1 and any(params.items() <= leaves.items() for params in diverging):
            raise TrainingFailed("the loss became nan at step 2")
        return train(config, *args, **options)

    monkeypatch.setattr(training, "train", unstable)
    again = search(data, tmp_path)
    assert again.trials == report.trials
    assert [(f.trial, f.reason) for f in again.dropped] == [(places[0], "with seed 1 the loss became nan at step 2")]
    assert {f.trial for f in again.finalists} == set(places[1:3]) and places[0] != again.champion.trial
    assert f"trial {places[0]} is out of the running: with seed 1 the loss became nan at step 2" in str(again)
    diverging += [trial.params for trial in report.trials]
    with pytest.raises(RunError, match="no trial can be trained over 2 seeds; the best one: with seed 1 the loss"):
        search(data, tmp_path)


def test_an_untuned_preset_that_diverges_does_not_win() -> None:
    tuned, untuned = finalist(3, 0.6, 0.6), Finalist(None, {}, [0.9], ["run"], "with seed 1 the loss became nan")
    report = TuneReport("mlp", "tpe", "", [], [tuned], untuned)
    assert report.champion is tuned
    assert "untuned preset is out of the running: with seed 1 the loss became nan" in str(report)


def test_the_table_shows_the_best_so_far(report: TuneReport) -> None:
    table = report.table()
    assert table["best_so_far"].tolist() == table["value"].cummax().tolist()
    assert set(report.trials[0].params) <= set(table.columns)


def test_a_stopped_search_ends_as_an_unbroken_one(data: Path, report: TuneReport, tmp_path: Path) -> None:
    search(data, tmp_path, trials=2)
    continued = search(data, tmp_path, trials=4)
    assert continued.trials == report.trials and continued.finalists == report.finalists
    assert continued.champion == report.champion  # trained anew, in another folder
    # Done: nothing runs, nothing changes.
    before = sorted(path.name for path in tmp_path.iterdir())
    assert search(data, tmp_path, trials=4).trials == report.trials
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_trial_left_by_a_dead_worker_is_tried_again(
    data: Path, report: TuneReport, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = search(data, tmp_path, trials=1)
    left = open_study(Path(first.storage)).ask()
    again = search(data, tmp_path, trials=4)
    assert f"trial {left.number} was left by a process that is gone; it is tried again" in caplog.text
    assert (again.trials, again.finalists) == (report.trials, report.finalists)


def frozen(state: str, params: dict[str, float], **attributes: object) -> SimpleNamespace:
    return SimpleNamespace(
        state=SimpleNamespace(name=state), params=params, user_attrs=attributes, intermediate_values={0: 0.5, 1: 0.6}
    )


def test_what_kills_its_worker_twice_counts_as_failed() -> None:
    done, left = frozen("COMPLETE", {"a": 1.0}), frozen("FAIL", {"a": 2.0})
    assert counted_trials([done, left, done]) == [done, done]
    assert counted_trials([done, left, frozen("FAIL", {"a": 3.0}), left]) == [done, left]
    stopped = frozen("FAIL", {"a": 2.0}, stopped=True)  # by a person, as often as they like
    assert counted_trials([stopped, stopped, stopped, done]) == [done]
    empty = frozen("FAIL", {})
    assert counted_trials([empty, empty]) == []
    failed = frozen("FAIL", {"a": 2.0}, reason="the loss became nan")
    assert counted_trials([failed]) == [failed]


def test_the_budget_is_in_epochs() -> None:
    trials = [frozen("COMPLETE", {"a": float(n)}) for n in range(5)]
    assert deciding_trials(trials, 4, None) == trials[:4]
    assert deciding_trials(trials, 4, 4) == trials[:2] and deciding_trials(trials, 4, 5) == trials[:3]


def test_a_search_of_equal_cost_spends_at_least_as_much(data: Path, report: TuneReport, tmp_path: Path) -> None:
    random = search(data, tmp_path, trials=1000, sampler="random", epochs=report.epochs)
    assert random.epochs == report.epochs == 4 and len(random.trials) == 4
    assert {t.number for t in random.trials} == {0, 1, 2, 3}


def preset_file(folder: Path, *lines: str) -> Path:
    path = folder / "search.yaml"
    path.write_text("\n".join(["model: {name: mlp, hidden: 16}", "train: {epochs: 40, threads: 1}", *lines]) + "\n")
    return path


def start(preset: Path, data: Path, runs: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pcam", "tune", str(preset), "--data", str(data), "--runs", str(runs), "--trials"]
    return subprocess.Popen(
        [*command, "3", "--json", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_second_trial(process: subprocess.Popen[str], runs: Path) -> None:
    """Wait until the second trial trains, or the process has ended."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if len([run for run in list_runs(runs) if run.epochs]) >= 2:
            return
        time.sleep(0.02)


@pytest.mark.slow
def test_a_search_that_was_killed_and_stopped_ends_as_an_unbroken_one(data: Path, tmp_path: Path) -> None:
    preset = preset_file(tmp_path)
    unbroken = json.loads(start(preset, data, tmp_path / "unbroken").communicate(timeout=300)[0])
    for number, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        runs = tmp_path / f"runs{number}"
        process = start(preset, data, runs)
        wait_for_second_trial(process, runs)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
        assert process.returncode == code
        if code == 130:
            assert "the search was stopped; the same command goes on from here" in said and "Traceback" not in said
        again = json.loads(start(preset, data, runs).communicate(timeout=300)[0])
        for key in ("trials", "finalists", "untuned"):
            assert again[key] == unbroken[key]


@pytest.mark.slow
def test_two_searches_at_once_share_the_study(data: Path, tmp_path: Path) -> None:
    preset = preset_file(tmp_path)
    both = [start(preset, data, tmp_path / "runs") for _ in range(2)]
    first, second = (json.loads(process.communicate(timeout=300)[0]) for process in both)
    assert first == second and len(first["trials"]) == 3
    assert sorted(t["number"] for t in first["trials"]) == [0, 1, 2]


@pytest.mark.slow
def test_a_killed_worker_costs_no_trial(data: Path, tmp_path: Path) -> None:
    preset = preset_file(tmp_path)
    process = start(preset, data, tmp_path / "runs", "--workers", "2")
    wait_for_second_trial(process, tmp_path / "runs")
    workers = [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    workers[0].kill()
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert [t["state"] for t in json.loads(out)["trials"]] == ["complete"] * 3


@pytest.mark.slow
def test_a_killed_search_leaves_no_worker_and_goes_on(data: Path, tmp_path: Path) -> None:
    preset = preset_file(tmp_path)
    process = start(preset, data, tmp_path / "runs", "--workers", "2")
    wait_for_second_trial(process, tmp_path / "runs")
    children = psutil.Process(process.pid).children()
    process.kill()
    process.wait(30)
    assert len(children) > 2 and psutil.wait_procs(children, timeout=60)[1] == []
    assert len([run for run in list_runs(tmp_path / "runs") if run.state == "completed"]) < 3
    again = json.loads(start(preset, data, tmp_path / "runs").communicate(timeout=300)[0])
    assert [t["state"] for t in again["trials"]] == ["complete"] * 3


@pytest.mark.slow
def test_a_stopped_search_stops_its_workers(data: Path, tmp_path: Path) -> None:
    preset = preset_file(tmp_path)
    process = start(preset, data, tmp_path / "runs", "--workers", "2")
    wait_for_second_trial(process, tmp_path / "runs")
    children = psutil.Process(process.pid).children()
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the search was stopped; the same command goes on from here" in said and "Traceback" not in said
    assert len(children) > 2 and psutil.wait_procs(children, timeout=10)[1] == []
    again = json.loads(start(preset, data, tmp_path / "runs").communicate(timeout=300)[0])
    assert [t["state"] for t in again["trials"]] == ["complete"] * 3


def test_ctrl_c_while_the_workers_begin_ends_in_one_line(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pcam", "tune", "mlp", "--data", str(data), "--runs", str(tmp_path)]
    command += ["--trials", "3", "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 120
    while len(psutil.Process(process.pid).children()) < 3 and time.monotonic() < until:  # resources, and two workers
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in said
    assert len(said.splitlines()) == 1 and "the same command goes on from here" in said


def test_poor_trials_end_early_and_are_judged_by_their_log_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "STARTUP_TRIALS", 1)
    options = {"trials": 6, "overrides": ("train.epochs=6", "train.threads=1"), "finalists": 1, "seeds": 1}
    first = tune("mlp", data, runs_dir=tmp_path, **options)
    states = [trial.state for trial in first.trials]
    assert states[0] == "complete" and "pruned" in states
    for trial in first.trials:
        assert trial.state == "pruned" or (len(trial.curve) == 6 and trial.curve[-1] == trial.value)
        assert trial.state == "complete" or (2 < len(trial.curve) < 6 and trial.value is None and trial.run is None)
    assert first.epochs < 36 and f"{states.count('pruned')} ended early" in str(first)
    assert {run.state for run in list_runs(tmp_path)} == {"completed", "interrupted"}
    for run in list_runs(tmp_path):  # with all runs there and completed, the study is the same
        train(run.config, data, tmp_path, resume=True, progress=False)
    Path(first.storage).unlink()
    assert tune("mlp", data, runs_dir=tmp_path, **options).trials == first.trials


class Reporter:
    """Stands for a trial: worse than the median from an epoch on."""

    def __init__(self, poor_from: int) -> None:
        self.reported: list[float] = []
        self.poor_from = poor_from

    def report(self, value: float, step: int) -> None:
        assert step == len(self.reported)
        self.reported.append(value)

    def should_prune(self) -> bool:
        return len(self.reported) > self.poor_from


def test_the_judge_reads_whole_lines_once(tmp_path: Path) -> None:
    log, reporter = tmp_path / "metrics.jsonl", Reporter(poor_from=1)
    judge = pruning.Judge(reporter, Run(tmp_path))
    stop = pruning.PruningStop(judge, last=3)
    assert stop.number is None
    row = '{"kind": "epoch", "epoch": 0, "valid_auc": 0.5}\n'
    log.write_text('{"kind": "step", "step": 0}\n' + row[:20])
    assert stop.number is None and reporter.reported == []
    log.write_text('{"kind": "step", "step": 0}\n' + row)
    assert stop.number is None and reporter.reported == [0.5]
    log.write_text(log.read_text() + row.replace('"epoch": 0', '"epoch": 1').replace("0.5", "0.4"))
    assert stop.number == signal.SIGUSR1 and judge.pruned and reporter.reported == [0.5, 0.4]


def test_the_last_epoch_is_never_pruned_and_signals_count(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "epoch", "epoch": 0, "valid_auc": 0.5}\n')
    stop = pruning.PruningStop(pruning.Judge(Reporter(poor_from=0), Run(tmp_path)), last=0)
    assert stop.number is None
    stop.number = 15
    assert stop.number == 15


@pytest.mark.parametrize("damage", ["not json\n", '{"op_code": 99}\n', "[]\n", '{"op_code": 4, "trial_id": 7}\n'])
def test_a_broken_journal_is_one_line(data: Path, tmp_path: Path, report: TuneReport, damage: str) -> None:
    journal = tmp_path / "studies" / Path(report.storage).name
    journal.parent.mkdir()
    lines = Path(report.storage).read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:3], damage, *lines[3:]]))
    with pytest.raises(StorageError, match=r"the study's journal is damaged .*; remove it: the runs are kept") as error:
        search(data, tmp_path)
    assert "\n" not in str(error.value)


def test_the_journal_of_another_search_is_refused(data: Path, tmp_path: Path, report: TuneReport) -> None:
    other = search(data, tmp_path, trials=1, seed=7).storage
    shutil.copy(other, tmp_path / "studies" / Path(report.storage).name)
    with pytest.raises(StorageError, match=rf"another search \({Path(other).stem}\); give it its own name again"):
        search(data, tmp_path)


def test_a_journal_that_cannot_be_read_is_one_line(data: Path, tmp_path: Path, report: TuneReport) -> None:
    (tmp_path / "studies" / Path(report.storage).name).mkdir(parents=True)
    with pytest.raises(StorageError, match=r"cannot write .*\.log: it is a folder"):
        search(data, tmp_path)


def test_a_journal_cut_by_a_kill_goes_on(data: Path, tmp_path: Path, report: TuneReport) -> None:
    search(data, tmp_path, trials=2)
    (journal,) = (tmp_path / "studies").glob("*.log")
    content = journal.read_bytes()
    journal.write_bytes(content[:-7])  # in the middle of its last line
    again = search(data, tmp_path, trials=4)
    assert (again.trials, again.finalists) == (report.trials, report.finalists)


def test_valid_of_one_class_is_refused(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        shutil.copy(file, tmp_path)
    with h5py.File(tmp_path / "camelyonpatch_level_2_split_valid_y.h5", "r+") as handle:
        handle["y"][...] = 1
    with pytest.raises(DataError, match="valid needs patches of both classes"):
        tune("mlp", tmp_path, trials=1, runs_dir=tmp_path / "runs")


@pytest.mark.slow
def test_workers_share_the_trials(data: Path, tmp_path: Path) -> None:
    report = search(data, tmp_path, trials=4, workers=2)
    assert sorted(t.number for t in report.trials) == [0, 1, 2, 3]
    assert all(t.state == "complete" for t in report.trials)


@pytest.mark.parametrize("what", ["preset", "seed", "data", "code"])
def test_another_search_is_another_study(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def name(preset: str = "mlp", train_print: str = "a", seed: int = 0) -> str:
        return study_name(load_config(preset), {"train": train_print, "valid": "b"}, seed, "tpe")

    first = name()
    assert first == name()
    if what == "code":
        monkeypatch.setattr("pcam.training.tune.code_version", lambda: "other")
    other = {"preset": {"preset": "cnn"}, "seed": {"seed": 1}, "data": {"train_print": "c"}, "code": {}}[what]
    assert name(**other) != first


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
    with pytest.raises(ConfigError, match="at least one trial"):
        tune("mlp", data, trials=0, runs_dir=tmp_path)
    with pytest.raises(DataError, match="no such data folder"):
        tune("mlp", data / "none", trials=1, runs_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_champions_command_can_be_copied(report: TuneReport) -> None:
    assert "\npcam train 'my configs/one.yaml' train.lr=" in str(replace(report, preset="my configs/one.yaml"))


def test_the_importance_of_each_key_is_drawn(data: Path, report: TuneReport) -> None:
    space = search_space(load_config("mlp", SMALL))
    axes = importance_figure(report, space).axes[0]
    assert {label.get_text() for label in axes.get_yticklabels()} == {dimension.key for dimension in space}
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == sorted(widths) and sum(widths) == pytest.approx(1)


def test_the_importance_is_of_the_reports_own_trials(data: Path, tmp_path: Path) -> None:
    space = search_space(load_config("mlp", SMALL))

    def widths(report: TuneReport) -> list[float]:
        return [bar.get_width() for bar in importance_figure(report, space).axes[0].patches]

    report = search(data, tmp_path)
    before = widths(report)
    assert widths(search(data, tmp_path, trials=7)) != before  # the same journal, gone on
    assert widths(report) == before
