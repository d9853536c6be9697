"""What can go wrong after deployment, done on purpose: each scenario changes patches or model, and nothing crashes.

The table says what each does to ROC-AUC, which needs labels, and which of three guards without labels notices: the
monitor of windows, the refusal of single patches unlike any seen before, and a canary. The canary is a handful of
patches whose scores are on record: sent through reader and model before work begins, they must score the same bits.
It sees whatever breaks in the software, and nothing that happens before the file is written.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcam.evaluation.metrics import score_metrics
from pcam.evaluation.monitor import Monitor, watch_patches
from pcam.evaluation.predict import score_patches
from pcam.evaluation.predictions import Predictions

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from matplotlib.figure import Figure

    from pcam.models import PatchClassifier

Patches = np.ndarray  # uint8 (B, 96, 96, 3)


@dataclass(frozen=True)
class Scenario:
    """One thing that goes wrong.

    Attributes:
        name: what happens, for the table.
        risk: "none", "drift", "silent degradation", "artefact" or "adversarial"; a silent degradation is in the
            software and so befalls the canary too.
        change: patches, labels and model → the patches and model that are then used.
    """

    name: str
    risk: str
    change: Callable[[Patches, np.ndarray, PatchClassifier], tuple[Patches, PatchClassifier]]


def stain_shift(patches: Patches, strength: float = 1.4) -> Patches:
    """Multiply the optical density of every pixel, as a longer staining or a thicker section does."""
    density = -np.log10(np.maximum(patches, 1) / 255.0)
    return np.round(255 * 10 ** (-strength * density)).astype(np.uint8)


def out_of_focus(patches: Patches, rounds: int = 3) -> Patches:
    """Blur with a 3×3 mean, several times over: close to a Gaussian of √(2/3 · rounds) pixels."""
    blurred = patches.astype(np.float32)
    for _ in range(rounds):
        padded = np.pad(blurred, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
        blurred = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9
    return np.round(blurred).astype(np.uint8)


def recompress(patches: Patches, quality: int = 10) -> Patches:
    """Send each patch through JPEG at a low quality (1 to 95), as a thrifty viewer does."""
    from PIL import Image

    out = np.empty_like(patches)
    for number, patch in enumerate(patches):
        buffer = io.BytesIO()
        Image.fromarray(patch).save(buffer, "JPEG", quality=quality)
        out[number] = np.asarray(Image.open(buffer))
    return out


def pen_mark(patches: Patches, width: int = 12) -> Patches:
    """Draw a diagonal stroke of blue marker `width` pixels wide, as pathologists do on glass."""
    side = patches.shape[1]
    row, column = np.mgrid[:side, :side]
    out = patches.copy()
    out[:, np.abs(row - column) <= width / 2] = (30, 40, 160)
    return out


def fast_gradient_sign(model: PatchClassifier, patches: Patches, labels: np.ndarray, step: int = 2) -> Patches:
    """Move every value by `step` grey levels in the direction that raises the loss (Goodfellow et al. 2015, ICLR)."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    values = torch.from_numpy(patches).permute(0, 3, 1, 2).float().requires_grad_()
    loss = binary_cross_entropy_with_logits(model(model.normalise(values)), torch.from_numpy(labels).float())
    (gradient,) = torch.autograd.grad(loss, values)
    moved = (values.detach() + step * gradient.sign()).clamp(0, 255)
    return moved.permute(0, 2, 3, 1).round().to(torch.uint8).numpy()


def with_dead_inputs(model: PatchClassifier, share: float = 0.5) -> PatchClassifier:
    """Return a copy whose first weights are zero for a share of their values: a damaged or half-loaded file."""
    damaged = deepcopy(model)
    weights: torch.Tensor = next(parameter for parameter in damaged.parameters() if parameter.ndim > 1).data
    flat = weights.view(-1)
    flat[np.random.default_rng(0).permutation(len(flat))[: int(share * len(flat))]] = 0
    return damaged


def _patches_only(change: Callable[[Patches], Patches]) -> Callable:
    return lambda patches, labels, model: (change(patches), model)


SCENARIOS = (
    Scenario("nothing", "none", _patches_only(lambda patches: patches)),
    Scenario("staining 40 % stronger", "drift", _patches_only(stain_shift)),
    Scenario("out of focus", "drift", _patches_only(out_of_focus)),
    Scenario("JPEG at quality 10", "silent degradation", _patches_only(recompress)),
    Scenario("red and blue swapped", "silent degradation", _patches_only(lambda patches: patches[..., ::-1].copy())),
    Scenario("half of the first weights lost", "silent degradation", lambda p, y, model: (p, with_dead_inputs(model))),
    Scenario("pen mark", "artefact", _patches_only(pen_mark)),
    Scenario("blank glass", "artefact", _patches_only(lambda patches: np.full_like(patches, 240))),
    Scenario("gradient sign, 2 levels", "adversarial", lambda p, y, model: (fast_gradient_sign(model, p, y), model)),
)


def scenario_table(
    model: PatchClassifier,
    patches: Patches,
    labels: np.ndarray,
    monitor: Monitor,
    known: np.ndarray,
    canary: Patches,
    scenarios: tuple[Scenario, ...] = SCENARIOS,
) -> pd.DataFrame:
    """Run every scenario on the same labelled patches.

    Args:
        model: a loaded model.
        patches: uint8 (N, 96, 96, 3), none of them in the monitor's reference.
        labels: (N,) of 0 and 1, for ROC-AUC only.
        monitor: fitted on another split.
        known: the colours of train, from `pcam.evaluation.monitor.known_colours`.
        canary: uint8 (K, 96, 96, 3), the patches whose scores are on record.
        scenarios: what to do.

    Returns:
        One row per scenario: scenario, risk, n, roc_auc (NaN where undefined), alarm_rate (share of windows with an
        alarm), outliers (share of patches refused one by one), canary (whether it scores otherwise than on record)
        and differs_most (the quantity furthest off).
    """
    import pandas as pd

    recorded = _scores(model, canary)
    rows = []
    for scenario in scenarios:
        changed, used = scenario.change(patches, labels, model)
        score = _scores(used, changed)
        values = watch_patches(score, changed, known)
        auc = score_metrics(Predictions("changed", np.arange(len(score)), labels, score), bootstrap=0)["roc_auc"]
        sung = False
        if scenario.risk == "silent degradation":
            seen, through = scenario.change(canary, np.zeros(len(canary), dtype=np.uint8), model)
            sung = not np.array_equal(_scores(through, seen), recorded)
        rows.append(
            {
                "scenario": scenario.name,
                "risk": scenario.risk,
                "n": len(score),
                "roc_auc": np.nan if auc.value is None else auc.value,
                "alarm_rate": monitor.alarm_rate(values),
                "outliers": float(monitor.outliers(values).mean()),
                "canary": "yes" if sung else "no",
                "differs_most": monitor.check(values).quantity,
            }
        )
    return pd.DataFrame(rows)


def _scores(model: PatchClassifier, patches: Patches) -> np.ndarray:
    return next(iter(score_patches(model, [patches])))


def harmful(table: pd.DataFrame, loss: float = 0.01) -> pd.DataFrame:
    """Return the scenarios whose ROC-AUC is undefined or more than `loss` below that of unchanged patches."""
    clean = table.loc[table["risk"] == "none", "roc_auc"].iloc[0]
    changed = table[table["risk"] != "none"]
    return changed[~(changed["roc_auc"] >= clean - loss)]


def caught(table: pd.DataFrame) -> pd.Series:
    """Tell of each scenario whether a guard sees it: most windows alarm, most patches are refused, or the canary."""
    return (table["alarm_rate"] > 0.5) | (table["outliers"] > 0.5) | (table["canary"] == "yes")


def scenario_figure(table: pd.DataFrame) -> Figure:
    """ROC-AUC of each scenario beside what the three guards say of it."""
    from pcam.evaluation.curves import PALETTE, panels_in_a_row

    figure, (quality, guards) = panels_in_a_row(2, width=8.4)
    places = np.arange(len(table))[::-1]
    quality.plot(table["roc_auc"], places, "o", color=PALETTE[0])
    for place, undefined in zip(places, table["roc_auc"].isna(), strict=True):
        if undefined:
            quality.text(0.75, place, "undefined: every score is the same", va="center", ha="center", fontsize=8)
    quality.set(yticks=places, xlabel="ROC-AUC (needs labels; 0.5 is chance)", xlim=(0.48, 1.02))
    quality.set_yticklabels(table["scenario"])
    canary = (table["canary"] == "yes").astype(float)
    for number, (name, values) in enumerate(
        {"windows with an alarm": table["alarm_rate"], "patches refused": table["outliers"], "canary": canary}.items()
    ):
        guards.barh(places + 0.25 - 0.25 * number, values, color=PALETTE[number], height=0.22, label=name)
    guards.set(yticks=places, xlabel="Share (needs no labels)", xlim=(0, 1.02))
    guards.tick_params(labelleft=False)
    for axes in (quality, guards):  # a row is the same height on both sides
        axes.set_ylim(-0.6, len(table) - 0.4)
    figure.legend(*guards.get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize=8, frameon=False)
    return figure
