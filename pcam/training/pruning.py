"""A poor trial ends early: after each epoch its ROC-AUC on valid is set beside that of the trials before it.

A trial is pruned when its best epoch so far is below the median of the completed trials at the same epoch (the
median rule of Golovin et al. 2017, KDD, as Optuna has it). A warm-up rate or a long one-cycle looks poor at first, so
nothing is pruned in the first third of the epochs.
"""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

from pcam.training.runs import Run
from pcam.training.stop import StopRequest

if TYPE_CHECKING:
    import optuna

STARTUP_TRIALS = 4  # completed trials before any may be pruned
OBJECTIVE = "valid_auc"


def median_pruner(epochs: int) -> Any:
    """Return Optuna's pruner for runs of that many epochs."""
    import optuna

    return optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=epochs // 3)


class Judge:
    """Reports the epochs of a trial's run in their order and says when it should end.

    The decision depends on the log alone and not on when it is read: a run that was trained before, or that went on
    for a step longer, is judged as one that is watched.
    """

    def __init__(self, trial: optuna.Trial, run: Run) -> None:
        self._trial, self._path = trial, run.path / "metrics.jsonl"
        self._read = self._epochs = 0
        self.pruned = False

    def poor(self, last: int) -> bool:
        """Report what is new in the log; the epoch number `last` ends the run by itself and prunes nothing."""
        if self.pruned:
            return True
        size = self._path.stat().st_size if self._path.exists() else 0
        if size <= self._read:
            return False
        with self._path.open("rb") as log:
            log.seek(self._read)
            *lines, rest = log.read().split(b"\n")
        self._read = size - len(rest)
        for row in map(json.loads, lines):
            if row["kind"] != "epoch" or row[OBJECTIVE] is None or self.pruned:
                continue
            self._trial.report(float(row[OBJECTIVE]), self._epochs)
            self._epochs += 1
            self.pruned = row["epoch"] < last and self._trial.should_prune()
        return self.pruned


class PruningStop(StopRequest):
    """Asks a run to stop when its judge finds it poor, or when a signal comes."""

    def __init__(self, judge: Judge, last: int) -> None:
        self._judge, self._last = judge, last
        super().__init__()

    @property
    def number(self) -> int | None:
        """The signal that came; SIGUSR1, after which a run can go on, when the run is poor."""
        if self._number is None and self._judge.poor(self._last):
            return int(signal.SIGUSR1)
        return self._number

    @number.setter
    def number(self, value: int | None) -> None:
        self._number = value
