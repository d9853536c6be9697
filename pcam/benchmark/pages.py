"""Throughput on a page: tables, figures and the few figures that a sentence needs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pcam.benchmark.stages import Stage
from pcam.evaluation.intervals import SeedSummary, t_interval
from pcam.storage import read_json
from pcam.training.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe-Ito.
COLOURS = {"mlp": "#0072b2", "cnn": "#d55e00"}
_BAR = "#009e73"
_LINES = {"float32": "-", "bfloat16": "--"}
_NEAR = 0.9  # a plateau begins where the rate is within a tenth of the best


def rates(table: pd.DataFrame) -> pd.DataFrame:
    """Return throughput rows with the columns that a page shows."""
    columns = {
        "device": "device",
        "model": "what",
        "precision": "precision",
        "batch_size": "batch",
        "images_per_second": "images/s",
        "p50_ms": "p50 ms",
        "p90_ms": "p90 ms",
        "p99_ms": "p99 ms",
        "fraction_of_limit": "of limit",
        "peak_memory_bytes": "peak MiB",
        "job_id": "job id",
    }
    shown = table.assign(
        peak_memory_bytes=table["peak_memory_bytes"] / 2**20, job_id=table["job_id"].replace("", "none")
    )
    return shown[list(columns)].rename(columns=columns)


def machine(out: Path | str) -> pd.DataFrame:
    """Return machine.json as rows of what and value."""
    found = _read(out)
    rows = {
        "hardware": found["hardware"],
        "GPU": found["gpu"] or "none",
        "threads": found["threads"],
        "torch": found["torch"],
        "load average": ", ".join(map(str, found["load_average"])),
        "job": ", ".join(f"{key} {value}" for key, value in found["job"].items()) or "none",
    }
    return pd.DataFrame({"what": rows.keys(), "value": map(str, rows.values())})


def limits(out: Path | str) -> pd.DataFrame:
    """Return the measured limits: what, value and unit, per device."""
    rows = []
    for limit in _read(out)["limits"]:
        rows.append((limit["device"], "copy", limit["copy_bytes_per_second"] / 1e9, "GB/s"))
        for precision, flops in limit["flops_per_second"].items():
            rows.append((limit["device"], f"arithmetic, {precision}", flops / 1e9, "GFLOP/s"))
    return pd.DataFrame(rows, columns=["device", "limit", "value", "unit"])


def load_average(out: Path | str) -> float:
    """Return the load, in processes, over the minute before a measurement ended."""
    return float(_read(out)["load_average"][0])


def cores() -> int:
    """Return the number of processor cores."""
    return os.cpu_count() or 1


def job(out: Path | str) -> str:
    """Return the id of the cluster job that a measurement ran in; empty outside a cluster."""
    return str(_read(out)["job"].get("job_id", ""))


def one(table: pd.DataFrame, **wanted: str | int) -> Any:
    """Return the one row whose columns have the wanted values, as a named tuple.

    Raises:
        ValueError: none or several have.
    """
    rows = table
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    if len(rows) != 1:
        raise ValueError(f"{len(rows)} rows are {wanted}; name one")
    return next(rows.itertuples(index=False))


def rate_of_run(run: Run) -> SeedSummary:
    """Return images per second of a run's epochs, validation included, with the interval over epochs.

    Raises:
        DataError: the run has fewer than two epochs.
    """
    train = run.config.data.train_split
    n = run.config.data.max_train or int(run.data["splits"][train]["n"])
    return t_interval([n / row["seconds"] for row in run.epochs])


def precision_gain(table: pd.DataFrame, model: str, device: str = "cpu") -> float:
    """Return how many times faster bfloat16 is than float32, at the largest batch that both were measured at."""
    rows = table[(table["model"] == model) & (table["device"] == device)].dropna(subset="images_per_second")
    wide = rows.pivot(index="batch_size", columns="precision", values="images_per_second").dropna()
    return float(wide["bfloat16"].iloc[-1] / wide["float32"].iloc[-1])


def plateau(table: pd.DataFrame, model: str, device: str = "cpu", precision: str = "float32") -> Any:
    """Return the smallest batch whose rate is within a tenth of the best, as a row with n, the sizes tried."""
    rows = table[(table["model"] == model) & (table["device"] == device) & (table["precision"] == precision)]
    reached = rows[rows["images_per_second"] >= _NEAR * rows["images_per_second"].max()]
    return next(reached.sort_values("batch_size").assign(n=len(rows)).itertuples(index=False))


def scaling_figure(table: pd.DataFrame) -> Figure:
    """Draw images per second and peak memory against batch size, one line a model, precision and device."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for key, rows in table.groupby(["device", "model", "precision"]):
        device, model, precision = map(str, key)
        style = {
            "color": COLOURS.get(model, "#000000"),
            "linestyle": _LINES[precision],
            "marker": "o" if device == "cpu" else "s",
        }
        left.plot(rows["batch_size"], rows["images_per_second"], label=f"{model}, {precision}, {device}", **style)
        right.plot(rows["batch_size"], rows["peak_memory_bytes"] / 2**20, **style)
    for axes, label in ((left, "throughput (images/s)"), (right, "peak memory (MiB)")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(table["batch_size"].unique()))
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set(xlabel="batch size (images)", ylabel=label)
        axes.grid(alpha=0.3)
    left.set_yscale("log")
    right.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, handlelength=4, frameon=False)
    return figure


def stage_table(stages: Mapping[str, Sequence[Stage]]) -> pd.DataFrame:
    """Return the parts of a training step by device: milliseconds, percentiles, share."""
    rows = [{"device": device, **asdict(stage)} for device, parts in stages.items() for stage in parts]
    names = {"name": "part", "milliseconds": "median ms", "low": "p10 ms", "high": "p90 ms"}
    return pd.DataFrame(rows).rename(columns=names)


def stage_figure(stages: Mapping[str, Sequence[Stage]]) -> Figure:
    """Draw the milliseconds of each part of a training step, one panel a device."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        1, len(stages), figsize=(3.6 * len(stages) + 3.6, 2.6), squeeze=False, layout="constrained"
    )
    for axes, (device, parts) in zip(panels[0], stages.items(), strict=True):
        middle = [stage.milliseconds for stage in parts]
        ends = [
            [max(0.0, stage.milliseconds - stage.low) for stage in parts],
            [max(0.0, stage.high - stage.milliseconds) for stage in parts],
        ]
        axes.barh([stage.name for stage in parts], middle, xerr=ends, color=_BAR, ecolor="#555555", capsize=2)
        axes.invert_yaxis()
        axes.set(xlabel="time per batch (ms)", title=device)
    return figure


def _read(out: Path | str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(Path(out) / "machine.json", "machine record")
    return found
