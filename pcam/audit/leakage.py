"""What leakage is worth: a metric on all of a split against the same metric without the patches that leaked.

A model may remember a patch that it was trained on, so a test patch with a copy in train says little about new
tissue. The difference is taken on the same predictions and its interval by resampling both sides together. Where the
data hold no leak, a copy with one on purpose shows what it would be worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcam.audit.findings import PAIR_ISSUES, tied_to
from pcam.audit.plant import altered
from pcam.audit.report import AuditReport
from pcam.data.copies import write_copy
from pcam.data.format import available_splits, open_split
from pcam.errors import DataError
from pcam.evaluation.comparison import Difference, paired_bootstrap
from pcam.evaluation.intervals import percentile, resample_counts
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.ranking import RankedScores, area, roc_auc

KINDS: Mapping[str, tuple[str, ...]] = {
    "exact copies": ("exact_duplicate",),
    "turned copies": ("symmetry_duplicate",),
    "near copies": ("near_duplicate",),
    "shared pixels": ("pixel_overlap",),
    "shared slides": ("shared_slide",),
    "all together": (*PAIR_ISSUES, "shared_slide"),
}


@dataclass(frozen=True)
class LeakageEffect:
    """ROC-AUC with and without leaked patches.

    Attributes:
        everything: on all patches.
        clean: without the leaked ones.
        difference: everything minus clean: what the leak adds to the published figure.
        low: lower end of the difference's 95 % interval, or None where there is none.
        high: upper end.
        n: all patches.
        n_positive: positives among them.
        n_leaked: leaked patches.
        method: how the interval was made.
    """

    everything: float
    clean: float
    difference: float
    low: float | None
    high: float | None
    n: int
    n_positive: int
    n_leaked: int
    method: str


def effect(
    predictions: Predictions,
    leaked: NDArray[np.bool_],
    groups: NDArray[np.integer] | None = None,
    *,
    group_kind: str = "group",
    bootstrap: int = 1000,
    seed: int = 0,
) -> LeakageEffect:
    """Measure what leaked patches add to ROC-AUC.

    Args:
        predictions: labelled predictions of one split.
        leaked: bool (N,), patches that have a partner in the training split.
        groups: (N,), slide or overlap group of each patch; whole groups are then resampled.
        group_kind: what a group is, for the text of `method`.
        bootstrap: number of resamples.
        seed: seed of the resampling.

    Raises:
        DataError: no labels, or a class is missing with or without the leaked patches.
    """
    label = predictions.labels
    if len(leaked) != len(label):
        raise DataError(f"{len(leaked)} flags for {len(label)} predictions; give one per patch")
    if len(np.unique(label[~leaked])) < 2:
        raise DataError(f"predictions of '{predictions.split}': without the leaked patches a class is missing")
    unit = np.arange(len(label)) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(unit.max()) + 1
    ranked = RankedScores.of(label, predictions.score)
    kept = (~leaked)[ranked.order].astype(np.float64)

    def both(weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return roc_auc(*ranked.masses(weights)), roc_auc(*ranked.masses(weights * kept))

    everything, clean = (float(value[0]) for value in both(np.ones((1, len(label)))))
    interval = None
    if bootstrap and units > 1:
        resampled = []
        for counts in resample_counts(units, bootstrap, seed, width=len(label)):
            one, other = both(counts[:, unit].astype(np.float64)[:, ranked.order])
            resampled.append(one - other)
        interval = percentile(np.concatenate(resampled), units)
    low, high = interval or (None, None)
    what = "patches" if groups is None else f"{group_kind}s"
    return LeakageEffect(
        everything=everything,
        clean=clean,
        difference=everything - clean,
        low=low,
        high=high,
        n=len(label),
        n_positive=int(label.sum()),
        n_leaked=int(leaked.sum()),
        method=f"paired expanded percentile bootstrap over {units} {what}, {bootstrap} resamples",
    )


def by_kind(
    report: AuditReport,
    predictions: Predictions,
    groups: NDArray[np.integer] | None = None,
    *,
    source: str = "train",
    group_kind: str = "group",
    bootstrap: int = 1000,
) -> dict[str, LeakageEffect | str]:
    """Measure what each kind of leakage adds to ROC-AUC, and all of it together.

    Args:
        report: the audit of the data that the predictions are about.
        predictions: labelled predictions of one of its splits.
        groups: as in `effect`.
        source: the split that patches leaked from.
        group_kind: as in `effect`.
        bootstrap: as in `effect`.

    Returns:
        for each of `KINDS` the effect, or why it has none.
    """
    found: dict[str, LeakageEffect | str] = {}
    for kind, issues in KINDS.items():
        leaked = tied_to(report.scan, report.findings, predictions.split, [source], issues)
        if not leaked.any():
            found[kind] = "none found"
        elif len(np.unique(predictions.labels[~leaked])) < 2:
            found[kind] = f"{leaked.sum()} leaked; without them a class is missing"
        else:
            found[kind] = effect(predictions, leaked, groups, group_kind=group_kind, bootstrap=bootstrap)
    return found


def why_unmeasured(found: Mapping[str, LeakageEffect | str]) -> str:
    """Why no kind of leakage has an effect, in one sentence; empty where one has."""
    reasons = {kind: why for kind, why in found.items() if isinstance(why, str)}
    if len(reasons) < len(found):
        return ""
    if set(reasons.values()) == {"none found"}:
        return f"No test patch is tied to train: no {', no '.join(kind for kind in KINDS if kind != 'all together')}."
    return f"Nothing to compare: {'; '.join(f'{kind}: {why}' for kind, why in reasons.items())}."


def planted_gains(
    honest: Predictions,
    leaky: Predictions,
    kind: NDArray[np.str_],
    groups: NDArray[np.integer] | None = None,
    group_kind: str = "group",
) -> dict[str, tuple[float, float, Difference | str]]:
    """Compare a model that was trained on leaked patches with one that was not, on the patches that leaked.

    Args:
        honest: predictions of the model that was trained on the data as they are.
        leaky: predictions of the model that was trained on `leaky_copy`.
        kind: (N,), what `leaky_copy` returned.
        groups: as in `effect`.
        group_kind: as in `effect`.

    Returns:
        for each planted kind, and for "all together": ROC-AUC without the leak, with it, and their difference or why
        there is no interval.
    """
    gains: dict[str, tuple[float, float, Difference | str]] = {}
    for name in [*np.unique(kind[kind != ""]).tolist(), "all together"]:
        chosen = kind != "" if name == "all together" else kind == name
        before, after = honest.take(chosen), leaky.take(chosen)
        if len(np.unique(before.labels)) < 2:
            continue
        units = None if groups is None else groups[chosen]
        difference: Difference | str
        try:
            difference = paired_bootstrap([after], [before], units, group_kind=group_kind)
        except DataError as error:  # too few groups hold both classes
            difference = str(error)
        gains[name] = (area(before.labels, before.score), area(after.labels, after.score), difference)
    return gains


def leaky_copy(
    directory: Path | str, out: Path | str, share: float, seed: int = 0, kinds: Sequence[str] = ("exact",)
) -> NDArray[np.str_]:
    """Write a copy of a data folder in which some test patches, with their labels, also stand in train.

    They take the place of train patches, so that the split keeps its size.

    Args:
        directory: a folder with train, valid and test, all labelled.
        out: the folder to write into.
        share: share (0..1) of the test patches that leak.
        seed: seed of the choice.
        kinds: how they leak, in turn: paired defects of `pcam.audit.plant`, such as "exact", "symmetric", "noise" or
            "overlap".

    Returns:
        str (n_test,), how each test patch leaked; empty where it did not.

    Raises:
        DataError: a split or its labels are missing, or train has too few patches.
    """
    splits = {name: open_split(directory, name) for name in available_splits(directory)}
    if set(splits) != {"train", "valid", "test"} or any(split.labels is None for split in splits.values()):
        raise DataError(f"{directory}: a leaky copy needs train, valid and test, all with labels")
    pixels = {name: split.read(slice(None)) for name, split in splits.items()}
    label = {name: np.array(split.labels) for name, split in splits.items()}
    rng = np.random.default_rng(seed)
    n = round(share * len(label["test"]))
    if n > len(label["train"]):
        raise DataError(f"{directory}: {n} test patches cannot leak into {len(label['train'])} train patches")
    source = np.sort(rng.choice(len(label["test"]), n, replace=False))
    target = np.sort(rng.choice(len(label["train"]), n, replace=False))
    how = np.full(len(label["test"]), "", dtype=f"U{max(map(len, kinds))}")
    how[source] = np.resize(rng.permutation(np.array(kinds)), n)
    for here, there in zip(source, target, strict=True):
        filler = [pixels["train"][k] for k in rng.integers(0, len(label["train"]), 2)]
        pixels["train"][there] = altered(str(how[here]), pixels["test"][here], filler, rng)
    label["train"][target] = label["test"][source]
    write_copy(directory, out, pixels, label)
    return how
