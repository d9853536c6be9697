"""Throughput over batch sizes, models, devices and precisions, each beside the machine's own limit.

`bench` writes OUT/throughput.csv, one row a figure, and OUT/machine.json, what they were measured on. A batch that
does not fit into memory is a result as well: its row has no rate.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pcam import storage
from pcam.benchmark.limits import DTYPES, Limits, flops_per_image, measure_limits
from pcam.benchmark.memory import peak_of, unless_out_of_memory
from pcam.benchmark.steps import forward_step, loading_step, training_step
from pcam.benchmark.timing import FAST, FULL, Budget, Timing, measure
from pcam.config import Config, load_config
from pcam.data.format import Split, available_splits, open_split
from pcam.data.loader import Loader
from pcam.errors import ConfigError, did_you_mean
from pcam.models import build
from pcam.provenance import git_state, hardware, slurm_job

if TYPE_CHECKING:
    import pandas as pd

PHASES = ("loader", "model", "train")
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
FAST_BATCH_SIZES = (1, 8, 64, 512)


@dataclass(frozen=True)
class Row:
    """One row of throughput.csv; a rate is None where the batch did not fit into memory.

    `model` names the preset, or for the loader where the patches come from ("memory", "file").
    """

    phase: str
    device: str
    model: str
    precision: str
    batch_size: int
    workers: int
    images_per_second: float | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    fraction_of_limit: float | None
    peak_memory_bytes: int | None
    job_id: str


def bench(
    phase: str,
    data_dir: Path | str,
    out: Path | str,
    *,
    presets: Sequence[str] = ("mlp", "cnn"),
    overrides: Sequence[str] = (),
    batch_sizes: Sequence[int] | None = None,
    devices: Sequence[str] | None = None,
    precisions: Sequence[str] = ("float32", "bfloat16"),
    workers: Sequence[int] = (0,),
    fast: bool = False,
) -> pd.DataFrame:
    """Measure one phase and write OUT/throughput.csv and OUT/machine.json.

    Args:
        phase: "loader" (patches delivered), "model" (forward, patches at hand) or "train" (loading, augmentation,
            forward, backward and step).
        data_dir: the data folder; its first split with labels is used.
        out: the folder to write into.
        presets: the models, small before large.
        overrides: config overrides for all of them, such as "model.width=16".
        batch_sizes: None: 1 … 512.
        devices: "cpu", "cuda"; None: all that there are.
        precisions: "float32", "bfloat16".
        workers: numbers of reading processes, for the loader.
        fast: few and short measurements, for a look; not for a claim.

    Returns:
        the table, with the columns of `Row`.

    Raises:
        ConfigError: unknown phase or precision.
        DataError: no such data, or none with labels.
        StorageError: the results cannot be written.
    """
    import pandas as pd

    if phase not in PHASES:
        raise ConfigError(f"unknown phase '{phase}'{did_you_mean(phase, PHASES)}")
    for name in precisions:
        if name not in DTYPES:
            raise ConfigError(f"unknown precision '{name}'{did_you_mean(name, DTYPES)}")
    split = _labelled_split(data_dir)
    out = Path(out)
    storage.check_folder(out)  # made when there is a table: a measurement that was stopped leaves nothing
    budget = FAST if fast else FULL
    sizes = tuple(batch_sizes or (FAST_BATCH_SIZES if fast else BATCH_SIZES))
    rows: list[Row] = []
    limits: list[Limits] = []
    for device in [torch.device(name) for name in devices or available_devices()]:
        limit = measure_limits(device, tuple(precisions), fast=fast)
        limits.append(limit)
        if phase == "loader":
            rows += _loader_rows(split, device, sizes, workers, limit, budget)
            continue
        for preset in presets:
            config = load_config(preset, overrides)
            for precision in precisions:
                rows += _model_rows(phase, preset, config, split, device, precision, sizes, limit, budget)
    table = pd.DataFrame([asdict(row) for row in rows])
    with storage.atomic_path(out / "throughput.csv") as path:
        table.to_csv(path, index=False)
    storage.write_json(out / "machine.json", machine(limits))
    return table


def available_devices() -> tuple[str, ...]:
    """Return the devices of this machine: "cpu", and "cuda" where torch finds a GPU."""
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def machine(limits: Sequence[Limits]) -> dict[str, object]:
    """Return what the figures were measured on: hardware, threads, versions, job, load, limits."""
    git = git_state()
    return {
        "hardware": hardware(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "job": slurm_job(),
        # What else ran: above the number of cores, the figures are those of a shared machine.
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "commit": git.commit,
        "dirty": git.dirty,
        "limits": [asdict(limit) for limit in limits],
    }


def _labelled_split(data_dir: Path | str) -> Split:
    splits = [open_split(data_dir, name) for name in available_splits(data_dir)]
    return next((split for split in splits if split.labels is not None), splits[0])


def _loader_rows(
    split: Split, device: torch.device, sizes: Sequence[int], workers: Sequence[int], limit: Limits, budget: Budget
) -> list[Row]:
    def time_loader(size: int, source: str, count: int, images: int) -> Timing:
        resident = source == "memory"
        loader = Loader(split, size, device=device, workers=count, resident=resident, indices=np.arange(images))
        return measure(loading_step(loader), min(size, images), budget, peak_of(device))

    rows = []
    for size, (source, count) in product(sizes, [("memory", 0), *(("file", count) for count in workers)]):
        # Reading single patches of a large file costs seconds a batch: some batches tell enough.
        images = len(split) if source == "memory" else min(len(split), 8 * size + 64)
        timing = unless_out_of_memory(partial(time_loader, size, source, count, images))
        best = limit.loader_images_per_second(images, size)
        rows.append(_row("loader", device, source, "uint8", size, count, timing, best))
    return rows


def _model_rows(
    phase: str,
    preset: str,
    config: Config,
    split: Split,
    device: torch.device,
    precision: str,
    sizes: Sequence[int],
    limit: Limits,
    budget: Budget,
) -> list[Row]:
    torch.manual_seed(config.seed)
    model = build(config.model).to(device)
    best = limit.flops_per_second[precision] / flops_per_image(model, device, training=phase == "train")

    def time_model(size: int) -> Timing:
        if phase == "model":
            return measure(forward_step(model, device, precision, size), size, budget, peak_of(device))
        step = training_step(model, config, split, device, precision, size)
        return measure(step, min(size, len(split)), budget, peak_of(device))

    return [
        _row(phase, device, preset, precision, size, 0, unless_out_of_memory(partial(time_model, size)), best)
        for size in sizes
    ]


def _row(
    phase: str,
    device: torch.device,
    model: str,
    precision: str,
    size: int,
    workers: int,
    timing: Timing | None,
    limit: float,
) -> Row:
    def figure(read: Callable[[Timing], float]) -> float | None:
        return None if timing is None else read(timing)

    return Row(
        phase=phase,
        device=device.type,
        model=model,
        precision=precision,
        batch_size=size,
        workers=workers,
        images_per_second=figure(lambda t: t.images_per_second),
        p50_ms=figure(lambda t: t.percentile_ms(50)),
        p90_ms=figure(lambda t: t.percentile_ms(90)),
        p99_ms=figure(lambda t: t.percentile_ms(99)),
        fraction_of_limit=figure(lambda t: t.images_per_second / limit),
        peak_memory_bytes=None if timing is None else timing.peak_bytes,
        job_id=slurm_job().get("job_id", ""),
    )
