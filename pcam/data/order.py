"""Which patches come when: pure functions of a seed, an epoch and the patches in use, on any machine."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pcam.data.reader import Indices

# Each use of randomness has its own stream: drawing more from one never shifts another.
_ORDER, _SUBSET, _AUGMENT, _DRAW = 1, 2, 3, 4
_WINDOW = 4096  # patches among which an order in blocks is random: 113 MB


def epoch_order(n: int, seed: int, epoch: int) -> Indices:
    """Return the order of an epoch: a permutation of 0..n-1, a pure function of its arguments."""
    return np.random.default_rng([_ORDER, seed, epoch]).permutation(n).astype(np.int64)


def block_order(indices: Indices, block: int, seed: int, epoch: int) -> Indices:
    """Return an order of an epoch that needs few patches of a file at a time.

    Blocks of `block` neighbours in the file come in random order; within a window of them (4,096 patches, or one
    block where that is more) the order of patches is random.

    Args:
        indices: int64 (n,), the patches in use; an index may repeat.
        block: patches a block.
        seed: of the order.
        epoch: likewise.

    Returns:
        int64 (n,), a permutation of 0..n-1, a pure function of the arguments.
    """
    rng = np.random.default_rng([_ORDER, seed, epoch])
    blocks, which = np.unique(indices // block, return_inverse=True)
    window = rng.permutation(len(blocks)) // max(1, _WINDOW // block)
    return np.lexsort((rng.random(len(indices)), window[which])).astype(np.int64)


def balanced_draw(labels: NDArray[np.uint8], seed: int, epoch: int) -> Indices:
    """Draw as many patches as there are, with replacement, each class as often as any other.

    Args:
        labels: (n,), of the patches in use: those left after any filter.
        seed: of the draw.
        epoch: likewise.

    Returns:
        int64 (n,), places in `labels`, sorted.
    """
    _, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    share = 1 / (len(counts) * counts[which])
    return np.sort(np.random.default_rng([_DRAW, seed, epoch]).choice(len(labels), len(labels), p=share))


def batch_indices(n: int, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """Return the epoch's order cut into batches; every index once, the last batch may be smaller."""
    return cut(epoch_order(n, seed, epoch), batch_size)


def subset_indices(n: int, size: int | None, seed: int) -> Indices:
    """Return which patches of a split are used, sorted: all, or `size` drawn by the seed."""
    if size is None or size >= n:
        return np.arange(n, dtype=np.int64)
    return np.sort(np.random.default_rng([_SUBSET, seed]).permutation(n)[:size]).astype(np.int64)


def augment_generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """Return the CPU generator of one training step, a pure function of its arguments."""
    state = np.random.SeedSequence([_AUGMENT, seed, epoch, step]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def rank_rows(n: int, rank: int, world: int) -> slice:
    """Return which rows of a batch of `n` patches belong to one of `world` processes that share it.

    Runs of neighbours whose lengths differ by at most one; with fewer patches than processes some are empty.
    """
    return slice(n * rank // world, n * (rank + 1) // world)


def cut(order: Indices, batch_size: int) -> list[Indices]:
    """Cut an order into batches; the last may be smaller."""
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
