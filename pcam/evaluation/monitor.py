"""A monitor for a deployed model: it needs no labels, since in use there are none until it is too late.

It compares a window of new patches with a reference (valid): the distribution of the scores, of each input feature
and of the share of colours never seen before, by the two-sample Kolmogorov-Smirnov distance. Slides differ from each
other without anything being wrong, and in some features more than in others; so each quantity has a limit of its own,
from windows of one half of the reference's slides against the other half. Limits from shuffled patches would raise
the alarm at nearly every new slide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pcam.data.format import Split
from pcam.errors import DataError
from pcam.evaluation.features import FEATURE_NAMES, patch_features
from pcam.evaluation.intervals import wilson

QUANTITIES = ("score", *FEATURE_NAMES, "foreign colour")
_BINS = 16**3


@dataclass(frozen=True)
class Check:
    """What the monitor says of one window.

    Attributes:
        quantity: the one that differs most, relative to its limit.
        distance: its Kolmogorov-Smirnov distance, 0 to 1.
        limit: its largest distance that raises no alarm.
    """

    quantity: str
    distance: float
    limit: float

    @property
    def alarm(self) -> bool:
        """Whether the limit is exceeded."""
        return self.distance > self.limit


@dataclass(frozen=True)
class AlarmRate:
    """Share of windows that raise the alarm.

    Attributes:
        value: the share.
        low, high: 95 % interval, Wilson's for n windows.
        n: number of windows that share no patch; more that are drawn at random make the share smoother, not surer.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, eq=False)
class Monitor:
    """Reference values and the limit; make one with `fit_monitor`.

    Attributes:
        reference: float64 (N, Q), each column sorted.
        limits: float64 (Q,), for each quantity the largest distance that raises no alarm.
        window: number of patches that the limits are meant for.
        low, high: float64 (Q,), the range of each quantity in the reference, stretched by a tenth at both ends.
    """

    reference: np.ndarray
    limits: np.ndarray
    window: int
    low: np.ndarray
    high: np.ndarray

    def check(self, values: np.ndarray) -> Check:
        """Compare a window (W, Q) of new patches with the reference.

        Raises:
            DataError: the window is empty or has other columns.
        """
        if values.ndim != 2 or values.shape[1] != self.reference.shape[1] or len(values) == 0:
            raise DataError(f"a window needs rows of {self.reference.shape[1]} values, as 'watch_patches' gives them")
        distances = ks_distances(self.reference, values)
        worst = int(np.argmax(distances / self.limits))
        return Check(QUANTITIES[worst], float(distances[worst]), float(self.limits[worst]))

    def outliers(self, values: np.ndarray) -> np.ndarray:
        """Tell which single patches (W, Q) lie outside anything in the reference, bool (W,)."""
        return ~np.all((values >= self.low) & (values <= self.high), axis=1)  # a NaN is outside

    def false_alarms(self, values: np.ndarray, groups: np.ndarray | None = None, windows: int = 200) -> AlarmRate:
        """Share of windows with an alarm among clean patches (N, Q) that the limits do not come from.

        Args:
            values: from `watch_split`.
            groups: (N,), slide of each patch; the slides of each window are then drawn anew, with replacement.
            windows: number of windows to draw.

        Raises:
            DataError: fewer patches than a window needs.
        """
        if len(values) < self.window:
            raise DataError(f"false alarms need at least one window of {self.window} patches, found {len(values)}")
        units = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
        members = [np.flatnonzero(units == unit) for unit in range(int(units.max()) + 1)]
        rng = np.random.default_rng(0)
        alarms = 0
        for _ in range(windows):
            drawn = np.concatenate([members[unit] for unit in rng.integers(len(members), size=len(members))])
            alarms += self.check(values[rng.choice(drawn, self.window)]).alarm
        n = len(values) // self.window
        return AlarmRate(alarms / windows, *wilson(alarms / windows * n, n), n)

    def alarms_by_slide(self, values: np.ndarray, slide: np.ndarray) -> AlarmRate:
        """Share of slides (N,) whose patches (N, Q), up to a window of them, raise the alarm by themselves."""
        slides = np.unique(slide)
        alarms = sum(self.check(values[slide == one][: self.window]).alarm for one in slides)
        return AlarmRate(alarms / len(slides), *wilson(alarms, len(slides)), len(slides))

    def alarm_rate(self, values: np.ndarray, windows: int = 100, seed: int = 0) -> float:
        """Share of random windows of these patches (N, Q) that raise the alarm."""
        rng = np.random.default_rng(seed)
        size = min(self.window, len(values))
        return float(np.mean([self.check(values[rng.permutation(len(values))[:size]]).alarm for _ in range(windows)]))


def known_colours(split: Split, least: float = 1e-5, batch: int = 512) -> np.ndarray:
    """Collect the colours of a split: bool (4096,), which of 16×16×16 bins hold at least a share `least` of pixels."""
    counts = np.zeros(_BINS, dtype=np.int64)
    for start in range(0, len(split), batch):
        counts += np.bincount(_colour_bins(split.read(slice(start, start + batch))).ravel(), minlength=_BINS)
    return counts >= least * counts.sum()


def watch_patches(score: np.ndarray, patches: np.ndarray, known: np.ndarray) -> np.ndarray:
    """What the monitor watches of some patches.

    Args:
        score: (N,), from the model.
        patches: uint8 (N, 96, 96, 3).
        known: from `known_colours` of train. Not of the reference itself: it would hold no foreign colour at all,
            and every new slide would look strange beside it.

    Returns:
        float64 (N, Q), columns as in `QUANTITIES`; the last is the share of pixels of a colour that is not known.
    """
    foreign = ~known[_colour_bins(patches)]
    return np.column_stack([score, patch_features(patches), foreign.reshape(len(patches), -1).mean(axis=1)])


def watch_split(score: np.ndarray, split: Split, known: np.ndarray, batch: int = 512) -> np.ndarray:
    """`watch_patches` of a whole split, read in batches; float64 (N, Q)."""
    blocks = [slice(start, start + batch) for start in range(0, len(split), batch)]
    return np.concatenate([watch_patches(score[block], split.read(block), known) for block in blocks])


def _colour_bins(patches: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(patches >> 4, -1, 0).astype(np.int64)
    return red << 8 | green << 4 | blue


def fit_monitor(
    values: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    window: int = 64,
    false_alarm: float = 0.01,
    simulations: int = 500,
    seed: int = 0,
) -> Monitor:
    """Make a monitor from reference patches.

    Args:
        values: float64 (N, Q), from `watch_split`.
        groups: (N,), slide or overlap group of each patch; None: patches are taken as independent.
        window: number of patches that will be checked at a time.
        false_alarm: share of clean windows that may raise the alarm.
        simulations: number of clean windows drawn to set the limits.
        seed: seed of the draws.

    Raises:
        DataError: fewer than two groups (or patches), so that there are no two halves to compare.
    """
    units = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_units = int(units.max()) + 1 if len(units) else 0
    if n_units < 2:
        raise DataError(f"a monitor needs a reference of at least two slides or patches, found {n_units}")
    rng = np.random.default_rng(seed)
    clean = np.empty((simulations, values.shape[1]))
    for simulation in range(simulations):
        first_half = np.isin(units, rng.permutation(n_units)[: n_units // 2])
        reference, fresh = np.sort(values[first_half], axis=0), values[~first_half]
        clean[simulation] = ks_distances(reference, fresh[rng.permutation(len(fresh))[:window]])
    # Each quantity is measured by its own usual distance; one factor for all then keeps the joint rate of alarms.
    usual = np.maximum(np.median(clean, axis=0), 1 / window)
    factor = np.quantile((clean / usual).max(axis=1), 1 - false_alarm)
    low, high = values.min(axis=0), values.max(axis=0)
    stretch = 0.1 * (high - low)
    return Monitor(np.sort(values, axis=0), factor * usual, window, low - stretch, high + stretch)


def ks_distances(reference: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Two-sample Kolmogorov-Smirnov distance of each column (Smirnov 1948, Annals of Mathematical Statistics 19:279).

    Args:
        reference: (N, Q), columns sorted.
        window: (W, Q).

    Returns:
        float64 (Q,): largest difference of the two empirical distribution functions.
    """
    distances = np.empty(window.shape[1])
    for column in range(window.shape[1]):
        known, fresh = reference[:, column], np.sort(window[:, column])
        both = np.concatenate([known, fresh])
        share_known = np.searchsorted(known, both, side="right") / len(known)
        share_fresh = np.searchsorted(fresh, both, side="right") / len(fresh)
        distances[column] = np.abs(share_known - share_fresh).max()
    return distances
