"""What a gallery shows of the patches: which ones, as one picture, and the same on paper.

The static figure holds the gravest mistakes for readers without scripts, and for print.
"""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcam.data.format import PATCH_SHAPE, Split
from pcam.evaluation.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = PATCH_SHAPE[0]
MOST = 25_000  # a page of more would be larger than browsers open with ease
EACH = 256  # patches in one picture: a page decodes those it shows, not 200 MB at once
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


def default_quality(count: int) -> int:
    """Return the quality at which `count` patches make a page of at most 3 MB, or of 25 MB where they are 5,000."""
    return 100 if count <= 100 else 90 if count <= 250 else 75 if count <= 1000 else 50


def pictures(patches: NDArray[np.uint8], quality: int) -> dict[str, Any]:
    """Return patches as a page carries them.

    Args:
        patches: uint8 (B, S, S, 3).
        quality: of WEBP, 1 to 99; 100: lossless, every value as it is.

    Returns:
        `sheets`, WEBP data URIs of `each` patches, row by row, as many rows as columns; `side`, S; and `error`, the
        mean and the largest difference between the pixels in the sheets and those given, or None where there is none.
    """
    sheets, total, most = [], 0.0, 0
    for start in range(0, len(patches), EACH):
        part = patches[start : start + EACH]
        wide, shape = math.ceil(math.sqrt(len(part))), part.shape[1:]
        grid = np.zeros((math.ceil(len(part) / wide) * wide, *shape), dtype=np.uint8)
        grid[: len(part)] = part
        whole = grid.reshape(-1, wide, *shape).transpose(0, 2, 1, 3, 4).reshape(-1, wide * shape[1], 3)
        buffer = io.BytesIO()
        Image.fromarray(whole).save(buffer, "WEBP", lossless=quality == 100, quality=min(quality, 99), method=4)
        sheets.append("data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"))
        if quality < 100:
            with Image.open(buffer) as decoded:
                off = np.abs(np.asarray(decoded.convert("RGB"), dtype=np.int16) - whole)
            total, most = total + float(off.sum()), max(most, int(off.max()))
    error = {"mean": float(f"{total / patches.size:.2g}"), "most": most} if most else None
    return {"sheets": sheets, "each": EACH, "side": int(patches.shape[1]), "error": error}


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

    kinds = _gravest(predictions, threshold)
    heights = [1.65 if len(worst) else 0.6 for _, worst in kinds.values()]
    figure = plt.figure(figsize=(1.0 * count, sum(heights)))
    bands = figure.subfigures(2, 1, height_ratios=heights)
    for band, (kind, (title, worst)) in zip(bands, kinds.items(), strict=True):
        band.suptitle(title, x=0.01, ha="left", fontsize=10)
        axes = band.subplots(1, count, squeeze=False)[0]
        band.subplots_adjust(left=0.01, right=0.99, bottom=0.22, top=0.84, wspace=0.06)
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


def static_list(predictions: Predictions, split: Split, threshold: float, count: int = 8) -> str:
    """Return the same as `error_figure` as HTML that needs no script, in the classes of gallery.css."""
    parts = []
    for kind, (title, worst) in _gravest(predictions, threshold).items():
        rows = worst[:count]
        tiles = [
            f'<li><div class="pg-tile {kind}"><span class="pg-frame"><img width="{SIDE}" height="{SIDE}" '
            f'alt="Patch {index}" src="{pictures(patch[None], 90)["sheets"][0]}"></span><span class="pg-caption">'
            f'<span class="pg-badge">{kind}</span>{score:.3f}</span></div><span class="pg-small">#{index}</span></li>'
            for index, score, patch in zip(
                predictions.index[rows], predictions.score[rows], split.read(predictions.index[rows]), strict=True
            )
        ]
        parts.append(f'<p class="pg-lead">{title}</p>\n<ul class="pg-grid" role="list">{"".join(tiles)}</ul>\n')
    return f'<div class="pcam-gallery pg-boxed">{"".join(parts)}</div>'


def _gravest(predictions: Predictions, threshold: float) -> dict[str, tuple[str, NDArray[np.int64]]]:
    """Return each kind of mistake with a title and its rows, the gravest first."""
    label, called = predictions.labels == 1, predictions.score >= threshold
    by_score = np.argsort(predictions.score, kind="stable")
    positive, negative = by_score[(called & ~label)[by_score]][::-1], by_score[(~called & label)[by_score]]
    return {
        "FP": (
            f"False positives: no tumour in the centre, called tumour ({len(positive):,} of {int((~label).sum()):,})",
            positive,
        ),
        "FN": (
            f"False negatives: tumour in the centre, called none ({len(negative):,} of {int(label.sum()):,})",
            negative,
        ),
    }


def _draw(axis: Axes, patch: NDArray[np.uint8], text: str, colour: str) -> None:
    from matplotlib.patches import Rectangle

    axis.imshow(patch, interpolation="nearest")
    third = SIDE / 3
    for outline, line in (("black", 2.2), (colour, 1.2)):
        axis.add_patch(
            Rectangle((third - 0.5, third - 0.5), third, third, fill=False, edgecolor=outline, linewidth=line)
        )
    axis.text(0, SIDE + 2, text, fontsize=7.5, va="top", linespacing=1.2)
