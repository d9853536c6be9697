"""From a configuration and a data folder to a completed run: claim, record, seed, train, seal."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pcam.config import Config, dump_yaml
from pcam.data.format import Split, data_kind, open_split
from pcam.data.loader import Loader, known_labels, subset_indices
from pcam.errors import ConfigError, DataError, PcamError, RunError, StorageError, clip
from pcam.models import PatchClassifier, build, model_class
from pcam.storage import ClaimedError, claim, remove_strays, sha256_file, write_bytes, write_json, write_text
from pcam.training.checkpoint import checkpoint_folders, weights_bytes
from pcam.training.distributed import World, joined
from pcam.training.environment import environment, note_other_libraries, record_environment
from pcam.training.loop import Position, fit
from pcam.training.runs import MODEL_FILE, Run, identity, split_record
from pcam.training.seeds import Seeds, choose_device, reproducible, seed_generators
from pcam.training.stop import Interrupted, StopRequest
from pcam.training.tracking import mirrored

_LOG = logging.getLogger(__name__)
_WAIT_SECONDS = 0.5
_MACOS = sys.platform == "darwin"


def train(
    config: Config,
    data_dir: Path | str,
    runs_dir: Path | str = "runs",
    *,
    resume: bool = False,
    wait: bool = False,
    progress: bool = True,
    seeds: Seeds | None = None,
    stop: StopRequest | None = None,
) -> Run:
    """Return the completed run of a configuration on a data folder, training it unless it is there already.

    Args:
        config: what to train, and how.
        data_dir: a folder of PCam-format files with the training and the validation split.
        runs_dir: where run folders are kept.
        resume: continue a run that was interrupted or failed.
        wait: when another process of this machine is at work on the same run, wait for it.
        progress: show a progress bar; else epochs are logged, one line each.
        seeds: other than `Seeds.of(config.seed)`, for experiments that switch a control off.
        stop: asked after every step, as for signals; a search ends a poor run with it.

    Raises:
        DataError: a split is missing or breaks the contract, or has only one class.
        RunError: the run was interrupted or failed and `resume` is not set, or another process holds it.
        TrainingFailed: the loss became NaN; the run is marked failed with this reason.
        Interrupted: a signal came; the run is saved and marked interrupted.
    """
    # All that a person may have got wrong is found before a folder is made.
    model_class(config.model.name)
    device = choose_device(config.train.device)
    with joined(device) as world:
        _need_compiler(config, device, world)
        splits = [open_split(data_dir, name) for name in (config.data.train_split, config.data.valid_split)]
        task = _Task(config, splits, seeds or Seeds.of(config.seed), stop or StopRequest(), device, world, progress)
        _need_labels(task)
        records = {split.name: split_record(split) for split in splits}
        run = _run_of(task, Path(runs_dir), records)
        if world.told(_is_completed(run)):
            note_other_libraries(run, "was trained")
            remove_strays(run.path, held=False)  # of one that was killed after its last word
            return run
        while True:
            try:
                _claim_and_train(task, run, records, resume)
                return run
            except ClaimedError as error:
                if not (wait and error.alive):
                    raise RunError(str(error)) from error
                time.sleep(_WAIT_SECONDS)


@dataclass(frozen=True)
class _Task:
    """What is to be trained, and how, wherever the run is kept.

    Attributes:
        splits: the training and the validation split.
    """

    config: Config
    splits: list[Split]
    seeds: Seeds
    stop: StopRequest
    device: torch.device
    world: World
    progress: bool

    @property
    def used(self) -> NDArray[np.int64]:
        """Indices of the training patches that are used."""
        return subset_indices(len(self.splits[0]), self.config.data.max_train, self.config.seed)


def _run_of(task: _Task, runs_dir: Path, records: dict[str, Any]) -> Run:
    nonce = secrets.token_hex(8) if task.seeds.off else ""
    run = Run(runs_dir / identity(task.config, {name: r["fingerprint"] for name, r in records.items()}, nonce))
    if not task.world.same(run.id):
        raise RunError(
            f"process {task.world.rank} would train {run.id}, others would not: give all the same data and code"
        )
    return run


def _claim_and_train(task: _Task, run: Run, records: dict[str, Any], resume: bool) -> None:
    """Train a run unless another process of this world or of another has completed it by the time it is claimed."""
    world = task.world
    # One process claims the run for all; when it is refused it says why, and the others end as it does.
    with claim(run.path / "claim") if world.first else nullcontext():
        if world.first and not _is_completed(run):
            _refuse_unfinished(run, resume)
            directory = task.splits[0].directory
            data = {"directory": str(directory.resolve()), "kind": data_kind(directory), "splits": records}
            write_json(run.path / "data.json", data)
        if not world.told(_is_completed(run)):
            with mirrored(run) if world.first else nullcontext():
                _train_claimed(task, run)


def _is_completed(run: Run) -> bool:
    return (run.path / "status.json").exists() and run.state == "completed"


def _refuse_unfinished(run: Run, resume: bool) -> None:
    if resume or not (run.path / "status.json").exists():
        return
    status = run.status
    if status["state"] == "claimed":  # it died before its first step: nothing to continue
        return
    state = "interrupted" if status["state"] == "running" else status["state"]
    reason = f" ({status['reason']})" if status.get("reason") else ""
    raise RunError(f"{run.path}: this run was {state}{reason}; continue it with --resume, or remove the folder")


def _train_claimed(task: _Task, run: Run) -> None:
    """Train in a folder that this process, or the first of its world, has claimed, and leave its final state there."""
    config, device, world = task.config, task.device, task.world
    controlled = reproducible(task.seeds, config.train.deterministic, config.train.threads)
    # Signals are noted until the run's state is written: torchrun sends one as soon as any process is gone.
    with task.stop.listening(), _recorded(run) if world.first else nullcontext(), controlled as controls:
        if world.first:
            _record_start(run, config, environment(device, controls, world.size))
        model = build(config.model).to(device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        train_set, valid_set = _loaders(task)
        model.set_normalisation(*train_set.channel_statistics())
        if world.first:
            _note_rounded(train_set)
            _note_inflated(train_set)
        seed_generators(task.seeds.library)
        end = fit(config, run.path, model, train_set, valid_set, task.seeds, task.stop, world, task.progress)
        if world.first:
            _note_rounded(valid_set)  # not known before it has been read
            _record_end(run, config, model, end)


def _record_start(run: Run, config: Config, environment: dict[str, Any]) -> None:
    run.write_status("claimed")
    remove_strays(run.path)
    write_text(run.path / "config.yaml", dump_yaml(config))
    record_environment(run, environment, resumed=bool(checkpoint_folders(run.path / "checkpoints")))
    run.write_status("running")


def _record_end(run: Run, config: Config, model: PatchClassifier, end: Position) -> None:
    write_bytes(run.path / MODEL_FILE, weights_bytes(model.state_dict(), config.model))
    sha256 = sha256_file(run.path / MODEL_FILE)
    write_text(run.path / f"{MODEL_FILE}.sha256", f"{sha256}  {MODEL_FILE}\n")
    epochs = run.epochs
    chosen = epochs[end.best_epoch] if config.train.patience else epochs[-1]
    final = {key: value for key, value in chosen.items() if key not in ("kind", "seconds")}
    seconds = round(sum(row["seconds"] for row in epochs), 3)
    run.write_status("completed", final={**final, "steps": end.step, "seconds": seconds, "sha256": sha256})


def _loaders(task: _Task) -> tuple[Loader, Loader]:
    """Return the loaders of the training and the validation patches; each process reads its rows of every batch."""
    data, size, world = task.config.data, task.config.train.batch_size, task.world
    common: dict[str, Any] = {"device": task.device, "workers": data.workers, "rank": world.rank, "world": world.size}
    common["rounding"] = data.values == "round"
    train, valid = task.splits
    return (
        Loader(train, size, indices=task.used, block=data.block, balance=data.balance, **common),
        Loader(valid, max(size, 256), **common),
    )


def _note_inflated(loader: Loader) -> None:
    """Warn of an order that the file's chunks make slow."""
    if loader.inflated_again:
        _LOG.warning(
            "%s: %s is stored in chunks of %d patches: set data.block=%d, or each is inflated again and again; or make "
            "it canonical with 'pcam data pack'",
            *(loader.split.directory, loader.split.name, loader.inflated_again, loader.inflated_again),
        )


def _note_rounded(loader: Loader) -> None:
    """Warn of what the stored values lose, as far as they have been read."""
    if loader.rounded:
        _LOG.warning(
            "%s: %s: %d of %d patches hold values that are not integers in 0..255; rounded (data.values)",
            *(loader.split.directory, loader.split.name, loader.rounded, len(loader.indices)),
        )


def _need_compiler(config: Config, device: torch.device, world: World) -> None:
    if not config.train.compile:
        return
    if world.size > 1:
        raise ConfigError(f"train.compile is for one process, and this is one of {world.size}: set it to false")
    variable, usual = ("CC", "gcc") if device.type == "cuda" else ("CXX", "clang++" if _MACOS else "g++")
    compiler = os.environ.get(variable, usual)
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"train.compile needs a compiler, and '{compiler}' is not there: install it, name another in {variable}, "
            "or set train.compile=false"
        )


def _need_labels(task: _Task) -> None:
    split = task.splits[0]
    labels, _ = map(known_labels, task.splits)
    found = np.unique(labels[task.used]).tolist()
    if len(found) == 1:
        raise DataError(
            f"{split.directory}: {split.name}: every label is {found[0]}; training needs patches of both classes"
        )


@contextmanager
def _recorded(run: Run) -> Iterator[None]:
    """Leave the run's state and the reason in status.json however the block ends."""
    try:
        yield
    except Interrupted as error:
        run.write_status("interrupted", reason=str(error))
        error.args = (f"{run.path}: {error}; continue it with --resume",)
        raise
    except PcamError as error:
        _write_failed(run, str(error))
        raise
    except BaseException as error:
        # torch raises this wherever the process happens to be when its reader dies.
        if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
            reason = f"a reader process died ({str(error).splitlines()[0].strip()}): it may have run out of memory"
            _write_failed(run, reason)
            raise RunError(f"{run.path}: {reason}; continue with --resume, or with data.workers=0") from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            reason = f"the network could not be compiled ({clip(str(error).splitlines()[0])})"
            _write_failed(run, reason)
            raise RunError(f"{run.path}: {reason}; train with train.compile=false") from error
        _write_failed(run, f"{type(error).__name__}: {error}")
        raise


def _write_failed(run: Run, reason: str) -> None:
    try:
        run.write_status("failed", reason=reason)
    except StorageError as error:  # the disk that made it fail: the reason is raised, and must not be hidden by this
        _LOG.warning("the run's failure could not be recorded: %s", error)
