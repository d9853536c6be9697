"""Batches of patches in an order that is a pure function of (seed, epoch).

The order never depends on the number of workers, on the device or on what ran before, and a batch carries
its indices, so that any step of any run can be traced back to its patches. A split that fits is read once
into one uint8 tensor on the device and batches are gathered there; a larger one, or one for which worker
processes are asked, is read batch by batch from its file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from pcam.data.format import PATCH_SHAPE, Split
from pcam.errors import DataError

Indices = NDArray[np.int64]

# Each use of randomness has its own stream: drawing more from one never shifts another.
_ORDER, _SUBSET, _AUGMENT = 1, 2, 3
_BLOCK = 512  # patches read at a time where a whole split is walked: 14 MB
_PATCH_BYTES = int(np.prod(PATCH_SHAPE))


class Batch(NamedTuple):
    """Patches uint8 (B, 96, 96, 3), labels int64 (B,) and their indices int64 (B,) in the split's file."""

    patches: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


def epoch_order(n: int, seed: int, epoch: int) -> Indices:
    """Return the order of an epoch: a permutation of 0..n-1, a pure function of its arguments."""
    return np.random.default_rng([_ORDER, seed, epoch]).permutation(n).astype(np.int64)


def batch_indices(n: int, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """Return the epoch's order cut into batches; every index once, the last batch may be smaller."""
    return _cut(epoch_order(n, seed, epoch), batch_size)


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


def _cut(order: Indices, batch_size: int) -> list[Indices]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


class PatchDataset(Dataset[tuple[torch.Tensor, int, int]]):
    """A split as a plain torch `Dataset`, for people who bring their own `DataLoader`.

    Items are (uint8 patch (96, 96, 3), label, index); label is -1 where the split has none. Batches are read
    at once through `__getitems__`. The file is opened in each process on first use, so workers may be
    forked or spawned.
    """

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[torch.Tensor, int, int]]:
        patches = torch.from_numpy(self.split.read(indices))
        labels = self.split.labels
        return [
            (patch, -1 if labels is None else int(labels[i]), int(i)) for patch, i in zip(patches, indices, strict=True)
        ]


def _collate(items: list[tuple[torch.Tensor, int, int]]) -> Batch:
    if not items:  # a rank's share of a batch smaller than the number of ranks
        return Batch(torch.empty((0, *PATCH_SHAPE), dtype=torch.uint8), *torch.empty((2, 0), dtype=torch.int64))
    patches, labels, indices = zip(*items, strict=True)
    return Batch(torch.stack(patches), torch.tensor(labels), torch.tensor(indices))


class Loader:
    """Batches of a split, or of a part of it, on a device.

    Args:
        split: the patches.
        batch_size: patches per batch; the last of an epoch may be smaller.
        indices: int64, which patches; None: all.
        workers: processes that read; 0 reads in this process, from memory when the patches fit there.
        device: where the batches are wanted.
        resident: hold all patches on the device; None: when there are no workers and they take at most a
            quarter of the memory that is free.
        rank: which of `world` processes this one is. Each batch is shared: a process is given `rank_rows` of
            it, which may be none of a last, small batch. The batches of all ranks together are those of one
            process with the same `batch_size`, and `len`, `labels` and `channel_statistics` are of the whole.
        world: number of processes that share each batch.

    Attributes:
        indices: the patches used, int64 (n,).
        labels: their labels, uint8 (n,).

    Raises:
        DataError: the split has no labels.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        indices: Indices | None = None,
        workers: int = 0,
        device: torch.device | str = "cpu",
        resident: bool | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if split.labels is None:
            raise DataError(
                f"{split.directory}: {split.name} has no labels; training needs its y file beside the x file"
            )
        self.split = split
        self.batch_size = batch_size
        self.workers = workers
        self.rank = rank
        self.world = world
        self.device = torch.device(device)
        self.indices = np.arange(len(split), dtype=np.int64) if indices is None else indices
        self.labels = split.labels[self.indices]
        if resident is None:
            resident = workers == 0 and len(self.indices) * _PATCH_BYTES <= _free_memory(self.device) // 4
        self._resident = self._read_all().to(self.device) if resident else None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-len(self.indices) // self.batch_size)

    @property
    def resident(self) -> bool:
        """Whether all patches are held on the device."""
        return self._resident is not None

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the epoch's batches in the order of `epoch_order`, from batch number `start` on."""
        batches = self._batches(batch_indices(len(self.indices), self.batch_size, seed, epoch)[start:])
        return self.split.while_unchanged(batches)

    def in_order(self) -> Iterator[Batch]:
        """Yield every patch once, in index order: for validation, which needs no chance."""
        return self.split.while_unchanged(self._batches(_cut(np.arange(len(self.indices)), self.batch_size)))

    def channel_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation (3,) of R, G, B over the patches used, in 0..255.

        They are computed from exact counts of each value, so they do not depend on the order of summation.
        """
        counts = torch.zeros(3, 256, dtype=torch.float64)
        for block in self._blocks():
            for channel in range(3):
                counts[channel] += torch.bincount(block[..., channel].flatten(), minlength=256).cpu()
        values, n = torch.arange(256, dtype=torch.float64), counts.sum(1)
        mean = counts @ values / n
        std = (counts @ values**2 / n - mean**2).clamp(min=0).sqrt()
        return mean.float(), std.float()

    def _blocks(self) -> Iterator[torch.Tensor]:
        for start in range(0, len(self.indices), _BLOCK):
            if self._resident is not None:
                yield self._resident[start : start + _BLOCK]
            else:
                yield torch.from_numpy(self.split.read(self.indices[start : start + _BLOCK]))

    def _read_all(self) -> torch.Tensor:
        patches = torch.empty((len(self.indices), *PATCH_SHAPE), dtype=torch.uint8)
        for start in range(0, len(self.indices), _BLOCK):
            wanted = self.indices[start : start + _BLOCK]
            whole = wanted[-1] - wanted[0] == len(wanted) - 1  # one contiguous read where nothing is left out
            block = self.split.read(slice(wanted[0], wanted[-1] + 1) if whole else wanted)
            patches[start : start + len(wanted)] = torch.from_numpy(block)
        return patches

    def _batches(self, positions: list[Indices]) -> Iterator[Batch]:
        positions = [rows[rank_rows(len(rows), self.rank, self.world)] for rows in positions]
        if self._resident is not None:
            for rows in positions:
                labels = torch.from_numpy(self.labels[rows].astype(np.int64)).to(self.device)
                patches = self._resident.index_select(0, torch.from_numpy(rows).to(self.device))
                yield Batch(patches, labels, torch.from_numpy(self.indices[rows]))
            return
        # A list of batches as the sampler: DataLoader returns them in this order whatever the workers do.
        reader = DataLoader(
            PatchDataset(self.split),
            batch_sampler=[self.indices[rows].tolist() for rows in positions],
            num_workers=self.workers,
            collate_fn=_collate,
            generator=torch.Generator(),  # else it draws from the global one, and the workers count shifts it
        )
        for batch in reader:
            yield Batch(batch.patches.to(self.device), batch.labels.to(self.device), batch.indices)


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
