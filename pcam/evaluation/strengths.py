"""How strong a change must be before a guard notices, and what it costs until then.

One kind of each risk is made stronger step by step: drift (staining), silent degradation (weights lost) and artefacts
(pen marks on more and more patches). A guard is worth having where it notices before ROC-AUC falls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcam.evaluation.deployment import Patches, Scenario, pen_mark, scenario_table, stain_shift, with_dead_inputs
from pcam.evaluation.monitor import Monitor

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from pcam.models import PatchClassifier

Change = Callable[[Patches, np.ndarray, "PatchClassifier"], tuple[Patches, "PatchClassifier"]]


@dataclass(frozen=True)
class Ladder:
    """One change, made stronger step by step.

    Attributes:
        name: what its strength counts, for an axis.
        risk: as in `Scenario`.
        none: the strength at which nothing is changed.
        strengths: the steps, rising.
        change: strength → the change.
    """

    name: str
    risk: str
    none: float
    strengths: tuple[float, ...]
    change: Callable[[float], Change]


def some_marked(patches: Patches, share: float, seed: int = 0) -> Patches:
    """Draw a pen mark on a share of the patches, the same ones for a seed and then more."""
    marked = np.random.default_rng(seed).permutation(len(patches))[: round(share * len(patches))]
    out = patches.copy()
    out[marked] = pen_mark(patches[marked])
    return out


LADDERS = (
    Ladder(
        "staining, times the usual",
        "drift",
        1.0,
        (1.1, 1.2, 1.3, 1.4),
        lambda strength: lambda patches, labels, model: (stain_shift(patches, strength), model),
    ),
    Ladder(
        "share of the first weights lost",
        "silent degradation",
        0.0,
        (0.1, 0.5, 0.75, 0.9),
        lambda strength: lambda patches, labels, model: (patches, with_dead_inputs(model, strength)),
    ),
    Ladder(
        "share of patches with a pen mark",
        "artefact",
        0.0,
        (0.1, 0.2, 0.3, 0.5),
        lambda strength: lambda patches, labels, model: (some_marked(patches, strength), model),
    ),
)


def strength_table(
    model: PatchClassifier,
    patches: Patches,
    labels: np.ndarray,
    monitor: Monitor,
    known: np.ndarray,
    canary: Patches,
    ladders: tuple[Ladder, ...] = LADDERS,
) -> pd.DataFrame:
    """Climb every ladder with the same labelled patches; arguments as of `scenario_table`.

    Returns:
        One row per ladder and strength, the unchanged first: risk, change, strength, n, roc_auc, alarm_rate, outliers,
        canary.
    """
    import pandas as pd

    steps = [(ladder, strength) for ladder in ladders for strength in ladder.strengths]
    unchanged = Scenario("nothing", "none", lambda patches, labels, model: (patches, model))
    scenarios = (unchanged, *(Scenario(ladder.name, ladder.risk, ladder.change(s)) for ladder, s in steps))
    table = scenario_table(model, patches, labels, monitor, known, canary, scenarios).drop(columns="differs_most")
    clean, changed = table.iloc[:1], table.iloc[1:].assign(strength=[strength for _, strength in steps])
    parts = []
    for ladder in ladders:
        first = clean.assign(scenario=ladder.name, risk=ladder.risk, strength=ladder.none)
        parts += [first, changed[changed["scenario"] == ladder.name]]
    columns = ["risk", "change", "strength", "n", "roc_auc", "alarm_rate", "outliers", "canary"]
    return pd.concat(parts, ignore_index=True).rename(columns={"scenario": "change"})[columns]


def first_alarm(table: pd.DataFrame, risk: str) -> pd.Series | None:
    """Return the row of the weakest strength from which on most windows alarm; None where the strongest does not."""
    rows = table[table["risk"] == risk]
    silent = np.flatnonzero(~(rows["alarm_rate"] > 0.5))
    after = int(silent[-1]) + 1 if len(silent) else 0
    return rows.iloc[after] if after < len(rows) else None


def strength_figure(table: pd.DataFrame) -> Figure:
    """For each ladder what the guards say, and ROC-AUC, against the strength of the change."""
    from pcam.evaluation.curves import PALETTE, panels_in_a_row

    ladders = list(dict.fromkeys(table["change"]))
    figure, panels = panels_in_a_row(len(ladders), width=2.7 * len(ladders))
    for axes, name in zip(panels, ladders, strict=True):
        rows = table[table["change"] == name]
        x = rows["strength"]
        axes.plot(x, rows["alarm_rate"], "o-", color=PALETTE[0], label="windows with an alarm")
        axes.plot(x, rows["outliers"], "s-", color=PALETTE[1], label="patches refused")
        axes.plot(x, (rows["canary"] == "yes").astype(float), "^-", color=PALETTE[2], label="canary")
        axes.plot(x, rows["roc_auc"], "k--", label="ROC-AUC (needs labels)")
        axes.set_xlabel(name, fontsize=9)
        axes.set_title(rows["risk"].iloc[0], fontsize=10)
        axes.set_ylim(-0.04, 1.04)
        if axes is not panels[0]:
            axes.tick_params(labelleft=False)
    panels[0].set_ylabel("Share; ROC-AUC")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure
