"""Memory for batches of patches, used again as soon as nobody holds the batch that lies in it; the way to a device."""

from __future__ import annotations

import sys

import numpy as np
import torch
from numpy.typing import NDArray

from pcam.data.format import PATCH_SHAPE

_POOLED = 4  # a batch in use, the one being made, and two that a caller may still look at


class Buffers:
    """Memory for batches, used again as soon as nobody holds the batch that lies in it.

    A fresh tensor of megabytes for every batch costs more than filling it: the system has to clear its pages first.
    Whoever keeps a batch, or any view of it, keeps its memory; then the next batch gets some of its own.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._arrays: list[NDArray[np.uint8]] = []

    def empty(self, n: int) -> torch.Tensor:
        """Return a tensor uint8 (n, 96, 96, 3) with undefined values."""
        for number in range(len(self._arrays)):
            # Tensors made from an array refer to it, and so do all views of them.
            if _references(self._arrays, number) == _UNHELD and len(self._arrays[number]) >= n:
                return torch.from_numpy(self._arrays[number][:n])
        new = torch.empty((n, *PATCH_SHAPE), dtype=torch.uint8, pin_memory=self._pinned).numpy()
        if len(self._arrays) < _POOLED:
            self._arrays.append(new)
        return torch.from_numpy(new[:])


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a small CPU tensor on a device, without waiting until the device has done what it was asked before."""
    return values.to(device, non_blocking=True)


def _references(arrays: list[NDArray[np.uint8]], number: int) -> int:
    return sys.getrefcount(arrays[number])


_UNHELD = _references([np.empty(0, dtype=np.uint8)], 0)  # measured: how many a call adds depends on Python's version
