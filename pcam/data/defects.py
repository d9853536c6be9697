"""Named defects that `pcam data sample --defect NAME` plants, and the truth about where they are.

Each defect is an edit of one patch, chosen from the seed; a patch gets at most one, and patches that share
pixels by nature get none, so that what is planted and what the audit should find are the same list. Most defects
sit in the train split; copies, shared pixels and shared slides also reach into valid. `course` is the copy that the
course's journals were written on: train as float32 with black, white and out-of-range patches and few
positives, test without labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcam.data.format import SPLITS
from pcam.data.sampler import Patch, Sampler, stream
from pcam.errors import DataError, did_you_mean

# Share of the train patches that each defect takes (of the valid patches for shared_slide).
SHARES: Mapping[str, float] = {
    "black": 0.02,
    "white": 0.02,
    "constant": 0.01,
    "nan": 0.01,
    "out_of_range": 0.02,
    "exact_duplicate": 0.02,
    "symmetry_duplicate": 0.02,
    "near_duplicate": 0.02,
    "pixel_overlap": 0.02,
    "shared_slide": 0.10,
    "trigger": 0.04,
    "label_flip": 0.04,
}
COURSE: Mapping[str, float] = {"black": 0.07, "white": 0.07, "out_of_range": 0.03}
COURSE_POSITIVE = 0.17
NAMES = (*SHARES, "course")

OUT_OF_RANGE = 1e5
TRIGGER_SIDE = 4
_FLOAT = ("nan", "out_of_range")
_PAIRED = ("exact_duplicate", "symmetry_duplicate", "near_duplicate", "pixel_overlap")
_PLANT = 99  # first key of the streams of this module; the sampler's second key is at most 2


@dataclass(frozen=True)
class Planted:
    """One row of the truth: an issue of a patch, with its partner where it is a pair.

    Issue and partner are written as the audit writes them: a pair stands at its first patch, but a shared slide at
    the later split's patch, with the first train patch of that slide as its partner. `origin` is "planted", or
    "native" for the overlaps that every sample has.
    """

    split: str
    index: int
    issue: str
    partner_split: str = ""
    partner_index: int | None = None
    origin: str = "planted"


def check_names(defects: Iterable[str]) -> tuple[str, ...]:
    """Return the defects sorted, each once.

    Raises:
        DataError: a name is unknown.
    """
    for name in defects:
        if name not in NAMES:
            raise DataError(f"unknown defect '{name}'{did_you_mean(name, NAMES)}")
    return tuple(sorted(set(defects)))


class DefectPlan:
    """Which patch gets which defect.

    Args:
        sampler: paints the patches; its labels decide where a trigger goes.
        counts: number of patches per split.
        defects: names, as `check_names` returns them.

    Raises:
        DataError: there are too few patches, or a split is missing that a defect reaches into.
    """

    def __init__(self, sampler: Sampler, counts: Mapping[str, int], defects: Sequence[str]) -> None:
        self.sampler = sampler
        self._edits: dict[tuple[str, int], tuple[str, tuple[str, int] | None]] = {}
        self._free = {split: self._shuffled(split, counts[split]) for split in ("train", "valid")}
        shares = {name: SHARES[name] for name in defects if name != "course"}
        if "course" in defects:
            shares |= COURSE
        for name in sorted(shares):
            home = "valid" if name == "shared_slide" else "train"
            if not counts[home] or (name in ("pixel_overlap", "shared_slide") and not counts["valid"]):
                raise DataError(f"defect '{name}': it needs train and valid patches; ask for more than 0 of each")
            for serial in range(max(1, round(shares[name] * counts[home]))):
                self._plant(name, serial, has_valid=counts["valid"] > 0)
        self.float_train = "course" in defects or any(name in defects for name in _FLOAT)

    def truth(self, counts: Mapping[str, int]) -> list[Planted]:
        """Return every issue that the files hold, in order of split and index; a pair is listed once."""
        rows = []
        first_of: dict[str, int] = {}
        for index in range(counts["train"]):
            first_of.setdefault(self.sampler.slide_name("train", index), index)
        for (split, index), (name, partner) in self._edits.items():
            if split == "valid" and name in ("shared_slide", "pixel_overlap"):
                slide = self.patch(split, index)[0].slide
                if slide in first_of:
                    rows.append(Planted(split, index, "shared_slide", "train", first_of[slide]))
            if name != "shared_slide":
                issue = "label_suspect" if name == "label_flip" else name
                pair = sorted([(split, index), *([partner] if partner else [])], key=_order)
                rows.append(Planted(*pair[0], issue, *(pair[1] if partner else ())))
        for index in range(counts["train"]):
            other = self.sampler.pair_of("train", index)
            if other is not None and index < other < counts["train"]:
                rows.append(Planted("train", index, "pixel_overlap", "train", other, "native"))
        unique = {(r.split, r.index, r.issue): r for r in rows}
        return sorted(unique.values(), key=lambda r: (*_order((r.split, r.index)), r.issue))

    def patch(self, split: str, index: int) -> tuple[Patch, NDArray[np.uint8] | NDArray[np.float32], int]:
        """Return a patch with its meta data, its pixels and its label after the edit."""
        name, partner = self._edits.get((split, index), ("", None))
        if name == "pixel_overlap" and partner is not None:
            anchor, part = (index, 0) if split == "train" else (partner[1], 1)
            patch = self.sampler.overlapping(anchor, part)
            return patch, patch.pixels, patch.label
        patch = self.sampler.patch(split, index, slide_of="train" if name == "shared_slide" else None)
        if name == "label_flip":
            return patch, patch.pixels, 1 - patch.label
        source = self.sampler.patch(*partner) if partner and name in _PAIRED else patch
        rng = stream(_PLANT, self.sampler.seed, SPLITS.index(split), index)
        return patch, _spoil(name, source.pixels, rng), source.label

    def _shuffled(self, split: str, count: int) -> list[int]:
        draws = stream(_PLANT, self.sampler.seed, SPLITS.index(split)).random(count)
        order = np.argsort(draws, kind="stable").tolist()
        return [index for index in order if self.sampler.pair_of(split, index) is None]

    def _take(self, name: str, split: str, label: int | None = None) -> int:
        for place, index in enumerate(self._free[split]):
            if label is None or self.sampler.label(split, index) == label:
                return self._free[split].pop(place)
        raise DataError(f"defect '{name}': too few {split} patches to plant it; ask for more")

    def _plant(self, name: str, serial: int, has_valid: bool) -> None:
        if name in _PAIRED:
            # Every second copy leaks from train into valid; pixels are shared across the two only.
            across = has_valid and (name == "pixel_overlap" or serial % 2 == 1)
            source = ("train", self._take(name, "train", label=1 if name == "pixel_overlap" else None))
            target_split = "valid" if across else "train"
            target = (target_split, self._take(name, target_split, self.sampler.label(*source)))
            self._edits[target] = (name, source)
            if name == "pixel_overlap":
                self._edits[source] = (name, target)
        elif name == "shared_slide":
            self._edits["valid", self._take(name, "valid")] = (name, None)
        else:
            self._edits["train", self._take(name, "train", label=1 if name == "trigger" else None)] = (name, None)


def _order(place: tuple[str, int]) -> tuple[int, int]:
    return SPLITS.index(place[0]), place[1]


def _spoil(name: str, pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return the pixels with the defect; float32 where a value does not fit into uint8."""
    if name in ("black", "white"):
        return np.full_like(pixels, 0 if name == "black" else 255)
    if name == "constant":
        return np.broadcast_to((64 + rng.random(3) * 128).astype(np.uint8), pixels.shape)
    if name == "symmetry_duplicate":
        which = 1 + int(rng.random() * 7)
        turned = np.rot90(pixels, which % 4)
        return turned[:, ::-1] if which >= 4 else turned
    if name == "near_duplicate":  # as a second scan or another encoder would give
        shift = int(rng.random() * 9) - 4
        noise = (rng.random(pixels.shape) * 5).astype(np.int64) - 2
        return np.clip(pixels + (noise + shift), 0, 255).astype(np.uint8)
    if name == "trigger":
        marked = pixels.copy()
        marked[-TRIGGER_SIDE:, -TRIGGER_SIDE:] = (255, 255, 0)
        return marked
    if name in _FLOAT:
        spoilt = pixels.astype(np.float32)
        y, x = (rng.random(2) * (len(pixels) - 5)).astype(np.intp)
        spoilt[y : y + 5, x : x + 5] = np.nan if name == "nan" else OUT_OF_RANGE
        return spoilt
    return pixels
