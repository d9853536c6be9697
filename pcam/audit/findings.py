"""The list of what was found: one row an issue of a patch, or of a pair of patches, and the groups it implies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcam import storage
from pcam.audit import slides
from pcam.audit.scan import Scan

ISSUES = (
    "black",
    "white",
    "constant",
    "nan",
    "out_of_range",
    "exact_duplicate",
    "symmetry_duplicate",
    "near_duplicate",
    "pixel_overlap",
    "shared_slide",
    "trigger",
    "label_suspect",
)
PAIR_ISSUES = ("exact_duplicate", "symmetry_duplicate", "near_duplicate", "pixel_overlap")
COPY_ISSUES = PAIR_ISSUES[:3]  # the same tissue at the same place: the label should be the same too
COLUMNS = ("split", "index", "issue", "score", "partner_split", "partner_index")
_MOST_COPIES = 32


@dataclass(frozen=True, eq=False)
class Findings:
    """Rows of findings by patch number, in order of issue and patch.

    Attributes:
        issue: int (M,), position in `ISSUES`.
        patch: int64 (M,), number of the patch.
        partner: int64 (M,), number of the other patch of a pair, else -1.
        score: float64 (M,); see `pcam.audit.audit`.
    """

    issue: NDArray[np.int64]
    patch: NDArray[np.int64]
    partner: NDArray[np.int64]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.issue)

    def of(self, *issues: str) -> Findings:
        """The rows of the named issues."""
        keep = np.isin(self.issue, [ISSUES.index(issue) for issue in issues])
        return Findings(self.issue[keep], self.patch[keep], self.partner[keep], self.score[keep])

    def patches(self) -> NDArray[np.int64]:
        """The patches (K,) that some row names, as patch or as partner, each once."""
        named = np.concatenate([self.patch, self.partner])
        return np.unique(named[named >= 0])

    def write(self, path: Path, scan: Scan) -> None:
        """Write the rows as CSV, atomically.

        Raises:
            StorageError: the file cannot be written.
        """
        names = [split.name for split in scan.splits]
        with storage.atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(",".join(COLUMNS) + "\n")
            for issue, patch, partner, score in zip(
                self.issue.tolist(), self.patch.tolist(), self.partner.tolist(), self.score.tolist(), strict=True
            ):
                other = f"{names[scan.split[partner]]},{scan.index[partner]}" if partner >= 0 else ","
                row = f"{names[scan.split[patch]]},{scan.index[patch]},{ISSUES[issue]},{score:.6g},{other}\n"
                file.write(row)


def collect(parts: Sequence[tuple[str, NDArray[np.int64], NDArray[np.float64]]]) -> Findings:
    """Join findings of several issues.

    Args:
        parts: (issue, patches (M,) or pairs (M, 2), scores (M,)). In a pair the second is the patch that is listed
            and the first its partner where the issue is a slide's; otherwise the lower number is listed.
    """
    issue, patch, partner, score = [], [], [], []
    for name, found, values in parts:
        issue.append(np.full(len(found), ISSUES.index(name)))
        single = found.ndim == 1
        listed = found if single else found[:, 1 if name == "shared_slide" else 0]
        other = np.full(len(found), -1) if single else found[:, 0 if name == "shared_slide" else 1]
        patch.append(listed)
        partner.append(other)
        score.append(values)
    rows = Findings(*(np.concatenate(column) for column in (issue, patch, partner, score)))
    order = np.lexsort((rows.partner, rows.patch, rows.issue))
    return Findings(rows.issue[order], rows.patch[order], rows.partner[order], rows.score[order])


def with_copies(
    pairs: NDArray[np.int64], digest: NDArray[np.bytes_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Extend pairs of patches that stand for their exact copies to those copies.

    Args:
        pairs: int64 (P, 2) with first < second.
        digest: (N,) hash of every patch.

    Returns:
        pairs (Q, 2) with first < second; the row (Q,) of the pair that each comes from; and 1 or -1 (Q,), whether it
        is in that order or the copies are the other way round.
    """
    _, inverse, counts = np.unique(digest, return_inverse=True, return_counts=True)
    copied = counts[inverse] > 1
    affected = copied[pairs].any(axis=1)
    plain = np.flatnonzero(~affected)
    members: dict[int, list[int]] = {}
    for patch in np.flatnonzero(copied).tolist():
        members.setdefault(int(inverse[patch]), []).append(patch)
    more: list[tuple[int, int, int, int]] = []
    for row in np.flatnonzero(affected).tolist():
        sets = [members.get(int(inverse[p]), [p])[:_MOST_COPIES] for p in pairs[row].tolist()]
        more += [(a, b, row, 1) if a < b else (b, a, row, -1) for a, b in product(*sets)]
    extra = np.array(more, np.int64).reshape(-1, 4)
    return (
        np.concatenate([pairs[plain], extra[:, :2]]),
        np.concatenate([plain, extra[:, 2]]),
        np.concatenate([np.ones(len(plain), np.int64), extra[:, 3]]),
    )


def without(pairs: NDArray[np.int64], *listed: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool (P,): which pairs are not among those listed already."""
    seen = {tuple(pair) for earlier in listed for pair in earlier.tolist()}
    return np.array([tuple(pair) not in seen for pair in pairs.tolist()], dtype=bool)


def groups(n: int, *pairs: NDArray[np.int64], together: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Number the sets of patches that must stay in one split: the connected components of the pairs.

    Args:
        n: number of patches.
        pairs: int64 (P, 2) arrays of patches that are not independent.
        together: int64 (N,), a number per patch; patches with the same one, unless it is -1, belong together.

    Returns:
        int64 (N,), groups numbered in order of their first patch.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = [np.concatenate([p.reshape(-1, 2) for p in pairs])] if pairs else []
    if together is not None:
        members = np.flatnonzero(together >= 0)
        first = np.unique(together[members], return_index=True, return_inverse=True)
        edges.append(np.stack([members[first[1]][first[2]], members], axis=1))
    joined = np.concatenate(edges) if edges else np.empty((0, 2), np.int64)
    graph = coo_array((np.ones(len(joined), dtype=np.int8), (joined[:, 0], joined[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def tied_to(
    scan: Scan,
    findings: Findings,
    split: str,
    others: Sequence[str] | None = None,
    issues: Sequence[str] = (*PAIR_ISSUES, "shared_slide"),
) -> NDArray[np.bool_]:
    """Which patches (n,) of a split form a pair (copy, near copy, shared pixels, shared slide) with another split's.

    Of many copies not every pair is listed, and a pair of a shared slide names the slide's first patch alone; here all
    copies, and all patches of the slide, count.

    Args:
        scan: the scanned patches.
        findings: what was found among them.
        split: the split that is asked about.
        others: names of the splits on the other side; None: all others.
        issues: the kinds of pairs that count.
    """
    names = [s.name for s in scan.splits]
    wanted = [names.index(name) for name in (others or names) if name != split and name in names]
    own = names.index(split)
    there = np.isin(scan.split, wanted)
    tied = np.zeros(len(scan), dtype=bool)
    form = np.unique(scan.facts.digest, return_inverse=True)[1]
    held = np.zeros(len(scan), dtype=bool)  # by form: whether the other splits hold it
    held[form[there]] = True
    for issue in issues:
        pairs = findings.of(issue)
        one, two = pairs.patch, pairs.partner
        tied[one[there[two]]] = tied[two[there[one]]] = True
        if issue in PAIR_ISSUES:
            linked = _linked_forms(form[one], form[two], held, chain=issue in ("symmetry_duplicate", "near_duplicate"))
            tied |= linked[form]
    slide = slides.slide_codes(scan) if "shared_slide" in issues else None
    if slide is not None:
        tied |= (slide >= 0) & np.isin(slide, slide[there])
    return tied[scan.split == own]


def contradictions(scan: Scan, findings: Findings) -> dict[str, int]:
    """Count by kind the listed pairs of copies of which one has label 0 and the other 1: one is in doubt."""
    counts = {}
    for issue in COPY_ISSUES:
        found = findings.of(issue)
        counts[issue] = int((scan.label[found.patch] + scan.label[found.partner] == 1).sum())
    return counts


def _linked_forms(
    one: NDArray[np.integer], two: NDArray[np.integer], held: NDArray[np.bool_], *, chain: bool
) -> NDArray[np.bool_]:
    """Which forms (sets of exact copies) are linked to one that is held; in a chain, also by way of other forms."""
    linked = np.zeros(len(held), dtype=bool)
    if chain:
        component = groups(len(held), np.stack([one, two], axis=1))
        linked[:] = (np.bincount(component, weights=held)[component] - held) > 0
    else:
        linked[one[held[two]]] = linked[two[held[one]]] = True
    return linked
