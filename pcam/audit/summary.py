"""The audit in numbers: what summary.json holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcam.audit import slides
from pcam.audit.findings import ISSUES, PAIR_ISSUES, contradictions, tied_to
from pcam.data.format import data_kind

if TYPE_CHECKING:
    from pcam.audit.report import AuditReport


def summarise(report: AuditReport, directory: Path | str, seconds: dict[str, float]) -> dict[str, Any]:
    """Return the audit's numbers as plain values, ready for JSON.

    Args:
        report: the audit.
        directory: the data folder.
        seconds: how long its steps took.
    """
    patches, rows = report.scan, report.findings
    names = [split.name for split in patches.splits]
    balance = slides.class_balance(patches)
    sizes = np.bincount(report.groups)
    fractional = patches.facts.fractional > 0
    return {
        "data_kind": data_kind(directory),
        "splits": {
            name: {"n": len(split), "fractional": int(fractional[patches.split == k].sum())}
            for k, (name, split) in enumerate(zip(names, patches.splits, strict=True))
        },
        "findings": {issue: len(rows.of(issue)) for issue in ISSUES},
        "storage": {
            terms.split: {**asdict(terms), "factors": terms.factors, "public_bytes": terms.public_bytes}
            for terms in report.storage
        },
        "integrity": [asdict(count) for count in report.integrity],
        "pairs": {issue: _by_splits(report, issue) for issue in (*PAIR_ISSUES, "shared_slide")},
        "pairs_with_different_labels": contradictions(patches, rows),
        "class_balance": {name: asdict(share) for name, share in balance.items()},
        "prior_shift": [asdict(shift) for shift in slides.prior_shifts(balance)],
        "triggers": [
            {
                "y": mark.y,
                "x": mark.x,
                "height": mark.mask.shape[0],
                "width": mark.mask.shape[1],
                "patches": len(mark.patches),
                "positive_share": mark.positive_share,
                "p_value": mark.p_value,
            }
            for mark in report.triggers
        ],
        "groups": {"count": len(sizes), "largest": int(sizes.max()), "of_several": int((sizes > 1).sum())},
        "patches_tied_to_another_split": {name: int(tied_to(patches, rows, name).sum()) for name in names},
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def _by_splits(report: AuditReport, issue: str) -> dict[str, int]:
    """Count an issue's pairs by the splits that they are in: "train", or "train-test" across two."""
    names = [split.name for split in report.scan.splits]
    found = report.findings.of(issue)
    sides = np.sort(report.scan.split[np.stack([found.patch, found.partner], axis=1)], axis=1)
    kinds, counts = np.unique(sides, axis=0, return_counts=True)
    return {
        names[a] if a == b else f"{names[a]}-{names[b]}": int(count)
        for (a, b), count in zip(kinds.tolist(), counts.tolist(), strict=True)
    }
