"""Anchors: a small, content-chosen sample of a patch's windows, by which shared pixels are recognised at any shift.

Every 8×8 window of a patch gets a 64-bit hash; the windows whose hash is divisible by 64 are its anchors. Whether a
window is an anchor depends on its pixels alone, so two patches that share a region share the region's anchors,
wherever it lies in each of them: about (w-7)(h-7)/64 for a shared w×h region, 10 at the smallest that is looked for
(32×32). This is content-defined sampling (Manber 1994, "Finding similar files in a large file system"). Windows
without structure are left out, since glass looks the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pcam.audit.symmetry import mix

WINDOW = 8
RATE = 64
_MIN_COLOURS = 6  # in a window: with fewer, compressed glass has the same window everywhere
_ROWS = 0x9FB21C651E98DF25
_COLUMNS = 0xD6E8FEB86659FD93


@dataclass(frozen=True, eq=False)
class Anchors:
    """M anchors.

    Attributes:
        key: uint64 (M,), hash of the window.
        patch: int32 (M,), number of the patch that it is in; ascending.
        y: uint8 (M,), row of the window's upper left pixel.
        x: uint8 (M,), column of it.
    """

    key: NDArray[np.uint64]
    patch: NDArray[np.int32]
    y: NDArray[np.uint8]
    x: NDArray[np.uint8]

    def shifted(self, offset: int) -> Anchors:
        """The same anchors with `offset` added to the patch numbers."""
        return replace(self, patch=self.patch + np.int32(offset))

    def take(self, keep: NDArray[np.generic]) -> Anchors:
        """The anchors that a mask or positions select."""
        return Anchors(self.key[keep], self.patch[keep], self.y[keep], self.x[keep])


def concatenate(parts: Sequence[Anchors]) -> Anchors:
    """Join anchors of several blocks of patches."""
    return Anchors(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("key", "patch", "y", "x")))


def find(pixels: NDArray[np.uint32]) -> Anchors:
    """Find the anchors of packed patches uint32 (B, 96, 96); patches are numbered from 0."""
    key = _window_hash(pixels)
    # The high bits: those of a polynomial modulo 2**64 depend on all bits of all pixels, the low ones do not.
    patch, y, x = np.nonzero(key < np.uint64(2**64 // RATE))
    windows = sliding_window_view(pixels, (WINDOW, WINDOW), axis=(1, 2))[patch, y, x].reshape(-1, WINDOW**2)
    anchors = Anchors(key[patch, y, x], patch.astype(np.int32), y.astype(np.uint8), x.astype(np.uint8))
    return anchors.take(_colours(windows) >= _MIN_COLOURS)


def _colours(windows: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Number (M,) of different pixels in rows of packed pixels (M, P), or a few less: colours are put into 64 bins."""
    bins = (windows * np.uint32(0x9E3779B1)) >> np.uint32(26)
    return np.asarray(np.bitwise_count(np.bitwise_or.reduce(np.uint64(1) << bins.astype(np.uint64), axis=1)))


def _window_hash(pixels: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Polynomial hash uint64 (B, 89, 89) of every window, by doubling: 1, 2, 4, 8 columns, then rows."""
    h = mix(pixels)
    for step in (1, 2, 4):
        h = h[:, :, :-step] + _power(_COLUMNS, step) * h[:, :, step:]
    for step in (1, 2, 4):
        h = h[:, :-step] + _power(_ROWS, step) * h[:, step:]
    return h


def _power(base: int, exponent: int) -> np.uint64:
    return np.uint64(pow(base, exponent, 2**64))
