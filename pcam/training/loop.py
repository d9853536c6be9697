"""The training loop, top to bottom: order, augmentation, forward, backward, clip, step, log, validate, save.

Everything that the next step depends on is in the model, the optimiser, the global generators and one small
`Position`; all four are in every checkpoint, so that a run which was stopped anywhere ends in the same bits
as one which was not.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from pcam.config import Config, TrainConfig
from pcam.data.augment import augment
from pcam.data.loader import Loader, augment_generator
from pcam.errors import RunError
from pcam.models import PatchClassifier
from pcam.storage import append_lines, keep, write_bytes
from pcam.training.checkpoint import load_last, of_this_run, save_checkpoint
from pcam.training.distributed import World
from pcam.training.schedule import PLATEAU_FACTOR, PLATEAU_PATIENCE, learning_rate
from pcam.training.seeds import Seeds, generator_states, restore_generators
from pcam.training.stop import Interrupted, StopRequest
from pcam.training.validate import validate

_LOG = logging.getLogger(__name__)
_READ_SECONDS = 0.5  # between looks at what the device has computed


class TrainingFailed(RunError):
    """Training cannot go on: a loss is no longer a number."""


@dataclass
class Position:
    """Where a run stands and what it has seen: all of its state that is not tensors.

    Attributes:
        epoch, batch: the next batch, and of which epoch, from 0.
        step: optimiser steps done.
        loss_sum, n_seen: sum of the losses and number of patches so far in this epoch.
        best_loss, best_epoch, bad_epochs: lowest valid loss, its epoch, epochs since then.
        plateau, plateau_bad: the plateau schedule's factor, and epochs that count towards its next fall.
        lines: lines written to metrics.jsonl.
        seconds: time spent in this epoch before an interruption.
        done: the last epoch is over.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    n_seen: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    bad_epochs: int = 0
    plateau: float = 1.0
    plateau_bad: int = 0
    lines: int = 0
    seconds: float = 0.0
    done: bool = False


def fit(
    config: Config,
    folder: Path,
    model: PatchClassifier,
    train: Loader,
    valid: Loader,
    seeds: Seeds,
    stop: StopRequest,
    world: World,
    progress: bool = False,
) -> Position:
    """Train a model, from its last checkpoint if there is one, and leave it in its final state.

    The final model is the last epoch's, or the one with the lowest valid loss where a patience is set.

    Args:
        config: the run's configuration.
        folder: the run folder; metrics.jsonl and checkpoints/ are written in it.
        model: on its device, with its first weights and its normalisation.
        train: training patches.
        valid: validation patches.
        seeds: of order and augmentation; the global generators are seeded already.
        stop: asked after every step.
        world: the processes that train together; the first one writes.
        progress: show a bar with the time left; else log one line an epoch.

    Returns:
        Where the run ended.

    Raises:
        TrainingFailed: a loss or a gradient became NaN or infinite. It is found before anything is saved.
        RunError: no checkpoint is sound, or another process of this run is gone.
        Interrupted: a signal came; the run was saved first.
    """
    settings, metrics = config.train, folder / "metrics.jsonl"
    optimiser = make_optimiser(model, settings)
    averaged: AveragedModel | None = None
    judged: Any = model
    network = trained_form(model, settings)
    if settings.average:
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.average), use_buffers=True)
        judged = averaged.module
    here, best = Position(), None
    loaded = load_last(folder / "checkpoints", run=folder.name)
    if loaded:
        weights, best, state = loaded
        with of_this_run(folder):
            model.load_state_dict(weights)
            optimiser.load_state_dict(state["optimiser"])
            if averaged is not None:
                averaged.load_state_dict(state["averaged"])
            restore_generators(state["generators"])
            here = Position(**state["position"])
    if world.first:
        _keep_lines(metrics, here.lines)
    unread: list[tuple[int, float, int, torch.Tensor]] = []
    read_at = time.monotonic()

    def read_back() -> None:
        """Fetch losses and norms of the last steps from the device at once: waiting at every step costs time."""
        values = torch.stack([pair for *_, pair in unread]).tolist() if unread else []
        for (step, rate, n, _), (loss, norm) in zip(unread, values, strict=True):
            _finite(loss, "loss", step, here.epoch, settings)
            _finite(norm, "gradient norm", step, here.epoch, settings)
            if step % settings.log_every == 0:
                log("step", {"step": step, "epoch": here.epoch, "loss": loss, "grad_norm": norm, "lr": rate})
            here.loss_sum += loss * n
            here.n_seen += n
        unread.clear()

    def log(kind: str, row: dict[str, Any]) -> None:
        here.lines += 1
        if world.first:
            append_lines(metrics, [json.dumps({"kind": kind, **row}, allow_nan=False)])

    def save() -> None:
        if not world.first:
            return
        state = {"optimiser": optimiser.state_dict(), "generators": generator_states(), "position": asdict(here)}
        if averaged is not None:
            state["averaged"] = averaged.state_dict()
        keep(metrics)  # a checkpoint whose log was lost in a power cut would be refused
        save_checkpoint(folder / "checkpoints", here.step, model.state_dict(), best, state, config.model, folder.name)

    half = settings.precision == "bfloat16"
    total = len(train) * settings.epochs
    bar = tqdm(total=total, initial=here.step, disable=not (progress and world.first), unit="step", dynamic_ncols=True)
    while not here.done:
        started = time.perf_counter() - here.seconds
        model.train()
        for batch in train.epoch(seeds.order, here.epoch, start=here.batch):
            rate = learning_rate(settings, here.step, total, here.plateau)
            for group in optimiser.param_groups:
                group["lr"] = rate
            n = min(settings.batch_size, len(train.indices) - here.batch * settings.batch_size)
            first = world.take(n).start  # of n patches, this process has those from `first` on
            generator = augment_generator(seeds.augmentation, here.epoch, here.batch)
            inputs = augment(batch.patches, settings.augment, generator, batch_size=n, first=first)
            with world.sharing(), torch.autocast(train.device.type, torch.bfloat16, enabled=half):
                logits = network(model.normalise(inputs, in_place=True)).float()
            targets = batch.labels.float() * (1 - settings.label_smoothing) + settings.label_smoothing / 2
            loss = binary_cross_entropy_with_logits(logits, targets, reduction="sum") / n
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            loss = world.add_gradients(model.parameters(), loss)
            norm = clip_gradients(model, settings.grad_clip)
            optimiser.step()
            if averaged is not None:
                averaged.update_parameters(model)
            unread.append((here.step, rate, n, torch.stack((loss, norm))))
            here.step += 1
            here.batch += 1
            bar.update()
            number = world.agree(stop.number)
            # Not the others: one whose clock runs ahead would leave on a NaN, and the first, which records why a run
            # failed, would know only that it is gone.
            if number is not None or (world.first and time.monotonic() > read_at + _READ_SECONDS):
                read_back()
                read_at = time.monotonic()
            if number is not None:
                here.seconds = time.perf_counter() - started
                save()
                world.told(True)  # nobody leaves before it is written: torchrun ends all when one is gone
                name = signal.Signals(number).name
                raise Interrupted(f"stopped by {name} after step {here.step} of {total}", number)

        read_back()
        scores = validate(judged, valid, world)
        valid_loss = _finite(scores["valid_loss"], "valid loss", here.step, here.epoch, settings)
        train_loss, seconds = here.loss_sum / here.n_seen, time.perf_counter() - started
        row = {"epoch": here.epoch, "train_loss": train_loss, **scores, "lr": optimiser.param_groups[0]["lr"]}
        log("epoch", {**row, "seconds": round(seconds, 3)})
        line = f"epoch {here.epoch + 1}/{settings.epochs}: train loss {train_loss:.4f}, valid loss {valid_loss:.4f}"
        if progress:
            bar.set_description(line, refresh=False)
        elif world.first:
            _LOG.info("%s, %.1f s", line, seconds)
        if valid_loss < here.best_loss:
            here.best_loss, here.best_epoch, here.bad_epochs, here.plateau_bad = valid_loss, here.epoch, 0, 0
            best = deepcopy(judged.state_dict()) if settings.patience else None
        else:
            here.bad_epochs += 1
            here.plateau_bad += 1
        if here.plateau_bad > PLATEAU_PATIENCE:
            here.plateau, here.plateau_bad = here.plateau * PLATEAU_FACTOR, 0
        here.epoch, here.batch, here.loss_sum, here.n_seen, here.seconds = here.epoch + 1, 0, 0.0, 0, 0.0
        out_of_patience = settings.patience is not None and here.bad_epochs >= settings.patience
        here.done = out_of_patience or here.epoch == settings.epochs
        if here.done or here.epoch % settings.checkpoint_every == 0:
            save()
    bar.close()
    model.load_state_dict(judged.state_dict() if best is None else best)
    return here


def make_optimiser(model: PatchClassifier, settings: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser that the config names; biases and normalisation scales are not decayed."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # Fused: one pass over the weights instead of one an operation, three times as fast on a CPU too.
    if settings.optimizer == "sgd":
        nesterov = settings.momentum > 0
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov, fused=True)
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True)


def trained_form(model: PatchClassifier, settings: TrainConfig) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what a training step calls: the model itself, or kernels compiled for it that work on its weights."""
    if not settings.compile:
        return model
    torch.compiler.reset()  # what earlier runs of this process compiled counts towards a limit, beyond which none is
    # A form for each shape of batch. One for all shapes would be made when a second shape is met: a run that goes on in
    # the middle of an epoch would meet them in another order, and compute with other kernels.
    options: Any = {"deterministic": settings.deterministic}
    compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(model, dynamic=False, options=options)
    return compiled


def clip_gradients(model: PatchClassifier, most: float | None) -> torch.Tensor:
    """Return the norm of all gradients together, and scale them down to `most` where it is more (None: never)."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    if most:  # without it, scaling by 1 would only read and write every gradient once more
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), most, norm)
    return norm


def _finite(value: float | None, what: str, step: int, epoch: int, settings: TrainConfig) -> float:
    if value is None or not math.isfinite(value):
        raise TrainingFailed(
            f"the {what} became {value} at step {step} (epoch {epoch}): lower train.lr "
            f"(now {settings.lr:g}), add train.warmup or set train.grad_clip"
        )
    return value


def _keep_lines(path: Path, n: int) -> None:
    """Cut a log back to what the checkpoint knows of; the steps after it are done, and logged, again."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    if len(lines) < n:  # going on would complete a run whose first steps nobody can see
        raise RunError(
            f"{path} holds {len(lines)} of the {n} lines that were logged before the checkpoint: restore it, or "
            "remove the run folder and train again"
        )
    write_bytes(path, b"".join(lines[:n]))
