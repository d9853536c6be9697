"""Near duplicates: re-encoded, brightened, noisy, restained copies, in any of the eight symmetries.

Such copies keep their low spatial frequencies, so a patch is described by the K×K lowest coefficients of its cosine
transform, each divided by its typical size, since natural pictures hold most of their energy in the lowest few, which
alone distinguish little (Field 1987). A flip changes the sign of the odd coefficients and a transposition exchanges
c[u, v] and c[v, u], so all eight forms of a patch are at hand without its pixels.

Candidates are found by random hyperplanes (Charikar 2002, "Similarity estimation techniques from rounding
algorithms"): the signs of a few random projections are a key; patches are sorted by it, and every form of a patch is
compared with those next to it whose first bits agree. One bit more for every doubling of the patches keeps the work
for a patch the same, so the time grows as N log N, however alike the patches are. Each candidate is then verified by
the correlation of its coefficients.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

SIZE = 10  # coefficients per axis that are compared
CORRELATION = 0.96
_AMPLITUDES = 6  # per axis, of the description that knows no symmetry
_TABLES = 20
_BITS = 24
_BESIDE = 4  # neighbours on either side in the order of the keys
_MOST = 8  # partners listed for a patch: a cluster stays connected, and cannot flood the list
_MIN_CONTRAST = 1.0  # grey levels of low-frequency contrast; below it a patch is blank
_BLOCK = 1 << 14  # patches: what is computed for a block at a time stays below 100 MB
_THREADS = 2


def _basis(side: int) -> NDArray[np.float32]:
    """The first SIZE rows of the orthonormal cosine transform (DCT-II), float32 (SIZE, side)."""
    u, i = np.indices((SIZE, side))
    basis = np.sqrt(2 / side) * np.cos(np.pi * (i + 0.5) * u / side)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


_BASIS = _basis(96)


def spectrum(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the lowest cosine coefficients float32 (B, SIZE, SIZE) of grey patches (B, 96, 96)."""
    return np.asarray(_BASIS @ grey @ _BASIS.T, dtype=np.float32)


def amplitudes(spectra: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return amplitudes (B, D) that symmetries, brightness and contrast do not change, scaled to unit spread."""
    rows, columns = np.triu_indices(_AMPLITUDES)
    rows, columns = rows[1:], columns[1:]  # without the mean
    size = np.hypot(spectra[:, rows, columns], spectra[:, columns, rows]).astype(np.float64)
    size /= np.maximum(np.linalg.norm(size, axis=1, keepdims=True), 1e-12)
    return (size - size.mean(axis=0)) / np.maximum(size.std(axis=0), 1e-12)


def symmetric_form(spectra: NDArray[np.float32], symmetry: int) -> NDArray[np.float32]:
    """Return coefficients (B, SIZE, SIZE) of the patches transposed (bit 4), flipped in rows (2) and columns (1)."""
    sign = ((-1.0) ** np.arange(SIZE)).astype(np.float32)
    form = spectra.swapaxes(1, 2) if symmetry & 4 else spectra
    form = form * sign[:, None] if symmetry & 2 else form
    return form * sign if symmetry & 1 else form


def find(spectra: NDArray[np.float32], usable: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find near-duplicate pairs.

    Args:
        spectra: float32 (N, SIZE, SIZE) from `spectrum`.
        usable: bool (N,), patches to compare; blank ones are left out in any case.

    Returns:
        pairs int64 (P, 2) with first < second, and their correlations (P,).
    """
    contrast = np.sqrt(np.maximum((spectra**2).sum(axis=(1, 2)) - spectra[:, 0, 0] ** 2, 0)) / 96
    candidates = np.flatnonzero(usable & (contrast >= _MIN_CONTRAST))
    if len(candidates) < 2:
        return np.empty((0, 2), np.int64), np.empty(0)
    white = _whitened(spectra[candidates])
    directions = np.random.default_rng(0).standard_normal((SIZE * SIZE, _TABLES, _BITS)).astype(np.float32)
    keys = _keys(white, directions)
    order = np.argsort(keys, axis=1, kind="stable")
    ordered = np.take_along_axis(keys, order, axis=1)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda symmetry: _close(white, symmetry, directions, order, ordered), range(8))
        pairs, correlation = (np.concatenate(part) for part in zip(*found, strict=True))
    pairs, correlation = _best(pairs, correlation, len(white))
    return candidates[pairs], correlation.astype(np.float64)


def _whitened(spectra: NDArray[np.float32]) -> NDArray[np.float32]:
    """Coefficients (B, SIZE, SIZE) in units of their typical size, without the mean, scaled to unit length."""
    scale = np.sqrt((spectra.astype(np.float64) ** 2).mean(axis=0))
    scale = np.maximum((scale + scale.T) / 2, 1e-12)  # the same for a patch and its transpose
    scale[0, 0] = np.inf  # the mean is brightness
    white = (spectra / scale).astype(np.float32)
    return white / np.maximum(np.linalg.norm(white, axis=(1, 2), keepdims=True), 1e-12)


def _keys(white: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.uint32]:
    """The signs of the projections as integers, uint32 (tables, B)."""
    keys = np.empty((_TABLES, len(white)), dtype=np.uint32)
    weights = (1 << np.arange(_BITS)).astype(np.float64)
    for start in range(0, len(white), _BLOCK):
        block = white[start : start + _BLOCK].reshape(-1, SIZE * SIZE)
        for table in range(_TABLES):
            keys[table, start : start + _BLOCK] = (block @ directions[:, table] > 0) @ weights
    return keys


def _close(
    white: NDArray[np.float32],
    symmetry: int,
    directions: NDArray[np.float32],
    order: NDArray[np.int64],
    ordered: NDArray[np.uint32],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pairs (P, 2) of which one form of the first correlates with the second, perhaps repeatedly; correlations (P,)."""
    n = len(white)
    unlike = np.uint32(_BITS - min(_BITS, int(n).bit_length()))  # last bits, in which neighbours may differ
    flat = white.reshape(n, -1)
    pairs, values = [], []
    for start in range(0, n, _BLOCK):
        forms = np.ascontiguousarray(symmetric_form(white[start : start + _BLOCK], symmetry))
        own = np.arange(start, start + len(forms))
        codes = []
        for key, sorted_key, patch in zip(_keys(forms, directions), ordered, order, strict=True):
            at = np.searchsorted(sorted_key, key)
            for step in range(-_BESIDE, _BESIDE + 1):
                place = np.clip(at + step, 0, n - 1)
                near = (sorted_key[place] ^ key) >> unlike == 0
                # At the identity a pair is met from both sides.
                near &= (patch[place] > own) if symmetry == 0 else (patch[place] != own)
                codes.append(own[near] * n + patch[place[near]])
        first, second = np.divmod(np.concatenate(codes), n)
        for part in range(0, len(first), _BLOCK):
            one, two = first[part : part + _BLOCK], second[part : part + _BLOCK]
            value = np.einsum("pc,pc->p", forms.reshape(len(forms), -1)[one - start], flat[two])
            close = value >= CORRELATION
            pairs.append(np.stack([one[close], two[close]], axis=1))
            values.append(value[close])
    return np.concatenate(pairs or [np.empty((0, 2), np.int64)]), np.concatenate(values or [np.empty(0, np.float32)])


def _best(
    pairs: NDArray[np.int64], correlation: NDArray[np.float32], n: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Each pair once, at its highest correlation, if it is among the best of either patch or joins two sets."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    pairs = np.sort(pairs, axis=1)
    order = np.lexsort((-correlation, pairs[:, 1], pairs[:, 0]))
    pairs, correlation = pairs[order], correlation[order]
    code, first = np.unique(pairs[:, 0] * n + pairs[:, 1], return_index=True)
    pairs, correlation = pairs[first], correlation[first]
    patch, row = pairs.T.reshape(-1), np.tile(np.arange(len(pairs)), 2)
    order = np.lexsort((-correlation[row], patch))
    rank = np.arange(len(order)) - np.searchsorted(patch[order], patch[order])
    keep = np.zeros(len(pairs), dtype=bool)
    keep[row[order[rank < _MOST]]] = True
    # The best partners alone could leave a set of copies in pieces, which a split by groups would then tear.
    tree = minimum_spanning_tree(coo_array((2 - correlation, pairs.T), shape=(n, n)).tocsr()).tocoo()
    keep |= np.isin(code, tree.row.astype(np.int64) * n + tree.col)
    return pairs[keep], correlation[keep]
