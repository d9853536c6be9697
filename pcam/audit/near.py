"""Near duplicates: re-encoded, brightened, noisy, restained copies, in any of the eight symmetries.

Such copies keep their low spatial frequencies, so a patch is described by the K×K lowest coefficients of its cosine
transform. A flip changes the sign of the odd coefficients and a transposition exchanges c[u, v] and c[v, u]; the
amplitudes sqrt(c[u, v]² + c[v, u]²) therefore are the same for all eight forms. Candidates are neighbours in the
space of these amplitudes, found with a k-d tree (no loop over all pairs); each is then verified by the correlation of
the signed coefficients under the best of the eight symmetries. Coefficients are divided by their typical size, since
natural pictures hold most of their energy in the lowest few, which alone distinguish little (Field 1987).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZE = 10  # coefficients per axis that are compared
_AMPLITUDES = 6  # per axis, for the search; more are noisier after strong JPEG compression
_RADIUS = 1.3  # in units of the amplitudes' spread
_NEIGHBOURS = 9  # the patch itself and eight others: a cluster stays connected, and cannot flood the list
CORRELATION = 0.96
_MIN_CONTRAST = 1.0  # grey levels of low-frequency contrast; below it a patch is blank


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


def symmetric_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the highest correlation (P,) of coefficient pairs (P, K, K) over the eight symmetries of `first`."""
    sign = (-1.0) ** np.arange(first.shape[-1])
    norm = np.linalg.norm(first, axis=(1, 2)) * np.linalg.norm(second, axis=(1, 2))
    best = np.full(len(first), -np.inf)
    for form in (first, first.swapaxes(1, 2)):
        for vertical in (np.ones_like(sign), sign):
            for horizontal in (np.ones_like(sign), sign):
                dot = np.einsum("puv,puv,u,v->p", form, second, vertical, horizontal)
                best = np.maximum(best, dot)
    return np.asarray(best / np.maximum(norm, 1e-12), dtype=np.float64)


def find(spectra: NDArray[np.float32], usable: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find near-duplicate pairs.

    Args:
        spectra: float32 (N, SIZE, SIZE) from `spectrum`.
        usable: bool (N,), patches to compare; blank ones are left out in any case.

    Returns:
        pairs int64 (P, 2) with first < second, and their correlations (P,).
    """
    from scipy.spatial import cKDTree

    contrast = np.sqrt((spectra**2).sum(axis=(1, 2)) - spectra[:, 0, 0] ** 2) / 96
    candidates = np.flatnonzero(usable & (contrast >= _MIN_CONTRAST))
    if len(candidates) < 2:
        return np.empty((0, 2), np.int64), np.empty(0)
    chosen = spectra[candidates]
    points = amplitudes(chosen)
    _, neighbour = cKDTree(points).query(points, k=_NEIGHBOURS, distance_upper_bound=_RADIUS, workers=2)
    own, place = np.nonzero(neighbour < len(candidates))
    pairs = np.sort(np.stack([own, neighbour[own, place]], axis=1), axis=1)
    pairs = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)
    scale = np.sqrt((chosen.astype(np.float64) ** 2).mean(axis=0))
    scale[0, 0] = np.inf  # the mean is brightness
    white = chosen / scale
    correlation = symmetric_correlation(white[pairs[:, 0]], white[pairs[:, 1]])
    close = correlation >= CORRELATION
    return candidates[pairs[close]], correlation[close]
