"""Slides and classes: slides that two splits share, and how the share of positives differs between splits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcam.audit.integrity import Share, share_of
from pcam.audit.scan import Scan


@dataclass(frozen=True)
class PriorShift:
    """Difference of the share of positives between two splits, with Newcombe's 95 % interval.

    Attributes:
        first: name of a split.
        second: name of the other.
        difference: share in `second` minus share in `first`.
        low: lower end of the interval.
        high: upper end.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float


def shared(scan: Scan) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return pairs (P, 2) for patches of a slide that an earlier split holds too, and the scores (P,).

    The first of a pair is the first patch of that slide in the earlier split, the second the patch that is
    therefore not independent of it. The score is the share of the earlier split's patches on that slide.
    """
    pairs: list[NDArray[np.int64]] = []
    scores: list[NDArray[np.float64]] = []
    first_of: dict[str, tuple[int, float]] = {}
    offset = 0
    for split in scan.splits:
        n = len(split)
        if split.slides is not None:
            names, start, inverse, counts = np.unique(
                split.slides, return_index=True, return_inverse=True, return_counts=True
            )
            for slide, (name, where, count) in enumerate(zip(names.tolist(), start, counts, strict=True)):
                if name in first_of:
                    patches = np.flatnonzero(inverse == slide) + offset
                    pairs.append(np.stack([np.full(len(patches), first_of[name][0]), patches], axis=1))
                    scores.append(np.full(len(patches), first_of[name][1]))
                else:
                    first_of[name] = (int(where) + offset, float(count / n))
        offset += n
    if not pairs:
        return np.empty((0, 2), np.int64), np.empty(0)
    return np.concatenate(pairs), np.concatenate(scores)


def slide_codes(scan: Scan) -> NDArray[np.int64] | None:
    """Number the slides through all splits, (N,); -1 where a split names none; None where no split does."""
    if all(split.slides is None for split in scan.splits):
        return None
    names = [
        np.array([""] * len(split)) if split.slides is None else split.slides.astype(np.str_) for split in scan.splits
    ]
    joined = np.concatenate(names)
    codes = np.unique(joined, return_inverse=True)[1].astype(np.int64)
    codes[joined == ""] = -1
    return codes


def class_balance(scan: Scan) -> dict[str, Share]:
    """Return the share of positives of each split that has labels."""
    balance = {}
    for number, split in enumerate(scan.splits):
        label = scan.label[scan.split == number]
        share = share_of(label[label >= 0] == 1)
        if share:
            balance[split.name] = share
    return balance


def prior_shifts(balance: dict[str, Share]) -> list[PriorShift]:
    """Compare the share of positives of every two splits.

    The interval combines the two Wilson intervals (Newcombe 1998, Statistics in Medicine 17:873, method 10).
    """
    names = list(balance)
    shifts = []
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            a, b = balance[first], balance[second]
            difference = b.share - a.share
            low = difference - float(np.hypot(b.share - b.low, a.high - a.share))
            high = difference + float(np.hypot(b.high - b.share, a.share - a.low))
            shifts.append(PriorShift(first, second, difference, low, high))
    return shifts
