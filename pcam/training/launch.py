"""From a configuration and a data folder to a completed run: claim, record, seed, train, seal."""

from __future__ import annotations

import logging
import platform
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import pcam
from pcam.config import Config, dump_yaml
from pcam.data.format import Split, data_kind, open_split
from pcam.data.loader import Loader, subset_indices
from pcam.errors import DataError, PcamError, RunError, StorageError
from pcam.models import PatchClassifier, build, model_class
from pcam.provenance import cpu_name, git_state, hardware, lock_hash, slurm_job
from pcam.storage import ClaimedError, claim, remove_strays, sha256_file, write_bytes, write_json, write_text
from pcam.training.checkpoint import checkpoint_folders, read_weights, weights_bytes
from pcam.training.compare import changed_libraries, library_versions
from pcam.training.distributed import World, joined
from pcam.training.loop import Position, fit
from pcam.training.runs import MODEL_FILE, Run, code_version, identity, split_record
from pcam.training.seeds import Seeds, choose_device, reproducible, seed_generators
from pcam.training.stop import Interrupted, StopRequest
from pcam.training.tracking import mirrored

_LOG = logging.getLogger(__name__)
_WAIT_SECONDS = 0.5


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
        return _train(config, Path(data_dir), Path(runs_dir), resume, wait, progress, seeds, stop, device, world)


def _train(
    config: Config,
    data_dir: Path,
    runs_dir: Path,
    resume: bool,
    wait: bool,
    progress: bool,
    seeds: Seeds | None,
    stop: StopRequest | None,
    device: torch.device,
    world: World,
) -> Run:
    seeds = seeds or Seeds.of(config.seed)
    splits = [open_split(data_dir, name) for name in (config.data.train_split, config.data.valid_split)]
    _need_both_classes(config, splits[0])
    records = {split.name: split_record(split) for split in splits}
    nonce = secrets.token_hex(8) if seeds.off else ""
    run = Run(runs_dir / identity(config, {name: r["fingerprint"] for name, r in records.items()}, nonce))
    if not world.same(run.id):
        raise RunError(f"process {world.rank} would train {run.id}, others would not: give all the same data and code")
    if world.told(_is_completed(run)):
        _note_other_libraries(run)
        remove_strays(run.path, held=False)  # of one that was killed after its last word
        return run
    while True:
        try:
            # One process claims the run for all; when it is refused it says why, and the others end as it does.
            with claim(run.path / "claim") if world.first else nullcontext():
                if world.first and not _is_completed(run):
                    _refuse_unfinished(run, resume)
                    data = {"directory": str(data_dir.resolve()), "kind": data_kind(data_dir), "splits": records}
                    write_json(run.path / "data.json", data)
                if not world.told(_is_completed(run)):
                    with mirrored(run) if world.first else nullcontext():
                        _train_claimed(run, config, splits, seeds, stop or StopRequest(), device, world, progress)
            return run
        except ClaimedError as error:
            if not (wait and error.alive):
                raise RunError(str(error)) from error
            time.sleep(_WAIT_SECONDS)


def load_model(run: Run) -> PatchClassifier:
    """Return a completed run's model in evaluation mode, on the CPU; see `PatchClassifier.predict_logits`.

    Raises:
        RunError: the run is not completed, or its weights are not those that it recorded.
    """
    if run.state != "completed":
        raise RunError(f"{run.path}: the run is {run.state}; only a completed run has a model")
    with torch.random.fork_rng(devices=[]):  # the first weights are drawn and overwritten: no trace of that
        model = build(run.config.model)
    model.load_state_dict(read_weights(run.path / MODEL_FILE, run.final["sha256"]))
    return model.eval()


def _is_completed(run: Run) -> bool:
    return (run.path / "status.json").exists() and run.state == "completed"


def _note_other_libraries(run: Run) -> None:
    for package in changed_libraries(run.environment["versions"]):
        _LOG.warning(
            "%s was trained with %s %s and here it is %s: training again may give other bits",
            run.path,
            package.key,
            package.first,
            package.second,
        )


def _refuse_unfinished(run: Run, resume: bool) -> None:
    if resume or not (run.path / "status.json").exists():
        return
    status = run.status
    if status["state"] == "claimed":  # it died before its first step: nothing to continue
        return
    state = "interrupted" if status["state"] == "running" else status["state"]
    reason = f" ({status['reason']})" if status.get("reason") else ""
    raise RunError(f"{run.path}: this run was {state}{reason}; continue it with --resume, or remove the folder")


def _train_claimed(
    run: Run,
    config: Config,
    splits: list[Split],
    seeds: Seeds,
    stop: StopRequest,
    device: torch.device,
    world: World,
    progress: bool,
) -> None:
    """Train in a folder that this process, or the first of its world, has claimed, and leave its final state there."""
    controlled = reproducible(seeds, config.train.deterministic, config.train.threads)
    # Signals are noted until the run's state is written: torchrun sends one as soon as any process is gone.
    with stop.listening(), _recorded(run) if world.first else nullcontext(), controlled as controls:
        if world.first:
            _record_start(run, config, environment(device, controls, world.size))
        model = build(config.model).to(device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        train_set, valid_set = _loaders(config, splits, device, world)
        model.set_normalisation(*train_set.channel_statistics())
        if world.first:
            _note_storage(train_set)
        seed_generators(seeds.library)
        end = fit(config, run.path, model, train_set, valid_set, seeds, stop, world, progress)
        if world.first:
            _record_end(run, config, model, end)


def _record_start(run: Run, config: Config, environment: dict[str, Any]) -> None:
    run.write_status("claimed")
    remove_strays(run.path)
    write_text(run.path / "config.yaml", dump_yaml(config))
    resumed = bool(checkpoint_folders(run.path / "checkpoints"))
    write_json(run.path / "environment.json", {**environment, "resumed": resumed})
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


def _loaders(config: Config, splits: list[Split], device: torch.device, world: World) -> tuple[Loader, Loader]:
    """Return the loaders of the training and the validation patches; each process reads its rows of every batch."""
    size, used = config.train.batch_size, _used(config, splits[0])
    common: dict[str, Any] = {"device": device, "workers": config.data.workers, "rank": world.rank, "world": world.size}
    common["rounding"] = config.data.values == "round"
    order: dict[str, Any] = {"block": config.data.block, "balance": config.data.balance}
    return Loader(splits[0], size, indices=used, **order, **common), Loader(splits[1], max(size, 256), **common)


def _note_storage(loader: Loader) -> None:
    """Warn of what the stored values lose and of an order that the file's chunks make slow."""
    place = f"{loader.split.directory}: {loader.split.name}"
    if loader.rounded:
        _LOG.warning(
            "%s: %d of %d patches hold values that are not integers in 0..255; rounded (data.values)",
            *(place, loader.rounded, len(loader.indices)),
        )
    if loader.inflated_again:
        _LOG.warning(
            "%s is stored in chunks of %d patches: set data.block=%d, or each is inflated again and again; or make it "
            "canonical with 'pcam data pack'",
            *(place, loader.inflated_again, loader.inflated_again),
        )


def _used(config: Config, split: Split) -> NDArray[np.int64]:
    return subset_indices(len(split), config.data.max_train, config.seed)


def _need_both_classes(config: Config, split: Split) -> None:
    found = [] if split.labels is None else np.unique(split.labels[_used(config, split)]).tolist()
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
        _write_failed(run, f"{type(error).__name__}: {error}")
        raise


def _write_failed(run: Run, reason: str) -> None:
    try:
        run.write_status("failed", reason=reason)
    except StorageError as error:  # the disk that made it fail: the reason is raised, and must not be hidden by this
        _LOG.warning("the run's failure could not be recorded: %s", error)


def environment(device: torch.device, controls: dict[str, Any], processes: int = 1) -> dict[str, Any]:
    """Return what environment.json keeps: versions, hardware, controls, commit, lock and cluster job.

    Args:
        device: where the run computes.
        controls: what `reproducible` has set.
        processes: how many train together.
    """
    git = git_state()
    return {
        "versions": {
            "python": platform.python_version(),
            "pcam": pcam.__version__,
            **library_versions(),
        },
        "platform": platform.platform(),
        "hardware": hardware(),
        "cpu": cpu_name(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "controls": controls,
        "processes": processes,
        "commit": git.commit,
        "dirty": git.dirty,
        "code_version": code_version(),
        "lock_sha256": lock_hash(),
        "slurm": slurm_job(),
        "command": sys.argv,
    }
