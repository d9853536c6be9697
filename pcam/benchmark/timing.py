"""How a rate is measured: warm-up apart, several repeats, the median of them, and the spread of single batches.

The first batches pay for page faults, caches, thread pools and compiled kernels, and are left out. A mean over all
batches would follow the slowest; the median of repeats does not, and the percentiles show what it hides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Budget:
    """How long one figure may take.

    Attributes:
        seconds: measured time per repeat.
        repeats: number of repeats.
        warmup: batches before the clock starts.
        least: batches per repeat, however long they take.
    """

    seconds: float
    repeats: int = 3
    warmup: int = 3
    least: int = 3


FAST = Budget(seconds=0.03, warmup=1, least=1)
FULL = Budget(seconds=0.3, repeats=5, warmup=2, least=2)


@dataclass(frozen=True, eq=False)
class Timing:
    """Seconds of single batches, repeat by repeat.

    Attributes:
        images: images per batch.
        repeats: one array (batches,) of seconds per repeat.
        peak_bytes: the process's (or the GPU's) highest memory while they ran.
    """

    images: int
    repeats: tuple[NDArray[np.float64], ...]
    peak_bytes: int

    @property
    def images_per_second(self) -> float:
        """Median over repeats of images / seconds."""
        return float(np.median([self.images * len(r) / r.sum() for r in self.repeats]))

    def percentile_ms(self, percent: float) -> float:
        """Percentile of the milliseconds of a batch, over all repeats."""
        return float(np.percentile(np.concatenate(self.repeats), percent) * 1e3)


def measure(step: Callable[[], object], images: int, budget: Budget, peak: Callable[[], int]) -> Timing:
    """Time a step that handles one batch.

    Args:
        step: one batch; it must not return before its work is done (a GPU has to be synchronised in it).
        images: images per batch.
        budget: how long to measure.
        peak: returns the highest memory so far; see `memory.peak_of`.
    """
    for _ in range(budget.warmup):
        step()
    repeats = []
    for _ in range(budget.repeats):
        seconds: list[float] = []
        while len(seconds) < budget.least or sum(seconds) < budget.seconds:
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        repeats.append(np.array(seconds))
    return Timing(images, tuple(repeats), peak())
