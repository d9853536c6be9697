"""Pixel overlap: two patches of one slide that hold the same pixels, shifted against each other.

PCam's patches lie on a 16-pixel grid of their slides, so many share up to five sixths of their pixels. A join on the
anchors proposes pairs with their shift; a pair is kept when the anchors in the common region agree. The share of
agreeing anchors is a sample of the pixels themselves, so nothing needs to be read again: a pasted mark agrees in its
own few windows only, and is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcam.audit.anchors import WINDOW, Anchors
from pcam.audit.findings import with_copies

_SIDE = 96
_MIN_ANCHORS = 2
_MIN_AGREEMENT = 0.5
_MIN_SHARED = 16  # pixels in either direction: one step of PCam's grid
_MAX_RUN = 64  # a window that more patches hold is a pattern of the scanner or of an artefact, not a place


@dataclass(frozen=True, eq=False)
class Overlaps:
    """P pairs that share pixels: pixel (y, x) of `first` is pixel (y - dy, x - dx) of `second`.

    Attributes:
        pairs: int64 (P, 2), first < second.
        dy: int64 (P,), rows by which the second lies lower on the slide than the first.
        dx: int64 (P,), columns by which it lies further right.
        agreement: float64 (P,), share of the common region's anchors that agree.
    """

    pairs: NDArray[np.int64]
    dy: NDArray[np.int64]
    dx: NDArray[np.int64]
    agreement: NDArray[np.float64]

    @property
    def shared(self) -> NDArray[np.float64]:
        """Share (P,) of a patch's pixels that the other holds too."""
        return (_SIDE - np.abs(self.dy)) * (_SIDE - np.abs(self.dx)) / _SIDE**2

    def take(self, keep: NDArray[np.generic]) -> Overlaps:
        """The pairs that a mask or positions select."""
        return Overlaps(self.pairs[keep], self.dy[keep], self.dx[keep], self.agreement[keep])

    def with_copies(self, digest: NDArray[np.bytes_]) -> Overlaps:
        """The same pairs and those of the exact copies of either patch; `digest` (N,) is the hash of every patch."""
        pairs, row, order = with_copies(self.pairs, digest)
        return Overlaps(pairs, self.dy[row] * order, self.dx[row] * order, self.agreement[row])


def find(anchors: Anchors, n: int) -> Overlaps:
    """Find the pairs among n patches that share pixels.

    Args:
        anchors: anchors of the patches to compare; plain copies should be left out, or they multiply the pairs.
        n: number of patches.
    """
    left, right = _join(anchors)
    span = 2 * _SIDE
    dy = anchors.y[left].astype(np.int64) - anchors.y[right]
    dx = anchors.x[left].astype(np.int64) - anchors.x[right]
    first, second = anchors.patch[left].astype(np.int64), anchors.patch[right].astype(np.int64)
    code = ((first * n + second) * span + dy + _SIDE) * span + dx + _SIDE
    code, matches = np.unique(code, return_counts=True)
    rest, dx = np.divmod(code, span)
    rest, dy = np.divmod(rest, span)
    dy, dx = dy - _SIDE, dx - _SIDE
    enough = (matches >= _MIN_ANCHORS) & (np.maximum(np.abs(dy), np.abs(dx)) <= _SIDE - _MIN_SHARED)
    rest, dy, dx, matches = rest[enough], dy[enough], dx[enough], matches[enough]
    pairs = np.stack(np.divmod(rest, n), axis=1)
    possible = np.minimum(_in_region(anchors, n, pairs[:, 0], dy, dx), _in_region(anchors, n, pairs[:, 1], -dy, -dx))
    agreement = matches / np.maximum(possible, 1)
    found = Overlaps(pairs, dy, dx, agreement).take(agreement >= _MIN_AGREEMENT)
    return _best_shift(found, n)


def _join(anchors: Anchors) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of anchors with equal keys in different patches, each pair once, the lower patch first."""
    order = np.argsort(anchors.key, kind="stable")  # stable: patches stay in ascending order within a run
    key = anchors.key[order]
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else np.empty(0, np.int64)
    length = np.diff(np.append(starts, len(key)))
    chosen = (length > 1) & (length <= _MAX_RUN)
    starts, length = starts[chosen], length[chosen]
    left, right = [], []
    for a in range(int(length.max(initial=1)) - 1):
        for b in range(a + 1, int(length.max(initial=1))):
            runs = starts[length > b]
            left.append(order[runs + a])
            right.append(order[runs + b])
    if not left:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    one, two = np.concatenate(left), np.concatenate(right)
    different = anchors.patch[one] != anchors.patch[two]
    return one[different], two[different]


def _in_region(
    anchors: Anchors, n: int, patch: NDArray[np.int64], dy: NDArray[np.int64], dx: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Number (P,) of anchors of each patch whose window lies in the region shared at that shift."""
    bounds = np.searchsorted(anchors.patch, np.arange(n + 1))
    counts = np.empty(len(patch), dtype=np.int64)
    block = 1 << 14  # pairs at a time: each expands to about a hundred anchors
    for start in range(0, len(patch), block):
        part = slice(start, start + block)
        begin, size = bounds[patch[part]], np.diff(bounds)[patch[part]]
        owner = np.repeat(np.arange(len(begin)), size)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(size) - size, size) + begin[owner]
        y, x = anchors.y[place] - dy[part][owner], anchors.x[place] - dx[part][owner]
        limit = _SIDE - WINDOW
        inside = (y >= 0) & (y <= limit) & (x >= 0) & (x <= limit)
        counts[part] = np.bincount(owner[inside], minlength=len(begin))
    return counts


def _best_shift(found: Overlaps, n: int) -> Overlaps:
    """Keep one shift per pair: a periodic texture can agree at several."""
    if not len(found.pairs):
        return found
    code = found.pairs[:, 0] * n + found.pairs[:, 1]
    order = np.lexsort((-found.shared, -found.agreement, code))
    first = np.concatenate([[True], np.diff(code[order]) != 0])
    return found.take(order[first])
