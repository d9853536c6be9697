"""Intervals: how far a figure could have come out otherwise.

Patches of one slide resemble one another, so resampling patches makes intervals that are far too narrow; where the
data say which slide (or which overlap group) a patch belongs to, whole groups are left out or resampled. Proportions
get Wilson's interval, over groups with as many trials as the groups are worth; other figures of up to MOST_LEFT_OUT
groups the jackknife, of more the bootstrap; a handful of seeds Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pcam.errors import DataError

LEVEL = 0.95
# A block of resamples is sized to stay in the processor's cache: about a megabyte of float64.
_BLOCK_ELEMENTS = 1 << 17
# Beyond it leaving each unit out costs more than resampling does, and few units are what the jackknife is for.
MOST_LEFT_OUT = 500


@dataclass(frozen=True)
class SeedSummary:
    """Mean, sample standard deviation and t interval of the mean over n runs."""

    mean: float
    sd: float
    low: float
    high: float
    n: int


def t_interval(values: np.ndarray | list[float], level: float = LEVEL) -> SeedSummary:
    """Mean over runs with Student's t interval (Student 1908, Biometrika 6:1).

    Args:
        values: (n,), one figure per run, n ≥ 2.
        level: confidence level.

    Raises:
        DataError: fewer than two values, or one that is not finite.
    """
    from scipy.stats import t

    array = np.asarray(values, dtype=np.float64)
    if array.size < 2 or not np.isfinite(array).all():
        raise DataError(f"a mean over runs needs at least two finite values, found {array.tolist()}; train more seeds")
    mean, sd, n = float(array.mean()), float(array.std(ddof=1)), array.size
    half = float(t.ppf(0.5 + level / 2, n - 1)) * sd / math.sqrt(n)
    return SeedSummary(mean, sd, mean - half, mean + half, n)


def wilson(successes: float, n: float, level: float = LEVEL, *, freedom: float = math.inf) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927, JASA 22:209); it holds at 0 and 1, where the normal one collapses.

    Args:
        successes: number of successes, 0 ≤ successes ≤ n.
        n: number of independent trials, n > 0.
        level: confidence level.
        freedom: degrees of freedom where the spread of the proportion is itself estimated.

    Returns:
        (low, high).
    """
    from scipy.special import ndtri, stdtrit

    upper = 0.5 + level / 2
    z = float(ndtri(upper) if math.isinf(freedom) else stdtrit(freedom, upper))
    successes, n = float(successes), float(n)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def grouped_wilson(successes: np.ndarray, trials: np.ndarray, level: float = LEVEL) -> tuple[float, float] | None:
    """Wilson's interval of a proportion over groups whose trials are alike, with as many trials as they are worth.

    A proportion p whose variance over groups is v says as much as p (1 - p) / v independent trials (Korn and Graubard
    1998, Survey Methodology 24:193; with Wilson's interval: Franco et al. 2019, J. Surv. Stat. Methodol. 7:334), here
    never more than there are. v is the jackknife's, with its degrees of freedom as in `jackknife`. Where every trial
    comes out the same, v says nothing: each group is then one trial.

    Args:
        successes: (G,), of each group.
        trials: (G,), of each group; groups without any are left aside.
        level: confidence level.

    Returns:
        (low, high), or None where fewer than two groups have trials.
    """
    successes, trials = successes[trials > 0], trials[trials > 0]
    groups, hits, n = len(trials), float(successes.sum()), float(trials.sum())
    if groups < 2:
        return None
    share = hits / n
    if share in (0.0, 1.0):
        return wilson(share * groups, groups, level)
    pseudo = groups * share - (groups - 1) * (hits - successes) / (n - trials)
    error, freedom = _error_of_mean(pseudo)
    worth = min(n, share * (1 - share) / error**2) if error else n
    return wilson(share * worth, worth, level, freedom=freedom)


def percentile(resampled: np.ndarray, n_units: int, level: float = LEVEL) -> tuple[float, float] | None:
    """Expanded percentile interval of a bootstrapped figure (Hesterberg 2015, American Statistician 69:371).

    The plain percentile interval (Efron 1979) is too narrow by a factor √((n-1)/n) and by normal for Student
    quantiles. With 54 slides that costs two points of coverage, with 5 slides a dozen; taking the percentiles
    at Φ(∓√(n/(n-1)) t) mends both.

    Args:
        resampled: (R,), NaN where a resample left the figure undefined (for instance with one class only).
        n_units: number of units that were resampled, at least 2.
        level: confidence level.

    Returns:
        (low, high), or None where over 5 % of the resamples are undefined: the rest would then be a biased choice.
    """
    from scipy.special import ndtr, stdtrit

    defined = resampled[np.isfinite(resampled)]
    if len(defined) < 0.95 * len(resampled):
        return None
    tail = ndtr(math.sqrt(n_units / (n_units - 1)) * stdtrit(n_units - 1, 0.5 - level / 2))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def jackknife(
    value: float, left_out: np.ndarray, *, bounded: bool = True, level: float = LEVEL
) -> tuple[float, float] | None:
    """Student's t over the pseudo-values of a figure on the logit scale (Tukey 1958, Ann. Math. Stat. 29:614).

    A ROC-AUC near 1 is skewed over few slides, so its percentile interval lies too low and is too narrow; on the logit
    scale (Pepe 2003, The Statistical Evaluation of Medical Tests, 5.2) it is nearly symmetric. The mean of the
    pseudo-values takes off the bias of order 1/n. Where a few units carry most of the spread, the spread is itself
    badly known: the degrees of freedom match its variance (Satterthwaite 1946, Biometrics Bulletin 2:110), which with
    kurtosis k is σ⁴(k - (n-3)/(n-1))/n. A normal k of 3 gives n-1, and more than that is never taken.

    Args:
        value: the figure of all units.
        left_out: (n,), the figure without each of the n units in turn, n ≥ 2.
        bounded: whether the figure ends at 1; if not, it is taken on the log scale.
        level: confidence level.

    Returns:
        (low, high), widened to hold the value where the bias would push it out, or None where the scale has no place
        for the figure or one of `left_out` (NaN, at most 0, at least 1 if bounded) or where they do not differ.
    """
    from scipy.special import expit, logit, stdtrit

    every = np.append(left_out, value)
    if not (np.isfinite(every).all() and every.min() > 0 and (every.max() < 1 or not bounded)) or not np.ptp(every):
        return None
    n = len(left_out)
    scaled = logit(every) if bounded else np.log(every)
    pseudo = n * scaled[-1] - (n - 1) * scaled[:-1]
    error, freedom = _error_of_mean(pseudo)
    if not error:
        return None
    half = float(stdtrit(freedom, 0.5 + level / 2)) * error
    back = expit if bounded else np.exp
    low, high = float(back(pseudo.mean() - half)), float(back(pseudo.mean() + half))
    return min(low, value), max(high, value)


def _error_of_mean(values: np.ndarray) -> tuple[float, float]:
    """Standard error of the mean of (n,) values, n ≥ 2, and its degrees of freedom; see `jackknife`."""
    n, square = len(values), (values - values.mean()) ** 2
    if not square.any():
        return 0.0, n - 1
    kurtosis = float((square**2).mean() / square.mean() ** 2)
    return math.sqrt(square.sum() / (n * (n - 1))), min(n - 1, 2 * n / (kurtosis - (n - 3) / (n - 1)))


def leave_one_out(n_units: int, width: int | None = None) -> Iterator[np.ndarray]:
    """Yield blocks of multiplicities that leave out each of n_units in turn: int64 (R, n_units), R adding up to it.

    Args:
        n_units: number of units (patches, or groups of patches).
        width: as in `resample_counts`.
    """
    rows = max(1, _BLOCK_ELEMENTS // max(n_units, width or 0))
    for start in range(0, n_units, rows):
        counts = np.ones((min(rows, n_units - start), n_units), dtype=np.int64)
        counts[np.arange(len(counts)), start + np.arange(len(counts))] = 0
        yield counts


def resample_counts(n_units: int, resamples: int, seed: int, width: int | None = None) -> Iterator[np.ndarray]:
    """Yield blocks of bootstrap multiplicities: how often each unit is drawn when n_units are drawn with replacement.

    Args:
        n_units: number of units (patches, or groups of patches).
        resamples: number of resamples in all.
        seed: seed of the draw; the same seed gives the same resamples whatever the metric.
        width: elements per resample in what the caller builds from a block, if more than n_units; sizes the blocks.

    Yields:
        int64 (R, n_units) blocks whose R add up to `resamples`.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK_ELEMENTS // max(n_units, width or 0))
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(0, n_units, size=(size, n_units))
        drawn += np.arange(size)[:, None] * n_units
        yield np.bincount(drawn.ravel(), minlength=size * n_units).reshape(size, n_units)
