"""Exact copies and symmetric copies: the same patch twice, as it is, rotated or flipped."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pcam.audit import symmetry
from pcam.audit.scan import Scan

# Up to this many copies every pair is listed; of more, each with the first, since their pairs grow quadratically.
_ALL_PAIRS = 32


def exact(scan: Scan) -> NDArray[np.int64]:
    """Return the pairs (P, 2) of patches with the same bytes; blank patches, which say nothing, are left out."""
    return _pairs(_equal(scan.facts.digest, np.flatnonzero(~scan.facts.blank)))


def symmetric(scan: Scan) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs (P, 2) that a rotation or flip turns into each other, and which (1 … 7) of the symmetries.

    Equal orbit keys propose groups; the patches are read again to find the symmetry, so nothing rests on a hash.
    """
    pairs: list[tuple[int, int]] = []
    which: list[int] = []
    for group in _equal(scan.facts.orbit_key, np.flatnonzero(~scan.facts.blank)):
        forms = scan.facts.digest[group]
        if (forms == forms[0]).all():
            continue
        patches = scan.read(group)
        for a, b in _index_pairs(len(group)):
            relation = None if forms[a] == forms[b] else symmetry.relation(patches[a], patches[b])
            if relation:
                pairs.append((int(group[a]), int(group[b])))
                which.append(relation)
    return np.array(pairs, np.int64).reshape(-1, 2), np.array(which, np.int64)


def representatives(scan: Scan) -> NDArray[np.bool_]:
    """bool (N,): patches that are not blank, the first only of each set of exact copies."""
    first = np.zeros(len(scan), dtype=bool)
    first[np.unique(scan.facts.digest, return_index=True)[1]] = True
    return first & ~scan.facts.blank


def _equal(keys: NDArray[np.generic], chosen: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Groups of two or more of the chosen patches with equal keys, each in ascending order."""
    order = chosen[np.argsort(keys[chosen], kind="stable")]
    ordered = keys[order]
    groups = np.split(order, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1)
    return [group for group in groups if len(group) > 1]


def _index_pairs(size: int) -> list[tuple[int, int]]:
    return list(combinations(range(size), 2)) if size <= _ALL_PAIRS else [(0, other) for other in range(1, size)]


def _pairs(groups: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    pairs = [(group[a], group[b]) for group in groups for a, b in _index_pairs(len(group))]
    return np.sort(np.array(pairs, np.int64).reshape(-1, 2), axis=1)
