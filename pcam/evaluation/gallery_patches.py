"""What a gallery shows of the patches: which ones, as one picture, and the same on paper.

The static figure holds the gravest mistakes for readers without scripts, and for print.
"""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcam.data.format import PATCH_SHAPE, Split
from pcam.evaluation.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = PATCH_SHAPE[0]
# WEBP pictures are at most 16,383 pixels wide and high.
MOST = (16_383 // SIDE) ** 2
# Okabe-Ito, warm where the model is wrong, dark where there is tumour; gallery.css has the same.
COLOURS = {"FP": "#e69f00", "FN": "#d55e00"}


def choose_patches(predictions: Predictions, threshold: float, limit: int) -> NDArray[np.int64]:
    """Choose the patches that a gallery shows.

    Of each kind of mistake the gravest (farthest from the threshold), up to three eighths of the limit each; of the
    right calls an even spread from the lowest to the highest score, so that moving the threshold brings new mistakes
    into view. What one kind does not use goes to the others. Where all fit, all are shown; without labels, an even
    spread over the scores.

    Args:
        predictions: N predictions.
        threshold: a score of this or more is a positive call.
        limit: how many to choose at most.

    Returns:
        Increasing row numbers, (at most `limit`,).
    """
    n = len(predictions)
    if n <= limit:
        return np.arange(n)
    by_score = np.argsort(predictions.score, kind="stable")
    if predictions.label is None:
        return np.sort(_spread(by_score, limit))
    called, label = predictions.score[by_score] >= threshold, predictions.label[by_score] == 1
    false_positive, false_negative = by_score[called & ~label][::-1], by_score[~called & label]
    right = by_score[called == label]
    mistakes = limit - min(len(right), limit // 4)
    first = max(mistakes // 2, mistakes - len(false_negative))
    wrong = np.concatenate([false_positive[:first], false_negative[: mistakes - min(first, len(false_positive))]])
    return np.sort(np.concatenate([wrong, _spread(right, limit - len(wrong))]))


def _spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return `count` ≤ B of the B rows at even distances, the first and the last included."""
    return rows[np.arange(count) * (len(rows) - 1) // max(count - 1, 1)]


def sprite_sheet(patches: NDArray[np.uint8], quality: int) -> str:
    """Return patches uint8 (B, S, S, 3) as one WEBP data URI, row by row in a grid ⌈√B⌉ wide; "" for none."""
    if not len(patches):
        return ""
    wide = math.ceil(math.sqrt(len(patches)))
    shape = patches.shape[1:]
    grid = np.zeros((math.ceil(len(patches) / wide) * wide, *shape), dtype=np.uint8)
    grid[: len(patches)] = patches
    picture = grid.reshape(-1, wide, *shape).transpose(0, 2, 1, 3, 4).reshape(-1, wide * shape[1], 3)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def error_figure(predictions: Predictions, split: Split, threshold: float, count: int = 8) -> Figure:
    """Draw the most confident false positives and false negatives.

    Args:
        predictions: labelled predictions.
        split: the split they were made on.
        threshold: a score of this or more is a positive call.
        count: the largest number of patches of each kind.

    Returns:
        A figure of two rows of patches, each with its index and score, the centre 32×32 that defines the label
        outlined.

    Raises:
        DataError: there are no labels.
    """
    import matplotlib.pyplot as plt

    label, called = predictions.labels == 1, predictions.score >= threshold
    by_score = np.argsort(predictions.score, kind="stable")
    kinds = {
        "FP": (
            "False positives",
            "no tumour in the centre, called tumour",
            by_score[(called & ~label)[by_score]][::-1],
        ),
        "FN": ("False negatives", "tumour in the centre, called none", by_score[(~called & label)[by_score]]),
    }
    heights = [1.95 if len(worst) else 0.6 for _, _, worst in kinds.values()]
    figure = plt.figure(figsize=(1.25 * count, sum(heights)))
    bands = figure.subfigures(2, 1, height_ratios=heights)
    for band, (kind, (name, meaning, worst)) in zip(bands, kinds.items(), strict=True):
        of = int((~label if kind == "FP" else label).sum())
        band.suptitle(f"{name}: {meaning} ({len(worst)} of {of:,})", x=0.01, ha="left", fontsize=10)
        axes = band.subplots(1, count, squeeze=False)[0]
        band.subplots_adjust(left=0.01, right=0.99, bottom=0.2, top=0.86, wspace=0.06)
        shown = worst[:count]
        if not len(shown):
            band.text(0.01, 0.2, "none at this threshold", fontsize=9)
        patches = split.read(predictions.index[shown])
        for place, axis in enumerate(axes):
            axis.set_axis_off()
            if place < len(shown):
                row = shown[place]
                _draw(axis, patches[place], f"#{predictions.index[row]}\n{predictions.score[row]:.3f}", COLOURS[kind])
    return figure


def _draw(axis: Axes, patch: NDArray[np.uint8], text: str, colour: str) -> None:
    from matplotlib.patches import Rectangle

    axis.imshow(patch, interpolation="nearest")
    third = SIDE / 3
    for outline, line in (("black", 2.2), (colour, 1.2)):
        axis.add_patch(
            Rectangle((third - 0.5, third - 0.5), third, third, fill=False, edgecolor=outline, linewidth=line)
        )
    axis.text(0, SIDE + 2, text, fontsize=7.5, va="top", linespacing=1.2)
