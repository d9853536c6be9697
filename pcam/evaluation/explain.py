"""What lies behind one score: the training patches that are most like the patch, and the pixels that moved the score.

"Alike" means near in standardised features: those that the model's last layer reads where there is a model, else the
eight input features. The attribution of a pixel is its integrated gradient, which has two virtues here: it asks nothing
of the network but gradients, and it adds up, so a map can be checked against the logit that it explains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pcam.data.format import PATCH_SHAPE, Split
from pcam.evaluation.features import FEATURE_NAMES, input_features

if TYPE_CHECKING:
    import torch

    from pcam.models import PatchClassifier

CELL = 4  # pixels a side of one value of an attribution map: single pixels are noise
MAP_SIDE = PATCH_SHAPE[0] // CELL
AMONG = 8192  # training patches that are searched; an even spread where there are more
MANY = 1000  # patches, from which on a page carries maps and neighbours smaller: 5,000 stay within 25 MB
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest training patches of B patches.

    Attributes:
        index: int64 (B, K), positions in the training split, nearest first.
        distance: float64 (B, K), in standard deviations, root mean square over the features.
        searched: how many training patches were compared.
        by: what was compared, in words.
    """

    index: NDArray[np.int64]
    distance: NDArray[np.float64]
    searched: int
    by: str


def head_features(model: PatchClassifier, split: Split, indices: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return what the model's last layer reads of each patch, float32 (B, F)."""
    import torch

    kept: list[torch.Tensor] = []
    hook = model.get_submodule("head").register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].float().cpu()))
    try:
        for start in range(0, len(indices), _BATCH):
            model.predict_logits(torch.from_numpy(split.read(indices[start : start + _BATCH])))
    finally:
        hook.remove()
    return torch.cat(kept).numpy()


def find_neighbours(
    split: Split,
    indices: NDArray[np.integer],
    train: Split,
    model: PatchClassifier | None = None,
    *,
    count: int = 3,
    among: int = AMONG,
) -> Neighbours:
    """Find the training patches that are most like some patches of a split.

    Args:
        split: where the patches are.
        indices: int (B,), B > 0, which they are.
        train: the split to search.
        model: compare what its last layer reads; None: the input features.
        count: K, how many to find at most.
        among: the largest number of training patches to compare.
    """
    searched = np.unique(np.linspace(0, len(train) - 1, min(among, len(train))).astype(np.int64))
    if model is None:
        asked, held = (
            input_features(s, i)[list(FEATURE_NAMES)].to_numpy() for s, i in ((split, indices), (train, searched))
        )
        by = f"the {len(FEATURE_NAMES)} input features"
    else:
        asked, held = head_features(model, split, indices), head_features(model, train, searched)
        by = f"the {held.shape[1]} features that the model's last layer reads"
    spread = held.std(axis=0, dtype=np.float64)
    varies = spread > 1e-6 * max(float(spread.max()), 1e-12)  # a dead unit tells no two patches apart
    asked, held = (side[:, varies] / spread[varies] for side in (asked, held))
    squared = (asked**2).sum(1)[:, None] + (held**2).sum(1) - 2 * asked @ held.T
    nearest = np.argsort(squared, axis=1, kind="stable")[:, :count]
    distance = np.sqrt(np.clip(np.take_along_axis(squared, nearest, 1), 0, None) / max(int(varies.sum()), 1))
    return Neighbours(searched[nearest], distance, len(searched), by)


def integrated_gradients(model: PatchClassifier, patches: NDArray[np.uint8], steps: int = 16) -> NDArray[np.float32]:
    """Attribute each patch's logit to its pixels (Sundararajan, Taly and Yan 2017, ICML).

    The path leads from the mean colour of the training patches, which is 0 after normalisation, straight to the patch;
    the gradients along it are averaged at the middles of `steps` equal parts. The values of a map add up to the logit
    of the patch minus the logit of a patch of that colour, as closely as the steps allow.

    Args:
        model: any classifier of patches.
        patches: uint8 (B, 96, 96, 3), RGB, as stored.
        steps: gradients per patch.

    Returns:
        float32 (B, 24, 24): sums over 4×4 pixels and the colours; above 0 where the pixels speak for tumour.
    """
    import torch

    from pcam.data.augment import to_channels_first

    was_training = model.training
    model.eval()
    maps = []
    try:
        for start in range(0, len(patches), _BATCH):
            batch = torch.from_numpy(patches[start : start + _BATCH]).to(model.channel_mean.device)
            full = model.normalise(to_channels_first(batch)).detach()
            total = torch.zeros_like(full)
            for step in range(steps):
                point = ((step + 0.5) / steps * full).requires_grad_()
                total += torch.autograd.grad(model(point).sum(), point)[0]
            cells = torch.nn.functional.avg_pool2d((full * total / steps).sum(1), CELL) * CELL**2
            maps.append(cells.float().cpu().numpy())
    finally:
        model.train(was_training)
    return np.concatenate(maps) if maps else np.empty((0, MAP_SIDE, MAP_SIDE), dtype=np.float32)


def neighbour_content(found: Neighbours, train: Split, quality: int) -> tuple[dict[str, Any], list[list[list[float]]]]:
    """Return neighbours as a gallery carries them, each training patch once, at half its size or, of many, at a third.

    Returns:
        What they are, with all of them as one picture; and for each of the B patches the K pairs (place, distance).
    """
    from pcam.evaluation.gallery_patches import pictures

    unique, place = np.unique(found.index, return_inverse=True)
    part = 2 if len(found.index) <= MANY else 3
    side = PATCH_SHAPE[0] // part
    small = np.empty((len(unique), side, side, 3), dtype=np.uint8)
    for start in range(0, len(unique), 256):
        full = train.read(unique[start : start + 256]).reshape(-1, side, part, side, part, 3)
        small[start : start + 256] = np.rint(full.mean(axis=(2, 4)))
    labels, slides = train.labels, train.slides
    held = [
        {
            "index": int(index),
            "label": None if labels is None else int(labels[index]),
            "slide": None if slides is None else str(slides[index]),
        }
        for index in unique
    ]
    about = {
        "split": train.name, "searched": found.searched, "of": len(train), "by": found.by,
        "pictures": pictures(small, quality), "patches": held,
    }  # fmt: skip
    pairs = zip(place.reshape(found.index.shape), found.distance, strict=True)
    return about, [[[int(p), float(f"{d:.3g}")] for p, d in zip(places, far, strict=True)] for places, far in pairs]


def attribution_content(maps: NDArray[np.float32]) -> tuple[int, list[dict[str, Any]]]:
    """Return maps as a gallery carries them.

    Returns:
        Their side, 24 or, of many, 12, where a value is the sum of four; and of each map its bytes in units of its own
        largest value, that value, and the sum.
    """
    import base64

    if len(maps) > MANY:
        maps = maps.reshape(-1, MAP_SIDE // 2, 2, MAP_SIDE // 2, 2).sum(axis=(2, 4))
    carried = []
    for values in maps:
        most = float(np.abs(values).max())
        scaled = np.rint(values / most * 127 if most else values).astype(np.int8)
        data = base64.b64encode(scaled.tobytes()).decode("ascii")
        carried.append({"data": data, "most": float(f"{most:.3g}"), "sum": round(float(values.sum()), 2) + 0.0})
    return maps.shape[1], carried
