"""Search for hyper-parameters: every trial is an ordinary run, judged on valid, and test is never looked at.

Optuna proposes (tree-structured Parzen estimator, Bergstra et al. 2011), `train` runs, and the study's journal file
keeps what was tried. One lucky seed must not win, so the best few configurations are trained again over several
seeds, and the champion is the best mean. Each proposal draws its own random numbers from the study's seed and the
trial's number: with one worker the same command gives the same champion, also when it was interrupted in between.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import psutil

from pcam.config import Config, config_hash, load_config
from pcam.data.format import open_split
from pcam.errors import RunError
from pcam.storage import make_folder
from pcam.training.outcome import Finalist, Trial, TuneReport, ranked
from pcam.training.space import search_space

if TYPE_CHECKING:
    import optuna

_LOG = logging.getLogger(__name__)
OBJECTIVE = "valid_auc"
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
    finalists: int = 3,
    seeds: int = 3,
) -> TuneReport:
    """Search, then confirm the best few over seeds; choose the champion on valid.

    The same call again continues a study that was stopped and returns at once when it is done. A worker may be
    killed: its trial is closed as failed and another one takes its place.

    Args:
        preset: preset or config file to start from; its model decides the search space (`SPACES`).
        data_dir: folder with the config's train and valid splits.
        trials: number of trials in all, failed ones included.
        workers: processes that train at the same time.
        runs_dir: where run folders go; the study's journal goes to its `studies` folder.
        overrides: `key=value` on top of the preset, for all trials.
        seed: seed of the sampler.
        sampler: "tpe", or "random" for a search of equal cost to compare with.
        finalists: number of best trials to train again.
        seeds: number of training seeds for each finalist, counted from 0.

    Raises:
        ConfigError: unknown preset, or no search space for its model.
        DataError: the data folder lacks a split.
        RunError: no trial was completed.
    """
    config = load_config(preset, overrides)
    search_space(config)
    for split in (config.data.train_split, config.data.valid_split):
        open_split(data_dir, split)
    journal = make_folder(Path(runs_dir) / "studies") / f"{study_name(config, data_dir, seed, sampler)}.log"
    job = _Job(preset, str(data_dir), str(runs_dir), tuple(overrides), seed, sampler, str(journal))
    _search(job, trials, workers)
    # A study may hold more trials than are asked for here; the first ones alone decide then.
    done = [_as_trial(trial) for trial in _open_study(journal).trials[:trials]]
    in_order = ranked(done)
    if not in_order:
        raise RunError(f"none of the {len(done)} trials was completed; see the run folders in {runs_dir} for why")
    confirmed = [_confirm(job, trial.number, trial.params, seeds) for trial, _ in in_order[:finalists]]
    confirmed.sort(key=lambda finalist: -finalist.mean)  # a stable sort: ties go to the better single trial
    return TuneReport(preset, sampler, str(journal), done, confirmed, _confirm(job, None, {}, seeds))


def study_name(config: Config, data_dir: str | Path, seed: int, sampler: Sampler) -> str:
    """Name a study by what determines it: base config, space, data, seed and sampler."""
    space = json.dumps([asdict(d) for d in search_space(config)], sort_keys=True)
    data = [open_split(data_dir, s).fingerprint() for s in (config.data.train_split, config.data.valid_split)]
    parts = [config_hash(config), space, *data, str(seed), sampler]
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


def _search(job: _Job, trials: int, workers: int) -> None:
    """Run trials until the study holds `trials` finished ones."""
    while True:
        _reap(job)
        left = trials - len(_open_study(Path(job.journal)).trials)
        if left <= 0:
            return
        if workers == 1:
            for _ in range(left):
                _one_trial(job)
            continue
        try:
            # spawn: a forked child would inherit torch's threads in an unusable state.
            context, count = get_context("spawn"), min(workers, left)
            with ProcessPoolExecutor(count, context, initializer=_share_cores, initargs=(count,)) as pool:
                for future in [pool.submit(_one_trial, job) for _ in range(left)]:
                    future.result()
        except BrokenProcessPool:
            continue  # a worker was killed: its trial is reaped above and the rest go to a new pool


def _share_cores(workers: int) -> None:
    """Give each worker its share of the cores; all of them at all cores would only wait for one another."""
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def _one_trial(job: _Job) -> None:
    """Ask for one configuration, train it and tell the result."""
    import optuna

    from pcam.training import TrainingFailed, train

    study = _open_study(Path(job.journal))
    trial = study.ask()
    # Values are drawn one by one below, so the sampler may be set once the trial's number is known.
    study.sampler = _sampler(job, trial.number)
    trial.set_user_attr("owner", [socket.gethostname(), os.getpid()])
    base = load_config(job.preset, job.overrides)
    params = {dimension.key: dimension.suggest(trial) for dimension in search_space(base)}
    config = load_config(job.preset, [*job.overrides, *(f"{key}={value!r}" for key, value in params.items())])
    try:
        run = train(config, job.data_dir, job.runs_dir, resume=True, wait=True, progress=False)
    except TrainingFailed as error:  # the loss is no longer a number: a fact about the configuration
        trial.set_user_attr("reason", str(error))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        _LOG.info("trial %d failed: %s", trial.number, error)
        return
    trial.set_user_attr("run", run.id)
    study.tell(trial, float(run.final[OBJECTIVE]))
    _LOG.info("trial %d: ROC-AUC on valid %.4f", trial.number, run.final[OBJECTIVE])


def _confirm(job: _Job, trial: int | None, params: dict[str, float | int], seeds: int) -> Finalist:
    from pcam.training import train

    chosen = [*job.overrides, *(f"{key}={value!r}" for key, value in params.items())]
    runs = []
    for seed in range(seeds):
        config = load_config(job.preset, [*chosen, f"seed={seed}"])
        runs.append(train(config, job.data_dir, job.runs_dir, resume=True, wait=True, progress=False))
    return Finalist(trial, params, [float(run.final[OBJECTIVE]) for run in runs], [run.id for run in runs])


def _sampler(job: _Job, number: int) -> Any:
    import optuna

    # A seed for each trial instead of one stream: a continued study then proposes what an unbroken one would have.
    seed = int(np.random.SeedSequence([job.seed, number]).generate_state(1)[0])
    if job.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    # constant_liar: workers that ask at the same time should not all try the same promising spot.
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=3, constant_liar=True)


def _open_study(journal: Path) -> optuna.Study:
    """Open or create the study of a journal file."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.create_study(study_name="pcam", storage=storage, direction="maximize", load_if_exists=True)


def _reap(job: _Job) -> None:
    """Close trials whose worker on this machine is dead; a worker elsewhere is left alone."""
    import optuna

    study = _open_study(Path(job.journal))
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        host, pid = trial.user_attrs.get("owner", (socket.gethostname(), -1))
        if host == socket.gethostname() and (pid == os.getpid() or not psutil.pid_exists(pid)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def _as_trial(frozen: optuna.trial.FrozenTrial) -> Trial:
    return Trial(
        frozen.number, dict(frozen.params), frozen.value, frozen.user_attrs.get("run"), frozen.state.name.lower()
    )
