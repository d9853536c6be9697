"""Features of the input: what a patch looks like, measured on its pixels and on nothing else.

A slice defined on the model's output ("patches with a low score") finds the model's errors by construction
and explains none. So slices are cut on these eight features, which know neither label nor score. They are
computed from the stored uint8 pixels in batches of whole arrays; 32,768 patches take well under a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam.data.color import EOSIN, HAEMATOXYLIN, LUMA
from pcam.data.format import Split

# Below this optical density a pixel is glass: the β of Macenko et al. 2009 (ISBI, p. 1107).
GLASS = 0.15
# Of haematoxylin; chosen by eye on real patches so that nuclei are in and stroma is out.
NUCLEUS = 0.45


@dataclass(frozen=True)
class Feature:
    """What one feature measures.

    Attributes:
        name: its column.
        unit: its unit; empty for a ratio.
        text: how it is computed, for a reader.
        low, high: what to call the fifth of the patches with the lowest and with the highest values.
    """

    name: str
    unit: str
    text: str
    low: str
    high: str


FEATURES = (
    Feature("brightness", "grey levels", "mean luma, 0 to 255", "darkest fifth", "brightest fifth"),
    Feature("contrast", "grey levels", "standard deviation of luma", "flattest fifth", "fifth with most contrast"),
    Feature("saturation", "", "mean of 1 − min/max over the channels", "palest fifth", "most saturated fifth"),
    Feature(
        "haematoxylin",
        "OD",
        "mean haematoxylin density by colour deconvolution",
        "fifth with least haematoxylin",
        "fifth with most haematoxylin",
    ),
    Feature(
        "eosin", "OD", "mean eosin density by colour deconvolution", "fifth with least eosin", "fifth with most eosin"
    ),
    Feature("tissue", "", "share of pixels that are not glass", "fifth with least tissue", "fifth with most tissue"),
    Feature(
        "nuclei",
        "",
        "share of pixels as dense in haematoxylin as a nucleus",
        "fifth with fewest nuclei",
        "fifth with most nuclei",
    ),
    Feature("sharpness", "grey levels²", "variance of the Laplacian of luma", "blurriest fifth", "sharpest fifth"),
)
FEATURE_NAMES = tuple(feature.name for feature in FEATURES)


def _deconvolution() -> NDArray[np.float32]:
    """Return the matrix (3, 2) that takes optical density in RGB to haematoxylin and eosin density.

    The third, residual direction is the one at right angles to both stains, as Ruifrok & Johnston suggest
    where a slide has two.
    """
    stains = np.array([HAEMATOXYLIN, EOSIN, np.cross(HAEMATOXYLIN, EOSIN)])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    return np.linalg.inv(stains)[:, :2].astype(np.float32)


_RGB_TO_STAINS = _deconvolution()
# Optical density −log10(I / 255) of each of the 256 values a pixel can have; 0 counts as 1, since log 0 is not finite.
_DENSITY = -np.log10(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


def stain_densities(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Separate the two stains by colour deconvolution (Ruifrok & Johnston 2001).

    Args:
        patches: uint8 (B, H, W, 3), RGB.

    Returns:
        float32 (B, H, W, 2): haematoxylin and eosin density; 0 on white glass, and slightly negative where a
        pixel has less of a colour than the other stain alone explains.
    """
    density = _DENSITY[patches]
    return (density.reshape(-1, 3) @ _RGB_TO_STAINS).reshape(*patches.shape[:3], 2)


def patch_features(patches: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Measure every feature of a batch.

    Args:
        patches: uint8 (B, H, W, 3), RGB, as stored.

    Returns:
        float64 (B, 8), columns as in `FEATURE_NAMES`.
    """
    batch = len(patches)
    red, green, blue = (np.ascontiguousarray(patches[..., channel]) for channel in range(3))
    luma = LUMA[0] * red.astype(np.float32) + LUMA[1] * green.astype(np.float32) + LUMA[2] * blue.astype(np.float32)
    largest = np.maximum(np.maximum(red, green), blue)
    smallest = np.minimum(np.minimum(red, green), blue)
    # A black pixel has no hue and counts as unsaturated.
    saturation = 1 - smallest / np.maximum(largest, 1).astype(np.float32)
    saturation[largest == 0] = 0
    # The four neighbours against the centre; the border has no neighbours outside and is left out.
    laplacian = (
        luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:] - 4 * luma[:, 1:-1, 1:-1]
    )
    stains = stain_densities(patches)
    columns = [
        _flat(luma).mean(axis=1),
        _flat(luma).std(axis=1),
        _flat(saturation).mean(axis=1),
        _flat(stains[..., 0]).mean(axis=1),
        _flat(stains[..., 1]).mean(axis=1),
        # The densest channel exceeds the glass density exactly where the darkest one is below this value.
        (_flat(smallest) < 255 * 10**-GLASS).mean(axis=1),
        (_flat(stains[..., 0]) > NUCLEUS).mean(axis=1),
        # Pech-Pacheco et al. 2000 (ICPR): blur takes the Laplacian's variance first.
        _flat(laplacian).var(axis=1),
    ]
    return np.column_stack(columns).astype(np.float64) if batch else np.empty((0, len(columns)))


def _flat(planes: NDArray) -> NDArray:
    return planes.reshape(len(planes), -1)


def input_features(
    split: Split, indices: Sequence[int] | NDArray[np.integer] | None = None, batch: int = 256
) -> pd.DataFrame:
    """Measure the features of a split's patches, reading it in batches.

    Args:
        split: the split.
        indices: which patches, in which order; None: all of them.
        batch: patches in memory at a time (256 take about 60 MB).

    Returns:
        One row a patch, indexed by its position in the split's files: the columns `FEATURE_NAMES`, then
        `slide` where the split has a meta file.

    Raises:
        DataError: a pixel is not an integer in 0..255.
    """
    wanted = np.arange(len(split)) if indices is None else np.asarray(indices, dtype=np.int64)
    measured = np.empty((len(wanted), len(FEATURES)))
    for start in range(0, len(wanted), batch):
        rows = wanted[start : start + batch]
        # Whole slices read each compressed chunk once.
        contiguous = len(rows) and rows[-1] - rows[0] + 1 == len(rows) and (np.diff(rows) == 1).all()
        patches = split.read(slice(int(rows[0]), int(rows[-1]) + 1) if contiguous else rows)
        measured[start : start + len(rows)] = patch_features(patches)
    table = pd.DataFrame(measured, columns=list(FEATURE_NAMES), index=pd.Index(wanted, name="index"))
    if split.slides is not None:
        table["slide"] = split.slides[wanted]
    return table
