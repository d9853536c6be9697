"""The eight symmetries of the square, and a hash that they do not change.

A patch has no natural orientation, so a copy that was rotated or flipped carries the same information and leaks as
much as a plain copy. Positions that a symmetry can exchange form an orbit; a sum over the pixels in which the weight
depends on the orbit alone is the same for all eight forms, and costs one pass where hashing all eight costs eight.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SYMMETRIES = (
    "identity",
    "turned 90°",
    "turned 180°",
    "turned 270°",
    "transposed",
    "transposed + 90°",
    "transposed + 180°",
    "transposed + 270°",
)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)


def apply(patch: NDArray[np.generic], symmetry: int) -> NDArray[np.generic]:
    """Apply one of the `SYMMETRIES` (0 … 7) to the first two axes of an array."""
    turned = patch.swapaxes(0, 1) if symmetry >= 4 else patch
    return np.rot90(turned, symmetry % 4)


def mix(values: NDArray[np.unsignedinteger]) -> NDArray[np.uint64]:
    """Spread integers over 64 bits so that sums of them do not cancel (the finalizer of MurmurHash3)."""
    h = values.astype(np.uint64)
    h += np.uint64(0x9E3779B97F4A7C15)
    h *= _MIX_1
    h ^= h >> np.uint64(33)
    h *= _MIX_2
    h ^= h >> np.uint64(29)
    return h


def _orbit_weights(side: int) -> NDArray[np.uint64]:
    """Random odd weights (side, side), equal on positions that a symmetry exchanges."""
    y, x = np.indices((side, side))
    y, x = np.minimum(y, side - 1 - y), np.minimum(x, side - 1 - x)
    orbit = np.minimum(y, x) * side + np.maximum(y, x)
    return mix(orbit.astype(np.uint64)) | np.uint64(1)


_WEIGHTS = _orbit_weights(96).reshape(-1)


def orbit_key(pixels: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Return a key uint64 (B,) that is equal for a patch and its rotations and flips.

    Args:
        pixels: packed pixels uint32 (B, 96, 96).
    """
    return np.einsum("bp,p->b", mix(pixels).reshape(len(pixels), -1), _WEIGHTS)


def relation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> int | None:
    """Return the symmetry (0 … 7) that turns `first` (96, 96, 3) into `second`, or None."""
    for symmetry in range(8):
        if np.array_equal(apply(first, symmetry), second):
            return symmetry
    return None
