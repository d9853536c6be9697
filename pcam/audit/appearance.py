"""Colour and texture of a patch and of its centre in a few dozen numbers: what the label check is trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pcam.data.color import LUMA

_CENTRE = slice(32, 64)  # the label speaks of these pixels only
_CUTS = (5, 25, 50, 75, 95)
_LUMINANCE = np.array(LUMA, dtype=np.float32)


def planes(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return uint8 patches (B, 96, 96, 3) as float32 colour planes (B, 3, 96, 96); sums along rows are then fast."""
    return np.ascontiguousarray(patches.transpose(0, 3, 1, 2), dtype=np.float32)


def luminance(colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return grey patches float32 (B, H, W) of colour planes (B, 3, H, W)."""
    return (_LUMINANCE @ colour.reshape(len(colour), 3, -1)).reshape(len(colour), *colour.shape[2:])


def appearance_features(colour: NDArray[np.float32], grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return features float32 (B, 38): mean, spread and correlation of colour, grey quantiles, texture at three scales.

    Args:
        colour: float32 (B, 3, 96, 96) from `planes`.
        grey: float32 (B, 96, 96) from `luminance`.
    """
    whole = _region_features(colour, grey, every=9)
    centre = _region_features(colour[:, :, _CENTRE, _CENTRE], grey[:, _CENTRE, _CENTRE], every=1)
    return np.concatenate([whole, centre], axis=1)


def _region_features(colour: NDArray[np.float32], grey: NDArray[np.float32], every: int) -> NDArray[np.float32]:
    flat = colour.reshape(len(colour), 3, -1)
    mean = flat.mean(axis=2)
    covariance = flat @ flat.transpose(0, 2, 1) / flat.shape[2] - mean[:, :, None] * mean[:, None, :]
    spread = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 1e-3))
    correlation = covariance / (spread[:, :, None] * spread[:, None, :])
    # Quantiles need a sort; those of a ninth of the pixels are off by less than a grey level.
    quantiles = np.percentile(grey.reshape(len(grey), -1)[:, ::every], _CUTS, axis=1).T
    parts = [mean, spread, correlation[:, 0, 1:], correlation[:, 1, 2:], quantiles]
    for scale in (1, 2, 4):
        coarse = grey[:, ::scale, ::scale]
        for axis in (1, 2):
            step = np.diff(coarse, axis=axis).reshape(len(grey), -1)
            parts.append(np.sqrt(np.einsum("bp,bp->b", step, step) / step.shape[1])[:, None])
    return np.concatenate(parts, axis=1).astype(np.float32)
