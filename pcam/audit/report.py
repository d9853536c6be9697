"""`audit`: run every check on a data folder and write findings.csv, groups.csv, overlaps.csv and summary.json."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcam import storage
from pcam.audit import duplicates, integrity, labels, near, overlap, slides, trigger
from pcam.audit import storage as terms
from pcam.audit.findings import ISSUES, Findings, collect, groups, with_copies, without
from pcam.audit.scan import Scan, scan
from pcam.audit.summary import summarise
from pcam.data.format import SPLITS, available_splits
from pcam.errors import DataError, did_you_mean

_LOG = logging.getLogger(__name__)
_EDITED = 0.9  # share of the anchors that a patch of which little was painted over keeps


@dataclass(frozen=True, eq=False)
class AuditReport:
    """What an audit found.

    Attributes:
        scan: the facts of every patch; patches are numbered through all splits.
        findings: the rows of findings.csv.
        overlaps: the pairs that share pixels, with their shift.
        symmetries: int64 (P, 3): first, second, and which of `symmetry.SYMMETRIES` turns one into the other.
        triggers: the marks that follow a label.
        groups: int64 (N,), sets of patches that must stay in one split.
        integrity: counts per split and issue.
        storage: the terms of each file's size.
        summary: what summary.json holds.
    """

    scan: Scan
    findings: Findings
    overlaps: overlap.Overlaps
    symmetries: NDArray[np.int64]
    triggers: list[trigger.Trigger]
    groups: NDArray[np.int64]
    integrity: list[integrity.IssueCount]
    storage: list[terms.StorageTerms]
    summary: dict[str, Any]

    @property
    def n_findings(self) -> int:
        """Number of findings, and of patches with fractions; label suspects are candidates and do not count."""
        suspects = len(self.findings.of("label_suspect"))
        return len(self.findings) - suspects + int((self.scan.facts.fractional > 0).sum())

    @property
    def obstacle(self) -> str:
        """Why no network can be trained and judged on these data; empty where one can."""
        splits = {split.name: split for split in self.scan.splits}
        reasons = [f"there is no {name} split" for name in SPLITS if name not in splits]
        reasons += [f"the {name} split has no labels" for name, split in splits.items() if split.labels is None]
        facts = self.scan.facts
        refused = int(((facts.nan > 0) | (facts.outside > 0) | (facts.fractional > 0)).sum())
        reasons += [f"{refused} patches hold values that training refuses"] if refused else []
        return ", and ".join(reasons)

    def __str__(self) -> str:
        counts = {issue: len(self.findings.of(issue)) for issue in ISSUES}
        lines = [f"{issue:<20}{count:>8,}" for issue, count in counts.items()]
        across = self.summary["patches_tied_to_another_split"]
        lines += [f"{name}: {count:,} patches are tied to another split" for name, count in across.items()]
        for issue, count in self.summary["pairs_with_different_labels"].items():
            if count:
                lines.append(f"{issue}: in {count:,} pairs the two labels differ, so one of them is in doubt")
        for number, split in enumerate(self.scan.splits):
            fractions = self.scan.facts.fractional[self.scan.split == number] > 0
            if fractions.any():
                lines.append(
                    f"{split.name}: {fractions.sum():,} of {len(split):,} patches hold fractions, the first at index "
                    f"{fractions.argmax()}; they were searched as rounded: bring the values back to integers in 0..255"
                )
        return "\n".join(lines)


def audit(
    directory: Path | str,
    out: Path | str,
    splits: Sequence[str] | None = None,
    *,
    suspects: str = "colour",
    progress: bool = False,
) -> AuditReport:
    """Audit a data folder and write what was found.

    Writes OUT/findings.csv (columns split, index, issue, score, partner_split, partner_index), OUT/overlaps.csv
    (the shift of each pair that shares pixels), OUT/groups.csv (sets of patches that must stay in one split) and
    OUT/summary.json. The score is the share of broken values for `nan` and `out_of_range`; the correlation of low
    frequencies for `near_duplicate`; the share of common pixels for `pixel_overlap`; the share of the other split's
    patches on the slide for `shared_slide`; the suspicion for `label_suspect`; otherwise 1. A pair has one row, in the
    first of: exact, symmetry, overlap, near. Black, white and constant patches are in no pair.

    Args:
        directory: the data folder.
        out: the folder to write into.
        splits: names of splits; None: all that are there.
        suspects: how label suspects are ranked: "colour", "texture", "auto" or "none"; see `pcam.audit.labels`.
        progress: show a bar while the patches are read.

    Raises:
        DataError: no such folder, split or way to rank, or a file breaks the contract otherwise than by its values.
        StorageError: the results cannot be written.
    """
    start = time.perf_counter()
    there = available_splits(directory)
    for name in splits or ():
        if name not in there:
            raise DataError(f"{directory}: no split '{name}' to audit{did_you_mean(name, there)}")
    storage.check_folder(Path(out))
    patches = scan(directory, [name for name in there if splits is None or name in splits], progress=progress)
    suspects = labels.choose(patches, suspects)
    scanned = time.perf_counter()
    _LOG.info("audit: %s patches read in %.0f s; looking for copies and shared pixels", len(patches), scanned - start)
    unique = duplicates.representatives(patches)
    digest = patches.facts.digest
    exact = duplicates.exact(patches)
    symmetric, relation = duplicates.symmetric(patches)
    shared_pixels = overlap.find(patches.anchors.take(unique[patches.anchors.patch]), len(patches))
    same_place = (shared_pixels.dy == 0) & (shared_pixels.dx == 0)
    # Equal but for a few pixels: a near duplicate, not a neighbour. With less in common it is a collage of another.
    edited = shared_pixels.take(same_place & (shared_pixels.agreement >= _EDITED))
    shared_pixels = shared_pixels.take(~same_place & without(shared_pixels.pairs, symmetric))
    close, correlation = near.find(patches.facts.spectrum, unique)
    new = without(close, symmetric, shared_pixels.pairs, edited.pairs)
    close = np.concatenate([close[new], edited.pairs])
    closeness = np.concatenate([correlation[new], edited.agreement])
    close, row, _ = with_copies(close, digest)
    closeness = closeness[row]
    shared_pixels = shared_pixels.with_copies(digest)
    overlapping, share = shared_pixels.pairs, shared_pixels.shared
    slide_pairs, slide_share = slides.shared(patches)

    _LOG.info("audit: %s pairs; looking for triggers", len(exact) + len(symmetric) + len(close) + len(overlapping))
    linked = groups(len(patches), exact, symmetric, close, overlapping)
    triggers = trigger.find(patches, linked)
    _LOG.info("audit: %s triggers; ranking label suspects by %s", len(triggers), suspects)
    slide = slides.slide_codes(patches)
    apart = linked if slide is None else groups(len(patches), exact, symmetric, close, overlapping, together=slide)
    suspicious, suspicion = labels.find(patches, apart, suspects)

    found = integrity.find(patches.facts)
    marked = np.unique(np.concatenate([t.patches for t in triggers])) if triggers else np.empty(0, np.int64)
    rows = collect(
        [
            *((issue, *found[issue]) for issue in integrity.ISSUES),
            ("exact_duplicate", exact, np.ones(len(exact))),
            ("symmetry_duplicate", symmetric, np.ones(len(symmetric))),
            ("near_duplicate", close, closeness),
            ("pixel_overlap", overlapping, share),
            ("shared_slide", slide_pairs, slide_share),
            ("trigger", marked, np.ones(len(marked))),
            ("label_suspect", suspicious, suspicion),
        ]
    )
    report = AuditReport(
        scan=patches,
        findings=rows,
        overlaps=shared_pixels,
        symmetries=np.column_stack([symmetric, relation]),
        triggers=triggers,
        groups=apart,
        integrity=_integrity(patches, found),
        storage=[terms.explain(split) for split in patches.splits],
        summary={},
    )
    seconds = {"scan": scanned - start, "search": time.perf_counter() - scanned}
    report.summary.update(summarise(report, directory, seconds) | {"suspects_ranked_by": suspects})
    _write(report, storage.make_folder(Path(out)))  # made last: an audit that was refused or stopped leaves nothing
    return report


def _integrity(
    patches: Scan, found: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]
) -> list[integrity.IssueCount]:
    counts = []
    for number, split in enumerate(patches.splits):
        here = patches.split == number
        for issue in integrity.ISSUES:
            flagged = np.zeros(len(patches), dtype=bool)
            flagged[found[issue][0]] = True
            counts.append(integrity.count(split.name, issue, flagged[here], patches.label[here]))
    return counts


def _write(report: AuditReport, out: Path) -> None:
    patches = report.scan
    report.findings.write(out / "findings.csv", patches)
    lines = ["split,index,partner_split,partner_index,dy,dx,agreement"]
    found = report.overlaps
    for (a, b), dy, dx, agreement in zip(found.pairs, found.dy, found.dx, found.agreement, strict=True):
        place = f"{patches.name(a)},{patches.index[a]},{patches.name(b)},{patches.index[b]}"
        lines.append(f"{place},{dy},{dx},{agreement:.6g}")
    storage.write_text(out / "overlaps.csv", "\n".join(lines) + "\n")
    lines = ["split,index,group"]
    lines += [f"{patches.name(i)},{patches.index[i]},{group}" for i, group in enumerate(report.groups.tolist())]
    storage.write_text(out / "groups.csv", "\n".join(lines) + "\n")
    storage.write_json(out / "summary.json", report.summary)
