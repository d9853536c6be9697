"""Gradient norms of a run: spikes found by a stated rule, and traced back to the patches of their batch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pcam.data.loader import batch_indices, subset_indices
from pcam.errors import RunError
from pcam.training.runs import Run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Spike:
    """A step whose gradient norm stands out from the steps before it.

    Attributes:
        step, epoch: where.
        norm: its gradient norm.
        usual: the median norm of the steps before it, within the window.
    """

    step: int
    epoch: int
    norm: float
    usual: float

    @property
    def ratio(self) -> float:
        """How many times the usual norm."""
        return self.norm / self.usual


def find_spikes(steps: list[dict[str, Any]], window: int = 20, factor: float = 3.0) -> list[Spike]:
    """Return the steps whose norm is more than `factor` times the median of the `window` steps before them.

    The first `window` steps are left out: at the start every norm is on its way down, and there is nothing
    to compare with. The median is used because the spikes themselves must not raise the bar.

    Args:
        steps: rows of a run with step, epoch and grad_norm.
        window: steps looked back on.
        factor: how many times the median.
    """
    norms = [row["grad_norm"] for row in steps]
    spikes = []
    for i in range(window, len(steps)):
        usual = statistics.median(norms[i - window : i])
        if norms[i] > factor * usual:
            spikes.append(Spike(steps[i]["step"], steps[i]["epoch"], norms[i], usual))
    return spikes


def strongest_step(steps: list[dict[str, Any]], window: int = 20) -> Spike:
    """Return the step that stands out most by the ratio of `find_spikes`, spike or not.

    Raises:
        RunError: no step has `window` steps before it.
    """
    found = find_spikes(steps, window, factor=0.0)
    if not found:
        raise RunError(f"{len(steps)} steps are too few to set one beside the {window} before it; train for longer")
    return max(found, key=lambda spike: spike.ratio)


def patches_of_step(run: Run, step: int) -> NDArray[np.int64]:
    """Return the indices (B,) in the training split of the patches that a step of a run saw.

    Nothing was logged for this: the order is a pure function of the run's configuration and of a seed that it records.

    Raises:
        RunError: the run has no such step, or its order was drawn in blocks or by class.
    """
    config = run.config
    if config.data.block > 1 or config.data.balance:
        raise RunError(
            f"{run.path}: only a full shuffle is traced to its patches; train with the defaults of data.block and "
            "data.balance"
        )
    used = subset_indices(run.data["splits"][config.data.train_split]["n"], config.data.max_train, config.seed)
    per_epoch = -(-len(used) // config.train.batch_size)
    epoch, batch = divmod(step, per_epoch)
    if not 0 <= step < run.final["steps"]:
        raise RunError(f"{run.path}: it has no step {step}; its steps are 0 to {run.final['steps'] - 1}")
    order = run.environment["controls"]["seeds"]["order"]  # the config's, unless this control was switched off
    return used[batch_indices(len(used), config.train.batch_size, order, epoch)[batch]]


def epoch_means(steps: list[dict[str, Any]]) -> dict[int, float]:
    """Return the mean gradient norm of each epoch: what is left of the steps in a log that is kept by epoch."""
    norms: dict[int, list[float]] = {}
    for row in steps:
        norms.setdefault(row["epoch"], []).append(row["grad_norm"])
    return {epoch: statistics.fmean(values) for epoch, values in norms.items()}


def compare_schedules(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Compare runs by their schedule, lowest final valid loss first.

    Args:
        runs: by the name of their schedule, those that differ in their seed (≥ 2).

    Returns:
        schedule, then means over the runs: valid loss at half, final valid loss, its sd over seeds, late wobble.
    """
    import pandas as pd

    rows = []
    for name, of_seeds in runs.items():
        final = [run.final["valid_loss"] for run in of_seeds]
        half = statistics.fmean(loss_at(run, 0.5) for run in of_seeds)
        wobble = statistics.fmean(late_wobble(run) for run in of_seeds)
        rows.append((name, half, statistics.fmean(final), statistics.stdev(final), wobble))
    columns = ["schedule", "valid loss at half", "final valid loss", "sd over seeds", "late wobble"]
    return pd.DataFrame(rows, columns=columns).sort_values("final valid loss", ignore_index=True)


def loss_at(run: Run, share: float) -> float:
    """Return the valid loss at the end of the epoch that a share (0 to 1) of a run's epochs has reached."""
    epochs = run.epochs
    return float(epochs[max(0, round(share * len(epochs)) - 1)]["valid_loss"])


def late_wobble(run: Run) -> float:
    """Return the mean absolute change of the valid loss from epoch to epoch in the last third of a run (≥ 2 epochs)."""
    losses = [row["valid_loss"] for row in run.epochs]
    late = losses[-max(2, len(losses) // 3) - 1 :]
    return statistics.fmean(abs(b - a) for a, b in pairwise(late))
