"""Throughput tables: their columns, what the figures mean, and what happens when memory runs out."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pcam.benchmark import bench, time_stages, timing
from pcam.benchmark.limits import flops_per_image, measure_limits
from pcam.benchmark.memory import peak_of, unless_out_of_memory
from pcam.benchmark.steps import full_batches
from pcam.config import ModelConfig, load_config
from pcam.data.format import open_split
from pcam.data.loader import Loader
from pcam.errors import ConfigError, DataError, StorageError
from pcam.models import build

COLUMNS = [
    "phase",
    "device",
    "model",
    "precision",
    "batch_size",
    "workers",
    "images_per_second",
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "fraction_of_limit",
    "peak_memory_bytes",
    "job_id",
]
SMALL = ("model.width=4", "model.hidden=8")
CPU = torch.device("cpu")


@pytest.mark.parametrize("phase", ["loader", "model", "train"])
def test_table_and_machine_are_written(phase: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    table = bench(phase, tiny, tmp_path, batch_sizes=(1, 4), devices=("cpu",), overrides=SMALL, fast=True)
    with (tmp_path / "throughput.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(table.columns) == COLUMNS
    assert {row["batch_size"] for row in rows} == {"1", "4"}
    assert {row["job_id"] for row in rows} == {"4711"}
    for row in table.itertuples():
        assert row.images_per_second > 0 and row.fraction_of_limit > 0
        assert row.p50_ms <= row.p90_ms <= row.p99_ms
        assert row.peak_memory_bytes > 1 << 20
    machine = json.loads((tmp_path / "machine.json").read_text())
    assert machine["limits"][0]["copy_bytes_per_second"] > 1e8
    assert machine["job"]["job_id"] == "4711" and machine["threads"] >= 1


def test_job_id_is_empty_outside_a_cluster(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    table = bench("loader", tiny, tmp_path, batch_sizes=(2,), devices=("cpu",), fast=True)
    assert set(table.job_id) == {""}


def test_a_batch_that_does_not_fit_is_a_row_without_a_rate(tiny: Path, tmp_path: Path) -> None:
    table = bench(
        "model", tiny, tmp_path, presets=("mlp",), batch_sizes=(1, 1 << 40), devices=("cpu",),
        precisions=("float32",), overrides=SMALL, fast=True,
    )  # fmt: skip
    fits, too_large = table.itertuples()
    assert fits.images_per_second > 0
    assert np.isnan(too_large.images_per_second) and np.isnan(too_large.peak_memory_bytes)


def test_only_a_lack_of_memory_is_a_result() -> None:
    assert unless_out_of_memory(lambda: 3) == 3
    assert unless_out_of_memory(lambda: torch.empty(1 << 55)) is None

    def raises_out_of_memory() -> None:
        raise torch.OutOfMemoryError

    def is_broken() -> None:
        raise RuntimeError("shapes do not fit")

    assert unless_out_of_memory(raises_out_of_memory) is None
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        unless_out_of_memory(is_broken)


def test_warm_up_is_not_timed_and_the_median_repeat_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.cumsum([0, 1] * 2 + [0, 4] + [0, 2]).tolist())
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    calls: list[int] = []
    budget = timing.Budget(seconds=0, repeats=4, warmup=3, least=1)
    measured = timing.measure(lambda: calls.append(1), 8, budget, lambda: 123)
    assert len(calls) == 7
    assert measured.images_per_second == np.median([8, 8, 2, 4])
    assert measured.percentile_ms(50) == 1500
    assert measured.peak_bytes == 123


def test_peak_memory_feels_an_allocation() -> None:
    peak = peak_of(CPU)
    before = peak()
    block = np.ones(64 << 20, np.uint8)
    assert peak() >= before + (48 << 20)
    del block


def test_flops_are_those_of_the_layers() -> None:
    model = build(ModelConfig(name="mlp", hidden=8))
    forward = 2 * (24 * 24 * 3 * 8 + 8)
    assert flops_per_image(model, CPU, training=False) == forward
    # Backward: the gradients of both weights, and of the hidden layer's output (its input needs none).
    assert flops_per_image(model, CPU, training=True) == 2 * forward + 2 * 8
    assert not any(p.grad is not None for p in model.parameters())


def test_limits_are_positive_and_of_the_device() -> None:
    limits = measure_limits(CPU, ("float32",), fast=True)
    assert limits.device == "cpu" and limits.flops_per_second["float32"] > 1e8
    assert limits.loader_images_per_second(100, 10) >= limits.copy_bytes_per_second / 27648
    slow = replace(limits, copy_bytes_per_second=1.0)
    assert slow.loader_images_per_second(7, 3) > 100, "few images are copied from the cache, however slow the memory"


def test_short_last_batches_are_left_out(tiny: Path) -> None:
    batches = full_batches(Loader(open_split(tiny, "train"), 20))
    assert [len(next(batches).labels) for _ in range(5)] == [20] * 5


def test_stages_add_up_and_a_cpu_transfers_nothing(tiny: Path) -> None:
    stages = time_stages(load_config("cnn", [*SMALL, "train.batch_size=8"]), open_split(tiny, "train"), CPU, batches=3)
    assert [s.name for s in stages] == ["loading", "augmentation", "forward", "backward", "optimiser"]
    assert sum(s.share for s in stages) == pytest.approx(1)
    assert all(s.low <= s.milliseconds <= s.high for s in stages)


def test_a_measurement_that_is_stopped_leaves_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pcam.benchmark.throughput.measure_limits", stopped)
    with pytest.raises(KeyboardInterrupt):
        bench("loader", tiny, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_unknown_words_and_places(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown phase 'lodaer'; did you mean 'loader'\?"):
        bench("lodaer", tiny, tmp_path)
    with pytest.raises(ConfigError, match=r"unknown precision 'bfloat'; did you mean 'bfloat16'\?"):
        bench("model", tiny, tmp_path, precisions=("bfloat",))
    with pytest.raises(DataError, match="no such data folder"):
        bench("loader", tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*file"):
        bench("loader", tiny, tmp_path / "file" / "out")
