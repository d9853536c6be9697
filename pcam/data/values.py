"""Stored values that uint8 cannot hold: found, counted and put into words in one way wherever patches are read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unfit(raw: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which patches of a block (B, 96, 96, 3) do not fit into uint8.

    Returns:
        bool (B,), holding NaN; and bool (B,), holding no NaN but another value that is not an integer in 0..255.
    """
    rows = raw.reshape(len(raw), -1)
    if raw.dtype == np.uint8:
        return np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
    with np.errstate(invalid="ignore"):
        fits = (rows.astype(np.uint8) == rows).all(axis=1)
    nan = np.zeros(len(rows), dtype=bool)
    nan[~fits] = np.isnan(rows[~fits]).any(axis=1)
    return nan, ~fits & ~nan


def misfits(nan: NDArray[np.bool_], other: NDArray[np.bool_], index: NDArray[np.integer] | None = None) -> list[str]:
    """Say of how many patches `unfit` is true and which is the first; `index` (N,) where they are not 0 … N-1."""
    kinds = (("NaN", nan), ("values that are not integers in 0..255", other))
    return [
        f"{what} in {flags.sum()} of {len(flags)} patches, the first at index "
        f"{flags.argmax() if index is None else index[flags].min()}"
        for what, flags in kinds
        if flags.any()
    ]
