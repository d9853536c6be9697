"""Search for hyper-parameters: every trial is an ordinary run, judged on valid, and test is never looked at.

Optuna proposes (tree-structured Parzen estimator, Bergstra et al. 2011), `train` runs, and the study's journal file
keeps what was tried. One lucky seed must not win, so the best few configurations are trained again over several
seeds, and the champion is the best mean. Each proposal draws its own random numbers from the study's seed and the
trial's place: with one worker the same command gives the same champion, also when it was interrupted or killed.

A trial belongs to the process that holds its claim. When that process is gone, the trial is closed, the next process
proposes the same again, and its run goes on from its checkpoint. Several processes, and several `pcam tune` at once,
share a study in this way.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pcam.config import Config, config_hash, load_config
from pcam.data.format import open_split
from pcam.errors import ConfigError, DataError, PcamError, RunError
from pcam.storage import ClaimedError, claim, make_folder
from pcam.training.outcome import Finalist, TuneReport, ranked
from pcam.training.pruning import OBJECTIVE, Judge, PruningStop, median_pruner
from pcam.training.runs import Run, code_version, identity
from pcam.training.space import search_space
from pcam.training.stop import Interrupted, StopRequest, interrupts_held
from pcam.training.study import (
    as_trial,
    counted_trials,
    cut_half_line,
    deciding_trials,
    open_study,
    stop_with_parent,
)

if TYPE_CHECKING:
    import optuna

_LOG = logging.getLogger(__name__)
_WAIT_SECONDS = 0.2
_LOCK_SECONDS = 60
Sampler = Literal["tpe", "random"]


def tune(
    preset: str,
    data_dir: str | Path,
    *,
    trials: int,
    workers: int = 1,
    runs_dir: str | Path = "runs",
    overrides: Sequence[str] = (),
    seed: int = 0,
    sampler: Sampler = "tpe",
    epochs: int | None = None,
    finalists: int = 3,
    seeds: int = 3,
) -> TuneReport:
    """Search, then confirm the best few over seeds; choose the champion on valid.

    The same call again continues a study that was stopped and returns at once when it is done. A worker may be
    killed: its trial is tried again.

    Args:
        preset: preset or config file to start from; its model decides the search space (`SPACES`).
        data_dir: folder with the config's train and valid splits.
        trials: number of trials in all, failed ones included.
        workers: processes that train at the same time.
        runs_dir: where run folders go; the study's journal goes to its `studies` folder.
        overrides: `key=value` on top of the preset, for all trials.
        seed: seed of the sampler.
        sampler: "tpe", or "random" for a search to compare with.
        epochs: begin no further trial once the trials have trained this many epochs, for a search of equal cost;
            None: only `trials` counts.
        finalists: number of best trials to train again.
        seeds: number of training seeds for each finalist, counted from 0.

    Raises:
        ConfigError: unknown preset, no search space for its model, or no trial asked for.
        DataError: the data folder lacks a split, or valid has only one class.
        StorageError: the study's journal is damaged.
        RunError: no trial was completed.
    """
    if min(trials, workers, finalists, seeds) < 1:
        raise ConfigError("a search needs at least one trial, one worker, one finalist and one seed")
    config = load_config(preset, overrides)
    search_space(config)
    splits = [open_split(data_dir, split) for split in (config.data.train_split, config.data.valid_split)]
    if len(np.unique(splits[1].labels if splits[1].labels is not None else [])) < 2:
        raise DataError(f"{data_dir}: {splits[1].name} needs patches of both classes, since ROC-AUC on it is the aim")
    prints = {split.name: split.fingerprint() for split in splits}
    name = study_name(config, prints, seed, sampler)
    journal = make_folder(Path(runs_dir) / "studies") / f"{name}.log"
    job = _Job(
        preset, str(data_dir), str(runs_dir), tuple(overrides), seed, sampler, str(journal), trials, epochs, prints
    )
    try:
        _search(job, workers)
        return _report(job, finalists, seeds)
    except Interrupted as error:
        number = error.exit_code - 128
        raise Interrupted(f"{journal}: the search was stopped; the same command goes on from here", number) from error


def _report(job: _Job, finalists: int, seeds: int) -> TuneReport:
    """Confirm the best few trials over seeds."""
    # A study may hold more trials than are asked for here; the first ones alone decide then.
    frozen = deciding_trials(open_study(Path(job.journal)).trials, job.trials, job.epochs)
    done = [as_trial(number, trial) for number, trial in enumerate(frozen)]
    in_order = ranked(done)
    if not in_order:
        raise RunError(f"none of the {len(done)} trials was completed; see the run folders in {job.runs_dir} for why")
    confirmed: list[Finalist] = []
    dropped: list[Finalist] = []
    for trial, _ in in_order:
        if len(confirmed) < finalists:
            finalist = _confirm(job, trial.number, trial.params, seeds)
            (dropped if finalist.reason else confirmed).append(finalist)
    if not confirmed:
        raise RunError(f"no trial can be trained over {seeds} seeds; the best one: {dropped[0].reason}")
    confirmed.sort(key=lambda finalist: -finalist.mean)  # a stable sort: ties go to the better single trial
    return TuneReport(job.preset, job.sampler, job.journal, done, confirmed, _confirm(job, None, {}, seeds), dropped)


def study_name(config: Config, fingerprints: dict[str, str], seed: int, sampler: str) -> str:
    """Name a study by what determines it: base config, space, data, training code, seed and sampler."""
    space = json.dumps([asdict(d) for d in search_space(config)], sort_keys=True)
    parts = [config_hash(config), space, *fingerprints.values(), code_version(), str(seed), sampler, "median"]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Job:
    """What a worker needs to know; plain values, so that it can be sent to another process."""

    preset: str
    data_dir: str
    runs_dir: str
    overrides: tuple[str, ...]
    seed: int
    sampler: Sampler
    journal: str
    trials: int
    epochs: int | None
    fingerprints: dict[str, str]


def _search(job: _Job, workers: int) -> None:
    """Run trials until the study holds all that are asked for."""
    if workers > 1:
        # spawn: a forked child would inherit torch's threads in an unusable state.
        pool = [get_context("spawn").Process(target=_worker, args=(job, workers)) for _ in range(workers)]
        stop = StopRequest()
        with stop.listening():
            with interrupts_held():  # Ctrl-C goes to every process: workers have it blocked, and leave it to this one
                for process in pool:
                    process.start()
            while stop.number is None and any(process.is_alive() for process in pool):
                time.sleep(_WAIT_SECONDS)
            if stop.number is not None:  # the workers would train on without this process
                for process in pool:
                    process.terminate()  # each saves its run
                for process in pool:
                    process.join()
                raise Interrupted("stopped", stop.number)
    # All that one worker does, and whatever killed workers left behind.
    _work(job)


def _worker(job: _Job, workers: int) -> None:
    import torch

    threading.Thread(target=stop_with_parent, daemon=True).start()
    # Each worker its share of the cores; all of them at all cores would only wait for one another.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    try:
        _work(job)
    except PcamError as error:
        _LOG.warning("a worker ended: %s", error)  # the others go on, and the last words are the main process's


def _work(job: _Job) -> None:
    told = set()
    while True:
        with ExitStack() as held:
            trial, waiting_for = _take(job, held)
            if trial is not None:
                _one_trial(job, trial)
                continue
        if waiting_for is None:
            return
        if str(waiting_for) not in told:
            told.add(str(waiting_for))
            _LOG.warning("waiting for a trial of another process: %s", waiting_for)
        time.sleep(_WAIT_SECONDS)


def _take(job: _Job, held: ExitStack) -> tuple[optuna.Trial | None, ClaimedError | None]:
    """Take the next trial and its claim; else return whom to wait for, or nothing where all is done."""
    import optuna

    journal = Path(job.journal)
    with claim(journal.with_suffix(".lock"), wait=_LOCK_SECONDS):
        cut_half_line(journal)
        study = open_study(journal)
        waiting_for = None
        for running in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            try:
                with claim(journal.with_suffix(f".trial-{running.number}")):
                    study.tell(running.number, state=optuna.trial.TrialState.FAIL)
                    _LOG.warning("trial %d was left by a process that is gone; it is tried again", running.number)
            except ClaimedError as error:
                waiting_for = error
        counted = counted_trials(study.trials)
        spent = sum(len(trial.intermediate_values) for trial in counted)
        if len(counted) >= job.trials or (job.epochs is not None and spent >= job.epochs):
            return None, waiting_for
        trial = study.ask()
        held.enter_context(claim(journal.with_suffix(f".trial-{trial.number}")))
        # Values are drawn one by one later, so the sampler may be set once the trial's place is known.
        study.sampler = _sampler(job, len(counted))
        study.pruner = median_pruner(load_config(job.preset, job.overrides).train.epochs)
        return trial, None


def _one_trial(job: _Job, trial: optuna.Trial) -> None:
    """Draw one configuration, train it and tell the result."""
    import optuna

    from pcam.training import TrainingFailed, train

    states, study = optuna.trial.TrialState, trial.study
    base = load_config(job.preset, job.overrides)
    params = {dimension.key: dimension.suggest(trial) for dimension in search_space(base)}
    config = load_config(job.preset, [*job.overrides, *(f"{key}={value!r}" for key, value in params.items())])
    run, last = Run(Path(job.runs_dir) / identity(config, job.fingerprints)), config.train.epochs - 1
    trial.set_user_attr("run", run.id)
    judge = Judge(trial, run)
    try:
        stop = PruningStop(judge, last)
        train(config, job.data_dir, job.runs_dir, resume=True, wait=True, progress=False, stop=stop)
    except TrainingFailed as error:  # the loss is no longer a number: a fact about the configuration
        trial.set_user_attr("reason", str(error))
        study.tell(trial, state=states.FAIL)
        _LOG.info("trial %d failed: %s", trial.number, error)
        return
    except Interrupted:
        if not judge.pruned:  # by a person: the same call goes on from here
            trial.set_user_attr("stopped", True)
            study.tell(trial, state=states.FAIL)
            raise
    if judge.poor(last):
        study.tell(trial, state=states.PRUNED)
        epochs = len(study.trials[trial.number].intermediate_values)
        _LOG.info("trial %d: ended after epoch %d, below the median", trial.number, epochs)
        return
    study.tell(trial, float(run.final[OBJECTIVE]))
    _LOG.info("trial %d: ROC-AUC on valid %.4f", trial.number, run.final[OBJECTIVE])


def _confirm(job: _Job, trial: int | None, params: dict[str, float | int], seeds: int) -> Finalist:
    from pcam.training import TrainingFailed, train

    chosen = [*job.overrides, *(f"{key}={value!r}" for key, value in params.items())]
    runs: list[Run] = []
    reason = ""
    for seed in range(seeds):
        config = load_config(job.preset, [*chosen, f"seed={seed}"])
        try:
            runs.append(train(config, job.data_dir, job.runs_dir, resume=True, wait=True, progress=False))
        except TrainingFailed as error:  # a fact about the configuration, which one lucky seed had hidden
            reason = f"with seed {seed} {error}"
            break
    return Finalist(trial, params, [float(run.final[OBJECTIVE]) for run in runs], [run.id for run in runs], reason)


def _sampler(job: _Job, place: int) -> Any:
    import optuna

    # A seed for each trial instead of one stream: a continued study then proposes what an unbroken one would have.
    seed = int(np.random.SeedSequence([job.seed, place]).generate_state(1)[0])
    if job.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    # constant_liar: workers that ask at the same time should not all try the same promising spot.
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=3, constant_liar=True)
