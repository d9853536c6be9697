"""What a search gained: the mean ROC-AUC of one configuration's runs less that of another's, twice uncertain.

Other patches would give another difference, and so would other seeds of the training. The bootstrap over patches knows
nothing of seeds, and with few seeds the interval over seeds is wide; a gain is claimed only where both are clear
of zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pcam.evaluation.comparison import Difference, paired_bootstrap
from pcam.evaluation.intervals import SeedSummary, t_interval
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.ranking import area


@dataclass(frozen=True)
class Gain:
    """Difference of two configurations in mean ROC-AUC.

    Attributes:
        patches: with the interval over patches or groups of them, the runs being fixed.
        seeds: with the interval over training seeds, the patches being fixed.
    """

    patches: Difference
    seeds: SeedSummary

    @property
    def intervals(self) -> dict[str, dict[str, Any]]:
        """Value, low, high, n and method of the interval over patches and of that over seeds."""
        patches = {name: getattr(self.patches, name) for name in ("value", "low", "high", "n", "method")}
        n = self.seeds.n
        seeds = {"value": self.seeds.mean, "low": self.seeds.low, "high": self.seeds.high, "n": n}
        return {"patches": patches, "seeds": seeds | {"method": f"Student's t over {n} seeds, paired"}}

    @property
    def verdict(self) -> str:
        """What the two intervals together say."""
        if self.patches.low == self.patches.high == 0:  # as where both searches end with the same configuration
            return "no difference"
        low, high = (self.patches.low, self.seeds.low), (self.patches.high, self.seeds.high)
        if min(low) > 0:
            return "a gain"
        return "a loss" if max(high) < 0 else "no evidence of a gain"


def search_gain(
    first: list[Predictions],
    second: list[Predictions],
    groups: np.ndarray | None = None,
    *,
    group_kind: str = "group",
    bootstrap: int = 1000,
) -> Gain:
    """Compare two configurations that were trained with the same seeds and scored on the same patches.

    Args:
        first: predictions of one configuration, one per seed.
        second: those of the other, in the same order of seeds.
        groups: (N,), slide or overlap group of each patch; whole groups are then resampled.
        group_kind: what a group is.
        bootstrap: number of resamples.

    Raises:
        DataError: the predictions are not about the same patches, no interval can be made, or there is one seed only.
    """
    patches = paired_bootstrap(first, second, groups, group_kind=group_kind, bootstrap=bootstrap)
    by_seed = [area(a.labels, a.score) - area(b.labels, b.score) for a, b in zip(first, second, strict=True)]
    return Gain(patches, t_interval(by_seed))
