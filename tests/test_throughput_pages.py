"""Throughput on a page: the rows, plateaus and records that sentences are bound to."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from pcam.benchmark import pages
from pcam.benchmark.stages import Stage


def row(size: int, rate: float | None, precision: str = "float32", model: str = "cnn") -> dict[str, object]:
    return {
        "phase": "model",
        "device": "cpu",
        "model": model,
        "precision": precision,
        "batch_size": size,
        "workers": 0,
        "images_per_second": rate,
        "p50_ms": 1.0,
        "p90_ms": 2.0,
        "p99_ms": 3.0,
        "fraction_of_limit": 0.5,
        "peak_memory_bytes": 1 << 20,
        "job_id": "",
    }


TABLE = pd.DataFrame(
    [row(1, 10.0), row(8, 95.0), row(64, 100.0), row(512, None), row(1, 5.0, "bfloat16"), row(64, 150.0, "bfloat16")]
)


def test_the_plateau_is_the_smallest_batch_near_the_best() -> None:
    found = pages.plateau(TABLE, "cnn")
    assert (found.batch_size, found.images_per_second, found.n) == (8, 95.0, 4)


def test_precision_is_compared_at_the_largest_common_batch() -> None:
    assert pages.precision_gain(TABLE, "cnn") == 1.5


def test_one_row_or_an_error() -> None:
    assert pages.one(TABLE, precision="float32", batch_size=1).images_per_second == 10
    with pytest.raises(ValueError, match="4 rows are"):
        pages.one(TABLE, precision="float32")


def test_a_missing_job_is_called_none() -> None:
    shown = pages.rates(TABLE)
    assert set(shown["job id"]) == {"none"} and shown["peak MiB"].tolist() == [1.0] * 6


def test_machine_records_are_read_back(tmp_path: Path) -> None:
    limit = {"device": "cpu", "copy_bytes_per_second": 6e9, "flops_per_second": {"float32": 3e10}}
    record = {
        "hardware": "a processor",
        "gpu": None,
        "threads": 2,
        "torch": "2",
        "job": {"job_id": "7"},
        "load_average": [1.5, 1.0, 0.5],
        "limits": [limit],
    }
    (tmp_path / "machine.json").write_text(json.dumps(record))
    assert pages.job(tmp_path) == "7" and pages.load_average(tmp_path) == 1.5
    assert pages.limits(tmp_path)["value"].tolist() == [6.0, 30.0]
    assert pages.machine(tmp_path).set_index("what")["value"]["GPU"] == "none"


def test_figures_have_axes_with_units() -> None:
    stages = {"cpu": [Stage("loading", 1.0, 0.5, 2.0, 0.25, 5), Stage("forward", 3.0, 2.5, 4.0, 0.75, 5)]}
    for figure in (pages.scaling_figure(TABLE), pages.stage_figure(stages)):
        assert all("(" in axes.get_xlabel() for axes in figure.axes)
        plt.close(figure)
    assert pages.stage_table(stages)["median ms"].tolist() == [1.0, 3.0]
