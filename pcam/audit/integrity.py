"""Broken values: black, white, constant, NaN and out-of-range patches, and whether they follow the label.

Damage that is spread evenly costs patches; damage that follows the label is a feature that a model learns. So each
kind is counted per class, with Wilson's interval, and its independence from the label is tested exactly (Fisher 1922).

Black is a patch of which every value is 0, white one of 255 throughout; any other single colour, 1 or 254 too, is
constant. A patch that varies at all, as glass with the sensor's noise does, is none of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcam.audit.scan import Facts
from pcam.evaluation.intervals import wilson

ISSUES = ("black", "white", "constant", "nan", "out_of_range")


@dataclass(frozen=True)
class Share:
    """How many of n patches have an issue, with a 95 % interval of the share."""

    count: int
    n: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """count / n."""
        return self.count / self.n


@dataclass(frozen=True)
class IssueCount:
    """One issue in one split.

    Attributes:
        split: name of the split.
        issue: name of the issue.
        total: all patches.
        negative: patches with label 0, or None where there is none or labels are not known.
        positive: patches with label 1, likewise.
        p_value: of Fisher's exact test that issue and label are independent; None where it says nothing.
    """

    split: str
    issue: str
    total: Share
    negative: Share | None
    positive: Share | None
    p_value: float | None


def find(facts: Facts) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Return for each issue the patches that have it, and a score: the share of values that are broken."""
    plain = facts.constant & ~facts.black & ~facts.white
    found = {"black": facts.black, "white": facts.white, "constant": plain, "nan": facts.nan > 0}
    found["out_of_range"] = facts.outside > 0
    score = {"nan": facts.nan, "out_of_range": facts.outside}
    result = {}
    for issue in ISSUES:
        patches = np.flatnonzero(found[issue])
        values = score[issue][patches] if issue in score else np.ones(len(patches))
        result[issue] = (patches, values.astype(np.float64))
    return result


def count(split: str, issue: str, flagged: NDArray[np.bool_], label: NDArray[np.int8]) -> IssueCount:
    """Count an issue per class.

    Args:
        split: name of the split.
        issue: name of the issue.
        flagged: bool (N,), which patches have it.
        label: int8 (N,), 0 or 1, or -1 where the label is not known.
    """
    shares = [share_of(flagged[label == value]) for value in (0, 1)]
    p_value = None
    if flagged.any() and not flagged.all() and all(shares):
        from scipy.stats import fisher_exact

        table = [[int((flagged & (label == v)).sum()), int((~flagged & (label == v)).sum())] for v in (0, 1)]
        p_value = float(fisher_exact(table).pvalue)
    total = share_of(flagged)
    assert total is not None, "the data contract refuses empty splits"
    return IssueCount(split, issue, total, shares[0], shares[1], p_value)


def share_of(flagged: NDArray[np.bool_]) -> Share | None:
    """Count a mask; None where it is empty, since a share of nothing is undefined."""
    n, hits = len(flagged), int(flagged.sum())
    return Share(hits, n, *wilson(hits, n)) if n else None
