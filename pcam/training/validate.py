"""A model's loss, ROC-AUC and accuracy on a split, over all of its patches, as training logs them each epoch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from pcam.data.loader import Loader
from pcam.models import PatchClassifier
from pcam.training.distributed import World


def validate(model: PatchClassifier, loader: Loader, world: World | None = None) -> dict[str, float | None]:
    """Score every patch once, in index order.

    Args:
        model: to be judged.
        loader: of the patches, or of this process's share of them.
        world: the processes that share them; None: this one alone.

    Returns:
        `valid_loss` (mean negative log-likelihood), `valid_auc` (None when only one class is there) and
        `valid_accuracy` at a score of 0.5.
    """
    found = torch.zeros(len(loader.indices), device=loader.device)
    for batch in loader.in_order():
        places = np.searchsorted(loader.indices, batch.indices.numpy())
        found[torch.from_numpy(places).to(found.device)] = model.predict_logits(batch.patches)
    # Each process has put its share among zeros: their sum is the whole, to the bit.
    logits = (world or World()).add(found).cpu()
    labels = torch.from_numpy(loader.labels)
    return {
        "valid_loss": binary_cross_entropy_with_logits(logits.double(), labels.double()).item(),
        "valid_auc": roc_auc(loader.labels, logits.numpy()),
        "valid_accuracy": ((logits > 0) == labels.bool()).double().mean().item(),
    }


def roc_auc(labels: NDArray[np.uint8], scores: NDArray[np.floating]) -> float | None:
    """Return the chance that a positive outscores a negative, ties counting half; None for one class.

    The Mann-Whitney form of the area under the ROC curve (Hanley and McNeil 1982, Radiology 143:29).

    Args:
        labels: (N,), 0 or 1.
        scores: (N,), higher for positive.
    """
    positive = labels.astype(bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    midranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    wins = midranks[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(wins / (n_positive * n_negative))
