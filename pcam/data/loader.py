"""Batches of patches in an order that is a pure function of (seed, epoch).

The order never depends on the number of workers, on the device or on what ran before, and a batch carries
its indices, so that any step of any run can be traced back to its patches. Nor does it depend on how the file
is stored: an order in blocks, which large chunks need, is asked for. A split that fits is read once into one
uint8 tensor on the device and batches are gathered there; a larger one is read batch by batch (`pcam.data.reader`),
and so is a canonical file on a CPU, which needs no copy in memory beside the one that the system keeps of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from pcam.data.buffers import Buffers, sent
from pcam.data.format import PATCH_SHAPE, Split
from pcam.data.order import (
    augment_generator,
    balanced_draw,
    batch_indices,
    block_order,
    cut,
    epoch_order,
    rank_rows,
    subset_indices,
)
from pcam.data.reader import Indices, Reader
from pcam.errors import DataError

__all__ = [
    "Batch",
    "Loader",
    "PatchDataset",
    "augment_generator",
    "balanced_draw",
    "batch_indices",
    "block_order",
    "epoch_order",
    "known_labels",
    "rank_rows",
    "subset_indices",
]

_BLOCK = 512  # patches read at a time where a whole split is walked: 14 MB
_PATCH_BYTES = int(np.prod(PATCH_SHAPE))


class Batch(NamedTuple):
    """Patches uint8 (B, 96, 96, 3), labels int64 (B,) and their indices int64 (B,) in the split's file."""

    patches: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


class PatchDataset(Dataset[tuple[torch.Tensor, int, int]]):
    """A split as a plain torch `Dataset`, for people who bring their own `DataLoader`.

    Items are (uint8 patch (96, 96, 3), label, index); label is -1 where the split has none. Batches are read
    at once through `__getitems__`. The file is opened in each process on first use, so workers may be
    forked or spawned; one that changes meanwhile ends in a `DataError`.

    Args:
        split: the patches.
        reader: how they are read; None: exact values only.
    """

    def __init__(self, split: Split, reader: Reader | None = None) -> None:
        self.split = split
        self.reader = reader or Reader(split)
        self._buffers = Buffers()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_buffers": Buffers()}

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[torch.Tensor, int, int]]:
        batch = self.batch(np.asarray(indices, dtype=np.int64))
        self.split.check_unchanged()  # `Loader` does so itself
        return list(zip(batch.patches.unbind(), batch.labels.tolist(), batch.indices.tolist(), strict=True))

    def batch(self, indices: Indices, buffers: Buffers | None = None) -> Batch:
        """Return the patches of some indices as one batch."""
        patches = (buffers or self._buffers).empty(len(indices))
        self.reader.read(indices, patches)
        known = self.split.labels
        labels = np.full(len(indices), -1) if known is None else known[indices].astype(np.int64)
        return Batch(patches, torch.from_numpy(labels), torch.from_numpy(indices))


class _Batches(PatchDataset):
    """For `Loader`'s own workers: whole batches travel, not items, each with which of its patches are misfits."""

    def __getitems__(self, indices: Sequence[int]) -> tuple[Batch, NDArray[np.bool_]]:  # type: ignore[override]
        batch = self.batch(np.asarray(indices, dtype=np.int64))
        return batch, self.reader.misfits[indices]


def _whole(batch: Any) -> Any:
    return batch


class Loader:
    """Batches of a split, or of a part of it, on a device.

    A batch stays as it is for as long as anybody holds it or a view of it; the memory of batches that were let go is
    used again (`Buffers`).

    Args:
        split: the patches.
        batch_size: patches per batch; the last of an epoch may be smaller.
        indices: int64, which patches; None: all.
        workers: processes that read; 0 reads in this process, with threads. Processes cost more than they give:
            each batch has to travel, and each process inflates chunks of its own.
        device: where the batches are wanted.
        resident: hold all patches on the device; None: when there are no workers, they take at most a quarter of
            the memory that is free, and it gains something: a mapped file is as good on a CPU.
        rank: which of `world` processes this one is. Each batch is shared: a process is given `rank_rows` of
            it, which may be none of a last, small batch. The batches of all ranks together are those of one
            process with the same `batch_size`, and `len`, `labels` and `channel_statistics` are of the whole.
        world: number of processes that share each batch.
        block: shuffle whole blocks of this many neighbours (see `block_order`); 1: full random order.
        balance: draw both classes equally often, with replacement, instead of every patch once.
        rounding: round values that are not integers in 0..255 instead of refusing them; see `rounded`.
        context: how workers are started: "fork", "spawn" or "forkserver"; None: Python's choice.

    Attributes:
        indices: the patches used, int64 (n,).
        labels: their labels, uint8 (n,).

    Raises:
        DataError: the split has no labels, or no second class to balance.
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
        block: int = 1,
        balance: bool = False,
        rounding: bool = False,
        context: Literal["fork", "spawn", "forkserver"] | None = None,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.workers = workers
        self.rank = rank
        self.world = world
        self.block = block
        self.balance = balance
        self.device = torch.device(device)
        self.indices = np.arange(len(split), dtype=np.int64) if indices is None else indices
        self.labels = known_labels(split)[self.indices]
        if balance and len(np.unique(self.labels)) < 2:
            raise DataError(f"{split.directory}: {split.name}: data.balance needs patches of both classes; set it off")
        self._context = context
        self._reader = Reader(split, rounding=rounding)
        self._resident: torch.Tensor | None = None
        if resident is None:
            fits = len(self.indices) * _PATCH_BYTES <= _free_memory(self.device) // 4
            resident = workers == 0 and fits and not (self.device.type == "cpu" and self._reader.mapped)
        if resident:
            self._resident = self._read_all()

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-len(self.indices) // self.batch_size)

    @property
    def resident(self) -> bool:
        """Whether all patches are held on the device."""
        return self._resident is not None

    @property
    def rounded(self) -> int:
        """How many of the patches used, of those read so far, hold values that had to be rounded or cut off."""
        return int(self._reader.misfits[self.indices].sum())

    @property
    def inflated_again(self) -> int:
        """Patches in each of the file's chunks, where this order inflates a chunk for each of them; 0: it does not."""
        chunk = self._reader.chunk_patches
        return chunk if not self.resident and chunk > 1 and self.block % chunk else 0

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the epoch's batches from batch number `start` on, in an order that is a pure function of the rest.

        It is that of `epoch_order`, of `block_order` where blocks are asked for, and every patch comes once, unless
        the classes are balanced.
        """
        n = len(self.indices)
        drawn = balanced_draw(self.labels, seed, epoch) if self.balance else np.arange(n, dtype=np.int64)
        order = (
            epoch_order(n, seed, epoch)
            if self.block == 1
            else block_order(self.indices[drawn], self.block, seed, epoch)
        )
        return self.split.while_unchanged(self._batches(cut(drawn[order], self.batch_size)[start:]))

    def in_order(self) -> Iterator[Batch]:
        """Yield every patch once, in index order: for validation, which needs no chance."""
        return self.split.while_unchanged(self._batches(cut(np.arange(len(self.indices)), self.batch_size)))

    def channel_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation (3,) of R, G, B over the patches used, in 0..255.

        They are computed from exact counts of each value, so they do not depend on the order of summation. All
        patches used have been read after this, so it says how many had to be rounded.
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
        buffers = Buffers()
        for start in range(0, len(self.indices), _BLOCK):
            if self._resident is not None:
                yield self._resident[start : start + _BLOCK]
            else:
                wanted = self.indices[start : start + _BLOCK]
                block = buffers.empty(len(wanted))
                self._reader.read(wanted, block)
                yield block

    def _read_all(self) -> torch.Tensor:
        """Read all patches in file order, each chunk once, straight to the device: no second copy in memory."""
        patches = torch.empty((len(self.indices), *PATCH_SHAPE), dtype=torch.uint8, device=self.device)
        start = 0
        for block in self._blocks():
            patches[start : start + len(block)].copy_(block)
            start += len(block)
        self._reader.close()
        return patches

    def _batches(self, positions: list[Indices]) -> Iterator[Batch]:
        positions = [rows[rank_rows(len(rows), self.rank, self.world)] for rows in positions]
        if self._resident is not None:
            buffers = Buffers()
            for rows in positions:
                labels = sent(torch.from_numpy(self.labels[rows].astype(np.int64)), self.device)
                # A GPU's own allocator uses memory again.
                out = buffers.empty(len(rows)) if self.device.type == "cpu" else None
                patches = torch.index_select(self._resident, 0, sent(torch.from_numpy(rows), self.device), out=out)
                yield Batch(patches, labels, torch.from_numpy(self.indices[rows]))
            return
        for batch in self._read([self.indices[rows] for rows in positions]):
            yield Batch(batch.patches.to(self.device), batch.labels.to(self.device), batch.indices)

    def _read(self, batches: list[Indices]) -> Iterator[Batch]:
        if self.workers == 0:
            dataset, buffers = PatchDataset(self.split, self._reader), Buffers(pinned=self.device.type == "cuda")
            for wanted in batches:
                yield dataset.batch(wanted, buffers)
            return
        # A list of batches as the sampler: DataLoader returns them in this order whatever the workers do.
        read = DataLoader(
            _Batches(self.split, self._reader),
            batch_sampler=[wanted.tolist() for wanted in batches],
            num_workers=self.workers,
            collate_fn=_whole,
            generator=torch.Generator(),  # else it draws from the global one, and the workers count shifts it
            multiprocessing_context=self._context,
        )
        for batch, misfits in read:
            self._reader.misfits[batch.indices.numpy()] = misfits  # a worker notes them in its own memory
            yield batch


def known_labels(split: Split) -> NDArray[np.uint8]:
    """Return the labels (N,) of a split.

    Raises:
        DataError: it has none.
    """
    if split.labels is None:
        raise DataError(f"{split.directory}: {split.name} has no labels; training needs its y file beside the x file")
    return split.labels


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
