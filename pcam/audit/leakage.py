"""What leakage is worth: a metric on all of a split against the same metric without the patches that leaked.

A model may remember a patch that it was trained on, so a test patch with a copy in train says little about new
tissue. The difference is taken on the same predictions and its interval by resampling both sides together. Where the
data hold no leak, a copy with one on purpose shows what it would be worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from pcam import storage
from pcam.data.format import available_splits, open_split, split_path
from pcam.errors import DataError
from pcam.evaluation.intervals import percentile, resample_counts
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.ranking import RankedScores, roc_auc


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
        method=f"paired percentile bootstrap over {units} {what}, {bootstrap} resamples",
    )


def leaky_copy(directory: Path | str, out: Path | str, share: float, seed: int = 0) -> NDArray[np.bool_]:
    """Write a copy of a data folder in which some test patches, with their labels, also stand in train.

    They take the place of train patches, so that the split keeps its size.

    Args:
        directory: a folder with train, valid and test, all labelled.
        out: the folder to write into.
        share: share (0..1) of the test patches that leak.
        seed: seed of the choice.

    Returns:
        bool (n_test,), which test patches leaked.

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
    pixels["train"][target], label["train"][target] = pixels["test"][source], label["test"][source]
    for name in splits:
        for part, data in (("x", pixels[name]), ("y", label[name].reshape(-1, 1, 1, 1))):
            with storage.atomic_path(split_path(out, name, part)) as path, h5py.File(path, "w") as file:
                file.create_dataset(part, data=data)
    return np.isin(np.arange(len(label["test"])), source)
