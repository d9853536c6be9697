"""What a search found: its trials, the few that were confirmed over seeds, and the champion."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried.

    Attributes:
        number: its place in the study, from 0.
        params: config key → value.
        value: ROC-AUC on valid after the last epoch; None where the run failed.
        run: id of the completed run, else None.
        state: "complete", "pruned" (ended early) or "fail".
        curve: ROC-AUC on valid after each epoch that it was trained.
    """

    number: int
    params: dict[str, float | int]
    value: float | None
    run: str | None
    state: str
    curve: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Finalist:
    """A configuration that was trained over several seeds.

    Attributes:
        trial: number of the trial it comes from; None for the preset as it was.
        params: config key → value.
        values: ROC-AUC on valid, one per seed.
        runs: ids of the runs, one per seed.
        reason: why it is out of the running: a seed's loss became NaN. Empty where every seed was trained.
    """

    trial: int | None
    params: dict[str, float | int]
    values: list[float]
    runs: list[str]
    reason: str = ""

    @property
    def name(self) -> str:
        """What to call it in a table."""
        return "untuned preset" if self.trial is None else f"trial {self.trial}"

    @property
    def mean(self) -> float:
        """Mean over the seeds; minus infinity for one that is out of the running."""
        return -math.inf if self.reason else float(np.mean(self.values))


@dataclass(frozen=True)
class TuneReport:
    """Outcome of a search.

    Attributes:
        preset: what the search started from.
        sampler: "tpe" or "random".
        storage: the study's journal file.
        trials: every configuration that was tried, in order.
        finalists: the best few trials over seeds, best mean first.
        untuned: the preset as it was, over the same seeds.
        dropped: trials that were to be confirmed and are out of the running; the next best took their places.
    """

    preset: str
    sampler: str
    storage: str
    trials: list[Trial]
    finalists: list[Finalist]
    untuned: Finalist
    dropped: list[Finalist] = field(default_factory=list)

    @property
    def study(self) -> str:
        """Name of the study: a hash of base config, space, data, seed and sampler."""
        return Path(self.storage).stem

    @property
    def champion(self) -> Finalist:
        """The configuration with the best mean on valid over the seeds; the preset as it was may win."""
        best = self.finalists[0]
        return best if best.mean > self.untuned.mean else self.untuned

    def __str__(self) -> str:
        best = self.champion
        again = shlex.join(["pcam", "train", self.preset, *(f"{key}={value!r}" for key, value in best.params.items())])
        pruned = sum(trial.state == "pruned" for trial in self.trials)
        out = "".join(
            f"\n{f.name} is out of the running: {f.reason}" for f in [*self.dropped, self.untuned] if f.reason
        )
        return (
            f"{len(self.scored())} of {len(self.trials)} trials complete, {pruned} ended early; champion, {best.name}: "
            f"mean valid ROC-AUC {best.mean:.4f} over {len(best.values)} seeds{out}\n{again}"
        )

    @property
    def epochs(self) -> int:
        """Epochs that the trials were trained in all: what the search cost, without its finalists."""
        return sum(len(trial.curve) for trial in self.trials)

    def scored(self) -> list[tuple[Trial, float]]:
        """Return the completed trials with their values, best first; ties go to the earlier trial."""
        return ranked(self.trials)

    def table(self) -> pd.DataFrame:
        """Return a row per trial: number, state, epochs, value, best so far, the searched keys with three digits."""
        import pandas as pd

        rows = [
            {"trial": t.number, "state": t.state, "epochs": len(t.curve), "value": t.value}
            | {key: f"{v:.3g}" for key, v in t.params.items()}
            for t in self.trials
        ]
        table = pd.DataFrame(rows)
        table.insert(4, "best_so_far", table["value"].cummax().ffill())
        return table


def ranked(trials: Sequence[Trial]) -> list[tuple[Trial, float]]:
    """Return the completed trials with their values, best first; ties go to the earlier trial."""
    return sorted(((t, t.value) for t in trials if t.value is not None), key=lambda pair: (-pair[1], pair[0].number))
