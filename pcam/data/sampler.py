"""Which synthetic patch stands at (split, index): its slide, its label, its tumour and its place on the slide.

Patch i is a pure function of (seed, split, i): it does not depend on how many patches are asked for, on their
order or on the machine. Labels are drawn in blocks of 16, so that every split is balanced as in PCam. In the
train split half of the blocks hold two positive patches cut from one region, 16 or 32 pixels apart, since
PCam's patches lie on a 16-pixel grid and overlap too. No slide serves two splits. Three in ten negative
patches hold tumour outside the central 32×32: hard negatives, which PCam's label rule calls 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pcam.data.format import PATCH_SHAPE, SPLITS
from pcam.data.nuclei import Field, uniform
from pcam.data.stain import Slide, draw_slide
from pcam.data.tissue import CENTRE, paint, tumour_field

SLIDES = {"train": 24, "valid": 12, "test": 12}
BLOCK = 16
GRID = 16  # pixels between the places at which patches are cut
PAIR_SIDE = PATCH_SHAPE[0] + 2 * GRID
HARD_NEGATIVES = 0.3

_SIDE = PATCH_SHAPE[0]
_FIRST = (_SIDE - CENTRE) // 2
_PITCH = 16 * GRID  # pixels between regions of a slide, more than any region's side
_REGIONS_PER_ROW = 128
# What a random stream is for; part of its key, so that no two uses share one.
_SLIDE, _BLOCK, _REGION, _OVERLAP = range(4)


@dataclass(frozen=True)
class Patch:
    """One patch and its row of the meta file.

    Attributes:
        pixels: uint8 (96, 96, 3), RGB.
        label: 1 where tumour touches the central 32×32, else 0.
        tumour: whether there is tumour anywhere in it.
        slide: the name of its slide.
        y: top edge on the slide, in pixels of the patch's magnification.
        x: left edge, likewise.
    """

    pixels: NDArray[np.uint8]
    label: int
    tumour: bool
    slide: str
    y: int
    x: int


@dataclass(frozen=True)
class _Place:
    """Where a patch is cut: the region's serial number, and the cut (y, x) of this patch and of its pair."""

    serial: int
    cuts: tuple[tuple[int, int], ...]
    own: int


def stream(*key: int) -> np.random.Generator:
    """Return the random stream of a key; streams of different keys are independent."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


class Sampler:
    """The synthetic slides of one seed.

    Args:
        seed: 0 or more.
        positive: share of positive patches per split; one half where a split is not named.
    """

    def __init__(self, seed: int, positive: Mapping[str, float] | None = None) -> None:
        self.seed = seed
        self.positive = dict.fromkeys(SPLITS, 0.5) | dict(positive or {})

    def label(self, split: str, index: int) -> int:
        """Return the label of a patch without painting it."""
        return int(index % BLOCK in self._positives(split, index // BLOCK))

    def pair_of(self, split: str, index: int) -> int | None:
        """Return the index of the patch that shares pixels with this one, if there is one."""
        block, member = divmod(index, BLOCK)
        pair = self._pair(split, block)
        return block * BLOCK + pair[1 - pair.index(member)] if member in pair else None

    def slide_name(self, split: str, index: int) -> str:
        """Return the name of a patch's slide."""
        return _slide_name(split, self._slide_number(split, self._place(split, index).serial))

    def patch(self, split: str, index: int, slide_of: str | None = None) -> Patch:
        """Paint a patch.

        Args:
            split: "train", "valid" or "test".
            index: 0 or more.
            slide_of: take the slide from this split instead, as a faulty partition would.
        """
        place = self._place(split, index)
        rng = stream(self.seed, SPLITS.index(split), _REGION, place.serial)
        return self._cut(rng, slide_of or split, place, bool(self.label(split, index)))

    def overlapping(self, index: int, part: int) -> Patch:
        """Paint one of two positive patches that share pixels, on the slide of train patch `index`.

        Args:
            index: of a train patch; each gives another region.
            part: 0 or 1, which of the two.
        """
        rng = stream(self.seed, SPLITS.index("train"), _OVERLAP, index)
        return self._cut(rng, "train", _Place(self._place("train", index).serial, _draw_cuts(rng), part), True)

    def _positives(self, split: str, block: int) -> tuple[int, ...]:
        """Return the positive members of a block; their running number keeps to the split's share."""
        share = self.positive[split]
        count = int((block + 1) * BLOCK * share + 1e-9) - int(block * BLOCK * share + 1e-9)
        order = np.argsort(stream(self.seed, SPLITS.index(split), _BLOCK, block).random(BLOCK), kind="stable")
        return tuple(order[:count].tolist())

    def _pair(self, split: str, block: int) -> tuple[int, ...]:
        positives = self._positives(split, block)
        return positives[:2] if split == "train" and block % 2 == 0 and len(positives) > 1 else ()

    def _place(self, split: str, index: int) -> _Place:
        block, member = divmod(index, BLOCK)
        pair = self._pair(split, block)
        if member not in pair:
            return _Place(index, ((0, 0),), 0)
        serial = block * BLOCK + pair[0]
        cuts = _draw_cuts(stream(self.seed, SPLITS.index(split), _BLOCK, block, serial))
        return _Place(serial, cuts, pair.index(member))

    def _slide_number(self, split: str, serial: int) -> int:
        return int(stream(self.seed, SPLITS.index(split), _SLIDE, serial, 1).random() * SLIDES[split])

    def _cut(self, rng: np.random.Generator, slide_split: str, place: _Place, positive: bool) -> Patch:
        number = self._slide_number(slide_split, place.serial)
        side = _SIDE if len(place.cuts) == 1 else PAIR_SIDE
        tumour: Field | None = None
        if positive or uniform(rng, 0, 1) < HARD_NEGATIVES:
            tumour = tumour_field(rng, side, [(y + _FIRST, x + _FIRST) for y, x in place.cuts], touch=positive)
        region = paint(rng, side, _slide(self.seed, slide_split, number), tumour)
        y, x = place.cuts[place.own]
        mask = np.zeros((side, side), bool) if tumour is None else tumour > 0
        mask = mask[y : y + _SIDE, x : x + _SIDE]
        row, column = divmod(place.serial, _REGIONS_PER_ROW)
        return Patch(
            pixels=region[y : y + _SIDE, x : x + _SIDE],
            label=int(mask[_FIRST : _FIRST + CENTRE, _FIRST : _FIRST + CENTRE].any()),
            tumour=bool(mask.any()),
            slide=_slide_name(slide_split, number),
            y=row * _PITCH + y,
            x=column * _PITCH + x,
        )


def _draw_cuts(rng: np.random.Generator) -> tuple[tuple[int, int], ...]:
    first, second = np.argsort(rng.random(9), kind="stable")[:2].tolist()
    return tuple((GRID * (k // 3), GRID * (k % 3)) for k in (first, second))


def _slide_name(split: str, number: int) -> str:
    return f"synthetic_{split}_{number:03d}"


@lru_cache(maxsize=256)
def _slide(seed: int, split: str, number: int) -> Slide:
    return draw_slide(stream(seed, SPLITS.index(split), _SLIDE, number, 0))
