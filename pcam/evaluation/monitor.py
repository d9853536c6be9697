"""A monitor for a deployed model: it needs no labels, since in use there are none until it is too late.

It compares a window of new patches with a reference (valid): the distribution of the scores and that of each input
feature, by the two-sample Kolmogorov-Smirnov distance, the largest of which must stay below one limit. Slides differ
from each other without anything being wrong, so the limit comes from windows of one half of the reference's slides
against the other half; a limit from shuffled patches would raise the alarm at nearly every new slide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pcam.errors import DataError

SCORE = "score"


@dataclass(frozen=True)
class Check:
    """What the monitor says of one window.

    Attributes:
        quantity: the score or input feature that differs most.
        distance: its Kolmogorov-Smirnov distance, 0 to 1.
        limit: largest distance that raises no alarm.
    """

    quantity: str
    distance: float
    limit: float

    @property
    def alarm(self) -> bool:
        """Whether the limit is exceeded."""
        return self.distance > self.limit


@dataclass(frozen=True, eq=False)
class Monitor:
    """Reference values and the limit; make one with `fit_monitor`.

    Attributes:
        names: the Q quantities watched.
        reference: float64 (N, Q), each column sorted.
        limit: largest distance that raises no alarm.
        window: number of patches that the limit is meant for.
        false_alarm: share of clean windows of the reference that exceed the limit, by construction at most.
        low, high: float64 (Q,), the range of each quantity in the reference, stretched by a tenth at both ends.
    """

    names: tuple[str, ...]
    reference: np.ndarray
    limit: float
    window: int
    false_alarm: float
    low: np.ndarray
    high: np.ndarray

    def check(self, values: np.ndarray) -> Check:
        """Compare a window (W, Q) of new patches with the reference.

        Raises:
            DataError: the window is empty or has other columns.
        """
        if values.ndim != 2 or values.shape[1] != len(self.names) or len(values) == 0:
            raise DataError(f"a window needs rows of {len(self.names)} values ({', '.join(self.names)})")
        distances = ks_distances(self.reference, values)
        worst = int(np.argmax(distances))
        return Check(self.names[worst], float(distances[worst]), self.limit)

    def outliers(self, values: np.ndarray) -> np.ndarray:
        """Tell which single patches (W, Q) lie outside anything in the reference, bool (W,)."""
        return np.any((values < self.low) | (values > self.high), axis=1)

    def alarm_rate(self, values: np.ndarray, windows: int = 100, seed: int = 0) -> float:
        """Share of random windows of these patches (N, Q) that raise the alarm."""
        rng = np.random.default_rng(seed)
        size = min(self.window, len(values))
        return float(np.mean([self.check(values[rng.permutation(len(values))[:size]]).alarm for _ in range(windows)]))


def watched(score: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Put the scores (N,) and the input features (N, F) side by side, as a monitor wants them: float64 (N, 1 + F)."""
    return np.column_stack([score, features])


def fit_monitor(
    values: np.ndarray,
    feature_names: Sequence[str],
    groups: np.ndarray | None = None,
    *,
    window: int = 64,
    false_alarm: float = 0.01,
    simulations: int = 500,
    seed: int = 0,
) -> Monitor:
    """Make a monitor from reference patches.

    Args:
        values: float64 (N, 1 + F), from `watched`.
        feature_names: names of the F features.
        groups: (N,), slide or overlap group of each patch; None: patches are taken as independent.
        window: number of patches that will be checked at a time.
        false_alarm: share of clean windows that may raise the alarm.
        simulations: number of clean windows drawn to set the limit.
        seed: seed of the draws.

    Raises:
        DataError: fewer than two groups (or patches), so that there are no two halves to compare.
    """
    units = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_units = int(units.max()) + 1 if len(units) else 0
    if n_units < 2:
        raise DataError(f"a monitor needs a reference of at least two slides or patches, found {n_units}")
    rng = np.random.default_rng(seed)
    worst = np.empty(simulations)
    for simulation in range(simulations):
        first_half = np.isin(units, rng.permutation(n_units)[: n_units // 2])
        reference, fresh = np.sort(values[first_half], axis=0), values[~first_half]
        worst[simulation] = ks_distances(reference, fresh[rng.permutation(len(fresh))[:window]]).max()
    low, high = values.min(axis=0), values.max(axis=0)
    stretch = 0.1 * (high - low)
    return Monitor(
        (SCORE, *feature_names),
        np.sort(values, axis=0),
        float(np.quantile(worst, 1 - false_alarm)),
        window,
        false_alarm,
        low - stretch,
        high + stretch,
    )


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
