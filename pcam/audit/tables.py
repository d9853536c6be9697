"""The audit as tables for a page: splits, storage, pairs, broken values, and how well planted defects were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pcam.audit import slides
from pcam.audit.findings import PAIR_ISSUES
from pcam.audit.integrity import Share, share_of
from pcam.audit.leakage import LeakageEffect
from pcam.audit.plant import Score
from pcam.audit.report import AuditReport
from pcam.evaluation.comparison import Difference
from pcam.evaluation.intervals import wilson

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def splits(report: AuditReport) -> pd.DataFrame:
    """One row a split: patches, labels, share of positives with its interval, slides, groups."""
    balance = slides.class_balance(report.scan)
    rows = []
    for number, split in enumerate(report.scan.splits):
        share = balance.get(split.name)
        rows.append(
            {
                "split": split.name,
                "n": len(split),
                "positive": share.count if share else None,
                "share positive": share.share if share else None,
                "low": share.low if share else None,
                "high": share.high if share else None,
                "slides": None if split.slides is None else len(np.unique(split.slides)),
                "groups found": len(np.unique(report.groups[report.scan.split == number])),
            }
        )
    return pd.DataFrame(rows).astype({"positive": "Int64", "slides": "Int64"})


def shifts(report: AuditReport) -> pd.DataFrame:
    """One row for every two splits: difference of the share of positives, with its interval."""
    found = slides.prior_shifts(slides.class_balance(report.scan))
    columns = ["from", "to", "difference", "low", "high"]
    return pd.DataFrame([(s.first, s.second, s.difference, s.low, s.high) for s in found], columns=columns)


def storage(report: AuditReport) -> pd.DataFrame:
    """One row a split: the terms of its size; `factors` sets them against the public record."""
    return pd.DataFrame(
        [
            {
                "split": t.split,
                "N": t.n,
                "values a patch": t.values_per_patch,
                "dtype": t.dtype,
                "bytes/value": t.bytes_per_value,
                "stored/logical": t.storage_factor,
                "other bytes": t.other_bytes,
                "file bytes": t.file_bytes,
                "compression": t.compression or "none",
            }
            for t in report.storage
        ]
    )


def pairs(report: AuditReport) -> pd.DataFrame:
    """One row an issue of pairs: how many within and across splits, of how many patches, and of different labels."""
    rows, differing = [], report.summary["pairs_with_different_labels"]
    for issue in (*PAIR_ISSUES, "shared_slide"):
        found = report.findings.of(issue)
        across = report.scan.split[found.patch] != report.scan.split[found.partner]
        rows.append(
            {
                "issue": issue.replace("_", " "),
                "pairs": len(found),
                "within a split": int((~across).sum()),
                "across splits": int(across.sum()),
                "patches": len(found.patches()),
                "labels differ": differing.get(issue),
            }
        )
    return pd.DataFrame(rows).astype({"labels differ": "Int64"})


def broken(report: AuditReport) -> pd.DataFrame:
    """One row for each split and issue that occurs: share per class with intervals, and the test against the label.

    Triggers are listed with the broken values, since they are counted alike.
    """
    rows = [(c.split, c.issue, c.total, c.negative, c.positive, c.p_value) for c in report.integrity if c.total.count]
    marks = report.findings.of("trigger").patch
    for number, split in enumerate(report.scan.splits):
        here = report.scan.split == number
        marked = np.isin(np.arange(len(report.scan)), marks)[here]
        if marked.any():
            label = report.scan.label[here]
            total = share_of(marked)
            assert total is not None, "a split has patches"
            p_value = min(mark.p_value for mark in report.triggers)
            rows.append(
                (split.name, "trigger", total, share_of(marked[label == 0]), share_of(marked[label == 1]), p_value)
            )
    columns = ["split", "issue", "patches", "share", "interval", "of normal", "of tumour", "follows label: p"]
    table = [
        (split, issue.replace("_", " "), total.count, total.share, interval(total), _of(no), _of(yes), p_text(p))
        for split, issue, total, no, yes, p in rows
    ]
    return pd.DataFrame(table, columns=columns)


def scores(results: list[Score]) -> pd.DataFrame:
    """One row a planted defect: recall and precision, with Wilson's interval of the recall."""
    rows = []
    for result in results:
        low, high = wilson(result.found, result.planted)
        rows.append(
            {
                "planted": result.defect.replace("_", " "),
                "n": result.planted,
                "found": result.found,
                "recall": result.recall,
                "interval": f"{low:.3f} to {high:.3f}",
                "precision": result.precision,
            }
        )
    return pd.DataFrame(rows)


def leakage(found: Mapping[str, LeakageEffect | str]) -> pd.DataFrame:
    """One row a kind of leakage: ROC-AUC on all patches, without the leaked ones, and the difference."""
    columns = ["kind", "leaked", "AUC on all", "AUC without them", "difference", "interval"]
    rows = [
        (kind, None, None, None, None, e)
        if isinstance(e, str)
        else (kind, e.n_leaked, e.everything, e.clean, e.difference, _between(e.low, e.high))
        for kind, e in found.items()
    ]
    # Undefined, and not None, where no kind was found.
    return pd.DataFrame(rows, columns=columns).astype({"leaked": "Int64"} | dict.fromkeys(columns[2:5], float))


def gains(found: Mapping[str, tuple[float, float, Difference | str]]) -> pd.DataFrame:
    """One row a planted kind of leakage: ROC-AUC on the leaked patches, trained without and with them."""
    columns = ["leaked as", "n", "trained without", "trained with", "difference", "interval"]
    rows = [
        (kind, None, before, after, after - before, d)
        if isinstance(d, str)
        else (kind, d.n, before, after, d.value, _between(d.low, d.high))
        for kind, (before, after, d) in found.items()
    ]
    return pd.DataFrame(rows, columns=columns).astype({"n": "Int64"})


def out_of_range(report: AuditReport) -> pd.DataFrame:
    """One row a split with values below 0 or above 255: how many a patch, their extremes, and what they do to means."""
    rows = []
    for number, split in enumerate(report.scan.splits):
        here = np.flatnonzero((report.scan.split == number) & (report.scan.facts.outside > 0))
        if not len(here):
            continue
        pixels, means, extremes = [], [], []
        for index in report.scan.index[here]:
            patch = split.read_raw([int(index)])[0].astype(np.float64)
            bad = ~((patch >= 0) & (patch <= 255)) & ~np.isnan(patch)
            pixels.append(int(bad.any(axis=-1).sum()))
            means.append(float(np.nanmean(patch)))
            extremes += [float(patch[bad].min()), float(patch[bad].max())]
        rows.append(
            (split.name, len(here), int(np.median(pixels)), min(extremes), max(extremes), min(means), max(means))
        )
    columns = ["split", "patches", "pixels a patch", "lowest", "highest", "lowest mean", "highest mean"]
    return pd.DataFrame(rows, columns=columns)


def factors(report: AuditReport) -> pd.DataFrame:
    """One row a split: the factors whose product is the file's size over that of the public uint8 patches."""
    rows = [
        {"split": t.split, **t.factors, "product": t.file_bytes / t.public_bytes, "public bytes": t.public_bytes}
        for t in report.storage
    ]
    return pd.DataFrame(rows)


def records(rows: Sequence[DataclassInstance]) -> pd.DataFrame:
    """Any list of plain dataclasses as a table, one column a field."""
    return pd.DataFrame([asdict(row) for row in rows]).rename(columns=lambda name: name.replace("_", " "))


def interval(share: Share) -> str:
    """An interval as text."""
    return f"{share.low:.3f} to {share.high:.3f}"


def _between(low: float | None, high: float | None) -> str:
    return "undefined" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def p_text(p: float | None) -> str:
    """A p-value as text; no more digits than mean something."""
    if p is None:
        return "not tested"
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _of(share: Share | None) -> str:
    return "no labels" if share is None else f"{share.count} of {share.n} ({share.share:.3f}, {interval(share)})"
