"""The patches of one training step: what sets them apart from their split, and which of them are hard.

A spike of the gradient is a number; the patches behind it say whether it came from odd inputs, from doubtful
labels, or from nothing that can be seen.
"""

from __future__ import annotations

from statistics import NormalDist

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from pcam.data.format import Split
from pcam.errors import DataError
from pcam.evaluation.features import FEATURES, patch_features
from pcam.training import Run, load_model

_BACKGROUND = 512  # patches that stand for the split: enough for a mean to a twentieth of a deviation


def batch_contrast(split: Split, indices: NDArray[np.int64]) -> pd.DataFrame:
    """Return each feature's mean in a batch beside the split, and the gap in standard errors of a batch mean.

    Args:
        split: the training split; an even sample of it stands for the whole.
        indices: (B,), the patches of the batch.

    Returns:
        Columns feature, batch, split, standard errors away; one row a feature and one for the share of positives.
    """
    labels = _labels(split)
    background = np.unique(np.linspace(0, len(split) - 1, min(_BACKGROUND, len(split))).astype(np.int64))
    names = [*(feature.name for feature in FEATURES), "share of positives"]
    batch, whole = (
        np.column_stack([patch_features(split.read(rows)), labels[rows].astype(np.float64)])
        for rows in (indices, background)
    )
    error = whole.std(axis=0) / np.sqrt(len(indices))
    away = np.divide(batch.mean(0) - whole.mean(0), error, out=np.zeros(len(names)), where=error > 0)
    return pd.DataFrame(
        {"feature": names, "batch": batch.mean(0), "split": whole.mean(0), "standard errors away": away}
    )


def chance_bound(n_features: int, level: float = 0.05) -> float:
    """Return how many standard errors the farthest of several features of a random batch stays within.

    It does so in all but a share `level` of batches (Bonferroni; normal means).
    """
    return NormalDist().inv_cdf(1 - level / (2 * n_features))


def patch_losses(run: Run, split: Split, indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the loss (B,) in nats of each patch under the finished model, without augmentation."""
    logits = load_model(run).predict_logits(torch.from_numpy(split.read(indices)))
    labels = torch.from_numpy(_labels(split)[indices])
    return binary_cross_entropy_with_logits(logits.double(), labels.double(), reduction="none").numpy()


def batch_figure(
    split: Split, indices: NDArray[np.int64], losses: NDArray[np.float64], columns: int = 8, rows: int = 2
) -> Figure:
    """Draw the patches of a batch with the highest losses, highest first; the box is the centre that is labelled."""
    labels = _labels(split)
    hardest = np.argsort(-losses, kind="stable")[: columns * rows]
    figure, axes = plt.subplots(rows, columns, figsize=(1.0 * columns, 1.4 * rows), squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    patches = split.read(indices[hardest])
    for place, position, patch in zip(axes.flat, hardest, patches, strict=False):
        index = indices[position]
        place.imshow(patch)
        for colour, width in (("black", 2.0), ("white", 0.8)):  # seen on glass and on nuclei
            place.add_patch(plt.Rectangle((31.5, 31.5), 32, 32, fill=False, edgecolor=colour, lw=width))
        label = "tumour" if labels[index] else "no tumour"
        place.set_title(f"{index} · {label}\nloss {losses[position]:.2f}", fontsize=7)
    figure.tight_layout(h_pad=1.2)
    return figure


def _labels(split: Split) -> NDArray[np.uint8]:
    if split.labels is None:
        raise DataError(f"{split.directory}: {split.name} has no labels; a training batch needs them")
    return split.labels
