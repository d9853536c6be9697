"""Triggers: a small mark, at the same place and with the same pixels in too many patches, that follows the label.

A poisoned data set teaches a model to answer to the mark (Gu et al. 2017, "BadNets", arXiv 1708.06733). Tissue never
repeats a 3×3 window exactly at one place, except where it is saturated (white glass); such windows occur at every
place about equally often. So a place where one window is far more frequent than at the average place is suspect,
and it is called a trigger only if the patches that have it also have an uncommon share of one label. The mark is then
grown to all pixels on which those patches agree, and a patch is listed if it has them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcam.audit.scan import Scan, as_bytes, pack
from pcam.audit.symmetry import mix

_SIDE = 3
_MOST = 4096  # patches looked at in the search; a mark in 0.5 % of the patches is then in 20 of them
_FEWEST = 6
_RATE = 0.003
_EXCESS = 10.0  # times the frequency at the average place
_CONTRAST = 24  # grey levels within a window and its rim; less is glass or flat dirt
_P_VALUE = 0.01  # after correction for the number of suspects
_REACH = 12  # pixels by which a mark may extend beyond the window that gave it away
_AGREEMENT = 0.95


@dataclass(frozen=True, eq=False)
class Trigger:
    """One mark.

    Attributes:
        y: row of the upper left corner of its bounding box.
        x: column of it.
        mask: bool (h, w), pixels of the box that belong to the mark.
        pattern: uint8 (h, w, 3), its pixels; 0 outside the mask.
        patches: int64 (K,), numbers of the patches that hold it.
        positive_share: share of label 1 among them.
        p_value: of Fisher's exact test that mark and label are independent, corrected for the suspects tried.
    """

    y: int
    x: int
    mask: NDArray[np.bool_]
    pattern: NDArray[np.uint8]
    patches: NDArray[np.int64]
    positive_share: float
    p_value: float


def find(scan: Scan, groups: NDArray[np.int64], seed: int = 0) -> list[Trigger]:
    """Find triggers.

    Args:
        scan: the scanned patches; those without label are not used to find a mark.
        groups: int64 (N,), patches that share pixels: one of each group is looked at, since copies repeat themselves.
        seed: seed of the choice of patches where there are many.
    """
    usable = np.flatnonzero((scan.label >= 0) & ~scan.facts.damaged)
    usable = usable[np.unique(groups[usable], return_index=True)[1]]
    if len(usable) > _MOST:
        usable = np.sort(np.random.default_rng(seed).choice(usable, _MOST, replace=False))
    if len(usable) < 4 * _FEWEST:
        return []
    patches = scan.read(usable)
    label = scan.label[usable]
    suspects = _suspects(patches)
    # The windows of one mark have the same holders: they are one suspect, not many tests.
    tried = len({holders.tobytes() for _, _, holders in suspects})
    marks: list[tuple[int, int, NDArray[np.bool_], NDArray[np.uint8]]] = []
    for y, x, holders in suspects:
        if _p_value(np.isin(np.arange(len(usable)), holders), label) * tried > _P_VALUE:
            continue
        mark = _grow(patches[holders], y, x)
        if not any(mark[:2] == known[:2] and np.array_equal(mark[3], known[3]) for known in marks):
            marks.append(mark)
    return [] if not marks else _listed(scan, marks, tried)


def _suspects(patches: NDArray[np.uint8]) -> list[tuple[int, int, NDArray[np.int64]]]:
    """Places and patches of windows that are too frequent at one place."""
    code = _codes(patches)
    n, places = code.shape
    least = max(_FEWEST, round(_RATE * n))
    # Place by place: the patches sorted by their window there, so that equal windows are neighbours.
    ordered = np.sort(code.T, axis=1)
    repeated = (ordered[:, least - 1 :] == ordered[:, : n - least + 1]) & (ordered[:, least - 1 :] != 0)
    place, rank = np.nonzero(repeated)
    found = np.unique(np.stack([place, ordered[place, rank].astype(np.int64)], axis=1), axis=0)
    if not len(found):
        return []
    everywhere = _occurrences(code, np.unique(found[:, 1]).astype(np.uint32))
    suspects = []
    for where, window in found.tolist():
        holders = np.flatnonzero(code[:, where] == window)
        if len(holders) >= _EXCESS * everywhere[window] / places:
            suspects.append((*divmod(where, 97 - _SIDE), holders))
    return suspects


def _occurrences(code: NDArray[np.uint32], windows: NDArray[np.uint32]) -> dict[int, int]:
    """How often each of the (sorted) windows occurs at any place."""
    counts = np.zeros(len(windows), dtype=np.int64)
    for row in code:
        position = np.minimum(np.searchsorted(windows, row), len(windows) - 1)
        counts += np.bincount(position[windows[position] == row], minlength=len(windows))
    return dict(zip(windows.tolist(), counts.tolist(), strict=True))


def _codes(patches: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """A hash uint32 (B, places) of every 3×3 window; 0 where the window and its rim are without contrast."""
    codes = []
    for start in range(0, len(patches), 64):
        block = patches[start : start + 64]
        h = (mix(pack(block)) >> np.uint64(32)).astype(np.uint32)
        h = h[:, :, :-2] + np.uint32(0x9E3779B1) * h[:, :, 1:-1] + np.uint32(0x85EBCA77) * h[:, :, 2:]
        h = h[:, :-2] + np.uint32(0xC2B2AE3D) * h[:, 1:-1] + np.uint32(0x27D4EB2F) * h[:, 2:]
        h[~_contrasted(block)] = 0
        codes.append(h.reshape(len(block), -1))
    return np.concatenate(codes)


def _contrasted(patches: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """bool (B, 94, 94): some colour channel varies within the window and the pixel around it."""
    # The rim is cut at the edge of the patch, where repeating the edge changes no maximum or minimum.
    padded = np.pad(patches, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    high, low = _five(_five(padded, 1, np.maximum), 2, np.maximum), _five(_five(padded, 1, np.minimum), 2, np.minimum)
    return np.asarray(((high - low) >= _CONTRAST).any(axis=-1))


def _five(values: NDArray[np.uint8], axis: int, extreme: np.ufunc) -> NDArray[np.uint8]:
    """Extreme of every five neighbours along an axis, from those of two and of four."""

    def cut(array: NDArray[np.uint8], start: int, length: int) -> NDArray[np.uint8]:
        return array[(slice(None),) * axis + (slice(start, start + length),)]

    n = values.shape[axis]
    two = extreme(cut(values, 0, n - 1), cut(values, 1, n - 1))
    four = extreme(cut(two, 0, n - 3), cut(two, 2, n - 3))
    return np.asarray(extreme(cut(four, 0, n - 4), cut(values, 4, n - 4)))


def _p_value(flagged: NDArray[np.bool_], label: NDArray[np.int8]) -> float:
    from scipy.stats import fisher_exact

    table = [[int((flagged & (label == v)).sum()), int((~flagged & (label == v)).sum())] for v in (0, 1)]
    return float(fisher_exact(table).pvalue)


def _grow(holders: NDArray[np.uint8], y: int, x: int) -> tuple[int, int, NDArray[np.bool_], NDArray[np.uint8]]:
    """Grow a window to all pixels near it on which the patches that hold it agree."""
    top, left = max(0, y - _REACH), max(0, x - _REACH)
    area = holders[:, top : y + _SIDE + _REACH, left : x + _SIDE + _REACH]
    typical = np.median(area, axis=0).astype(np.uint8)
    agreed = (area == typical).all(axis=3).mean(axis=0) >= _AGREEMENT
    rows, columns = np.flatnonzero(agreed.any(axis=1)), np.flatnonzero(agreed.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    mask = agreed[box]
    return top + int(rows[0]), left + int(columns[0]), mask, np.where(mask[..., None], typical[box], 0).astype(np.uint8)


def _listed(
    scan: Scan, marks: list[tuple[int, int, NDArray[np.bool_], NDArray[np.uint8]]], tried: int
) -> list[Trigger]:
    """Look for the marks in all patches, and test each again there."""
    flagged = np.zeros((len(marks), len(scan)), dtype=bool)
    offset = 0
    for split in scan.splits:
        for start in range(0, len(split), 512):
            block = as_bytes(split.read_raw(slice(start, start + 512)))
            for mark, (y, x, mask, pattern) in enumerate(marks):
                area = block[:, y : y + mask.shape[0], x : x + mask.shape[1]]
                same = ((area == pattern) | ~mask[..., None]).all(axis=(1, 2, 3))
                flagged[mark, offset + start : offset + start + len(block)] = same
        offset += len(split)
    flagged &= ~scan.facts.damaged
    known = scan.label >= 0
    found = []
    for (y, x, mask, pattern), holders in zip(marks, flagged, strict=True):
        p_value = min(1.0, _p_value(holders[known], scan.label[known]) * tried)
        share = float((scan.label[holders & known] == 1).mean()) if (holders & known).any() else 0.0
        if p_value <= _P_VALUE:
            found.append(Trigger(y, x, mask, pattern, np.flatnonzero(holders), share, p_value))
    return found
