"""Cross-validation: what k folds would tear apart, with and without groups, and what they would cost.

Folds drawn by patch put the two halves of a pair on both sides and so measure memory; folds drawn by group do not.
The cost is a multiple of a run's measured time, since each fold trains anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcam.audit.findings import PAIR_ISSUES
from pcam.audit.report import AuditReport
from pcam.evaluation.intervals import SeedSummary, t_interval
from pcam.training.runs import Run


@dataclass(frozen=True)
class Folds:
    """One way to cut the pooled patches into k folds.

    Attributes:
        kind: "by patch" or "by group".
        k: number of folds.
        smallest: patches in the smallest fold.
        largest: patches in the largest fold.
        lowest_share: lowest share of positives of a fold.
        highest_share: highest.
        torn: pairs (copies, near copies, shared pixels) that lie in two folds.
        pairs: all such pairs.
    """

    kind: str
    k: int
    smallest: int
    largest: int
    lowest_share: float
    highest_share: float
    torn: int
    pairs: int


def compare(report: AuditReport, k: int = 5, seed: int = 0) -> list[Folds]:
    """Cut all labelled patches into k folds, by patch and by group, and count the pairs that each tears.

    Args:
        report: the audit; its groups are the units.
        k: number of folds.
        seed: seed of the folds.

    Returns:
        the two cuts; none where fewer than k groups, or fewer than k patches of either class, have labels.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    known = np.flatnonzero(report.scan.label >= 0)
    label, group = report.scan.label[known], report.groups[known]
    if min(np.bincount(label, minlength=2)) < k or len(np.unique(group)) < k:
        return []
    found = report.findings.of(*PAIR_ISSUES)
    pairs = np.stack([found.patch, found.partner], axis=1)
    pairs = pairs[np.isin(pairs, known).all(axis=1)]
    cuts = {
        "by patch": StratifiedKFold(k, shuffle=True, random_state=seed).split(label, label),
        "by group": StratifiedGroupKFold(k, shuffle=True, random_state=seed).split(label, label, group),
    }
    result = []
    for kind, cut in cuts.items():
        fold = np.empty(len(report.scan), dtype=np.int64)
        for number, (_, held_out) in enumerate(cut):
            fold[known[held_out]] = number
        result.append(
            _describe(kind, k, fold[known], label, int((fold[pairs[:, 0]] != fold[pairs[:, 1]]).sum()), len(pairs))
        )
    return result


def _describe(kind: str, k: int, fold: NDArray[np.int64], label: NDArray[np.int8], torn: int, pairs: int) -> Folds:
    sizes = np.bincount(fold, minlength=k)
    share = np.bincount(fold, weights=label, minlength=k) / sizes
    return Folds(kind, k, int(sizes.min()), int(sizes.max()), float(share.min()), float(share.max()), torn, pairs)


def trainings(k: int, inner: int = 1, trials: int = 1) -> int:
    """Number of trainings: k for plain k-fold; k × (inner × trials + 1) where each fold tunes on inner folds."""
    return k if trials == 1 else k * (inner * trials + 1)


def narrowed(width: float, units: int, all_units: int) -> float:
    """Return the width of an interval if all units were judged instead of some: it goes with 1/√units."""
    return width * math.sqrt(units / all_units)


def run_seconds(runs: Sequence[Run]) -> SeedSummary:
    """Return the geometric mean of the seconds that runs took, with its interval, from their own records.

    Times are positive and spread by factors: the t interval is taken over their logarithms, or a few uneven runs
    would give it a negative end.

    Raises:
        DataError: fewer than two runs.
    """
    logs = t_interval([math.log(sum(row["seconds"] for row in run.epochs)) for run in runs])
    return SeedSummary(math.exp(logs.mean), math.exp(logs.sd), math.exp(logs.low), math.exp(logs.high), logs.n)
