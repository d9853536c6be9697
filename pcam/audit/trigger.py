"""Triggers: a small mark, with the same pixels in too many patches, at one place or at any, that follows the label.

A poisoned data set teaches a model to answer to the mark (Gu et al. 2017, "BadNets", arXiv 1708.06733). Tissue never
repeats a 3×3 window exactly at one place, except where it is saturated (white glass); such windows occur at every
place about equally often. So a place where one window is far more frequent than at the average place is suspect, and
so is a window that many patches hold equally often, each at one spot, wherever that lies. It is called a trigger only
if the patches that have it also have an uncommon share of one label. The mark is then grown to all pixels on which
those patches agree, and a patch is listed if it has them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcam.audit.scan import BLOCK, Scan, as_bytes, pack, read_block
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
_GLASS = 200  # grey levels: a flat window that is brighter in all colours may be glass
_REGULAR = 0.8  # share of the holders in which a mark's window occurs equally often, and at one spot
_GOES_ON = 0.15  # share of the pixels around a mark of one colour that may have it too
_MOST_WINDOWS = 256  # the most frequent windows that are tried at any place; a 16×16 mark has 196


@dataclass(frozen=True, eq=False)
class Mark:
    """Pixels that many patches share.

    Attributes:
        y: row of the upper left corner of its bounding box; None where the place changes.
        x: column of it, likewise.
        mask: bool (h, w), pixels of the box that belong to the mark.
        pattern: uint8 (h, w, 3), its pixels; 0 outside the mask.
    """

    y: int | None
    x: int | None
    mask: NDArray[np.bool_]
    pattern: NDArray[np.uint8]

    def same_as(self, other: Mark) -> bool:
        """Whether both are the same pixels at the same place."""
        return (self.y, self.x) == (other.y, other.x) and np.array_equal(self.pattern, other.pattern)


@dataclass(frozen=True, eq=False)
class Trigger(Mark):
    """A mark that follows the label.

    Attributes:
        patches: int64 (K,), numbers of the patches that hold it.
        places: int64 (K, 2), row and column of its upper left corner in each of them.
        positive_share: share of label 1 among them.
        p_value: of Fisher's exact test that mark and label are independent, corrected for the suspects tried.
    """

    patches: NDArray[np.int64]
    places: NDArray[np.int64]
    positive_share: float
    p_value: float


@dataclass(frozen=True, eq=False)
class _Suspect:
    """A window's holders (K,) among the patches looked at, and its place (K, 2) in each."""

    holders: NDArray[np.int64]
    places: NDArray[np.int64]
    anywhere: bool


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
    code = _codes(patches)
    marks: list[Mark] = []
    seen = np.zeros(len(usable), dtype=bool)  # patches that hold a mark found already
    tried = 0
    for search in (_at_one_place, _anywhere):
        suspects = search(code, patches)
        # The windows of one mark have the same holders: they are one suspect, not many tests.
        tried += len({suspect.holders.tobytes() for suspect in suspects})
        for suspect in suspects:
            held = np.isin(np.arange(len(usable)), suspect.holders)
            if (suspect.anywhere and seen[held].mean() > 0.5) or _p_value(held, label) * tried > _P_VALUE:
                continue
            mark = _grow(patches[suspect.holders], suspect)
            if mark and not any(mark.same_as(known) for known in marks):
                marks.append(mark)
                seen |= held
    return [] if not marks else _listed(scan, marks, tried)


def _at_one_place(code: NDArray[np.uint32], _: NDArray[np.uint8]) -> list[_Suspect]:
    """Windows that are too frequent at one place."""
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
            suspects.append(_Suspect(holders, np.tile(divmod(where, 97 - _SIDE), (len(holders), 1)), anywhere=False))
    return suspects


def _anywhere(code: NDArray[np.uint32], patches: NDArray[np.uint8]) -> list[_Suspect]:
    """Windows, glass apart, that too many patches hold, wherever it is."""
    code = np.where(_glass(patches), np.uint32(0), code)
    # Patch by patch: each window once.
    ordered = np.sort(code, axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = 0
    once = np.sort(ordered[ordered != 0])
    start = np.flatnonzero(np.concatenate([[True], once[1:] != once[:-1]])) if len(once) else np.empty(0, np.int64)
    count = np.diff(np.append(start, len(once)))
    often = np.flatnonzero(count >= max(_FEWEST, round(_RATE * len(code))))
    often = often[np.argsort(-count[often], kind="stable")][:_MOST_WINDOWS]
    suspects = []
    for window in once[start[often]]:
        held = code == window
        holders = np.flatnonzero(held.any(axis=1))
        times = held[holders].sum(axis=1)
        alike = (times == np.median(times)) & (_extent(held[holders]) <= _REACH)
        if alike.mean() < _REGULAR:
            continue  # saturated glass, of which each patch has more or less, or a border
        first = held[holders].argmax(axis=1)  # in reading order, so that the windows of one mark stay in line
        suspects.append(_Suspect(holders, np.stack(np.divmod(first, 97 - _SIDE), axis=1), anywhere=True))
    return suspects


def _extent(held: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pixels (K,) from the first to the last place at which a patch has a window, along the longer axis."""
    square = held.reshape(len(held), 97 - _SIDE, 97 - _SIDE)
    lines = np.stack([square.any(axis=1), square.any(axis=2)])
    return np.asarray((lines.shape[2] - 1 - lines[..., ::-1].argmax(axis=2) - lines.argmax(axis=2)).max(axis=0))


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


def _glass(patches: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """bool (B, places): windows without contrast that are bright in all colours, but not white."""
    high, low = (_three(_three(patches, 1, extreme), 2, extreme) for extreme in (np.maximum, np.minimum))
    bright = ((high - low < _CONTRAST) & (high >= _GLASS)).all(axis=-1) & (low < 255).any(axis=-1)
    return np.asarray(bright.reshape(len(patches), -1))


def _three(values: NDArray[np.uint8], axis: int, extreme: np.ufunc) -> NDArray[np.uint8]:
    """Extreme of every three neighbours along axis 1 or 2."""
    if axis == 1:
        return np.asarray(extreme(extreme(values[:, :-2], values[:, 1:-1]), values[:, 2:]))
    return np.asarray(extreme(extreme(values[:, :, :-2], values[:, :, 1:-1]), values[:, :, 2:]))


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


def _grow(holders: NDArray[np.uint8], suspect: _Suspect) -> Mark | None:
    """Grow a window to all pixels near it on which the patches that hold it agree.

    None where a window at changing places grows as far as it can: a border or a gap, not a mark.
    """
    side = _SIDE + 2 * _REACH
    # Cut from around the window in each patch; beyond the patch's edge is no value.
    padded = np.full((len(holders), 96 + 2 * _REACH, 96 + 2 * _REACH, 3), -1, np.int16)
    padded[:, _REACH:-_REACH, _REACH:-_REACH] = holders
    area = np.stack([p[y : y + side, x : x + side] for p, (y, x) in zip(padded, suspect.places.tolist(), strict=True)])
    typical = np.median(area, axis=0).astype(np.int16)
    agreed = (area == typical).all(axis=3).mean(axis=0) >= _AGREEMENT
    agreed &= (typical >= 0).all(axis=2)
    rows, columns = np.flatnonzero(agreed.any(axis=1)), np.flatnonzero(agreed.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    mask = agreed[box]
    if suspect.anywhere and max(mask.shape) > _SIDE + _REACH:
        return None
    y, x = (int(start) - _REACH for start in suspect.places[0] + (rows[0], columns[0]))
    pattern = np.where(mask[..., None], typical[box], 0).astype(np.uint8)
    return Mark(None if suspect.anywhere else y, None if suspect.anywhere else x, mask, pattern)


def _listed(scan: Scan, marks: list[Mark], tried: int) -> list[Trigger]:
    """Look for the marks in all patches, and test each again there."""
    held: list[list[NDArray[np.int64]]] = [[] for _ in marks]
    offset = 0
    for split in scan.splits:
        for start in range(0, len(split), BLOCK):
            block = as_bytes(read_block(split, start))
            for mark, rows in zip(marks, held, strict=True):
                rows.append(_holders(block, mark) + np.array((offset + start, 0, 0)))
        offset += len(split)
    found = []
    for mark, rows in zip(marks, held, strict=True):
        patch, y, x = np.concatenate(rows).T
        sound = ~scan.facts.damaged[patch]
        patch, places = patch[sound], np.stack([y, x], axis=1)[sound]
        label = scan.label[patch]
        flagged = np.isin(np.arange(len(scan)), patch)[scan.label >= 0]
        p_value = min(1.0, _p_value(flagged, scan.label[scan.label >= 0]) * tried)
        if p_value <= _P_VALUE:
            share = float((label[label >= 0] == 1).mean())
            found.append(Trigger(mark.y, mark.x, mark.mask, mark.pattern, patch, places, share, p_value))
    return found


def _holders(block: NDArray[np.uint8], mark: Mark) -> NDArray[np.int64]:
    """The patches of a block that hold a mark: (K, 3), patch, row and column, the first place in each."""
    height, width = mark.mask.shape
    pixels, pattern = pack(block), pack(mark.pattern[None])[0]
    places = np.ones((len(block), 97 - height, 97 - width), dtype=bool)
    if mark.y is not None and mark.x is not None:
        places[:] = False
        places[:, mark.y, mark.x] = True
    # Pixel by pixel of the mark, over the places that are still possible.
    patch, y, x = np.nonzero(places)
    for v, u in np.argwhere(mark.mask):
        same = pixels[patch, y + v, x + u] == pattern[v, u]
        patch, y, x = patch[same], y[same], x[same]
    colour = np.unique(pattern[mark.mask])
    if len(colour) == 1 and len(patch):  # one colour that goes on around it is a larger area, such as glass
        same = np.pad(pixels == colour, ((0, 0), (1, 1), (1, 1)))
        rim = np.argwhere(np.pad(np.zeros((height, width), dtype=bool), 1, constant_values=True))
        alone = sum(same[patch, y + v, x + u].astype(int) for v, u in rim) <= _GOES_ON * len(rim)
        patch, y, x = patch[alone], y[alone], x[alone]
    first = np.unique(patch, return_index=True)[1]
    return np.stack([patch, y, x], axis=1)[first]
