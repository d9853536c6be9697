"""Whole batches of patches, read in the fastest way that the file allows.

    contiguous uint8                  mapped into memory; one call gathers a batch, on all threads
    contiguous, another dtype         mapped; converted patch by patch, in threads
    chunked: plain, gzip, shuffle     chunks are found once, inflated from the map in threads, and the last ones kept
    anything else                     by HDF5 itself: slow, and right

A file that is cut short while it is mapped ends the process (SIGBUS), as with every program that maps files; any other
change is seen by `Split.check_unchanged`.
"""

from __future__ import annotations

import mmap
import os
import warnings
from collections import OrderedDict
from itertools import product
from pathlib import Path
from typing import Any

import deflate
import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from pcam.data.format import PATCH_SHAPE, Split, split_path
from pcam.data.hdf5 import damaged
from pcam.data.threads import Threads
from pcam.errors import DataError

Indices = NDArray[np.int64]

CACHE_BYTES = 256 << 20  # of inflated chunks: more than two windows of a block-wise order
_PATCH_BYTES = int(np.prod(PATCH_SHAPE))
_TOGETHER = 8  # patches converted by one call: fewer calls wait for each other, and the cache still holds them
_DIRECT: tuple[list[int], ...] = ([], [h5py.h5z.FILTER_DEFLATE], [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE])


class Reader:
    """Reads any patches of a split as uint8; opened on first use in each process, so it may be pickled and forked.

    Args:
        split: the patches.
        rounding: round values that are not integers in 0..255, and cut them off at both ends (NaN becomes 0);
            else they are refused.
        cache_bytes: of inflated chunks, where the file has them.

    Attributes:
        misfits: bool (n,): the patches met so far in which a value is not an integer in 0..255.
    """

    def __init__(self, split: Split, *, rounding: bool = False, cache_bytes: int = CACHE_BYTES) -> None:
        self.split = split
        self.rounding = rounding
        self.cache_bytes = cache_bytes
        self.misfits = np.zeros(len(split), dtype=bool)
        self._bytes = split.x.dtype == np.uint8
        self._exact = np.full(len(split), self._bytes)  # patches found to hold integers in 0..255 alone
        self._pid = -1
        self._source: _Mapped | _Chunks | _Hdf5 | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None, "_pid": -1}

    @property
    def source(self) -> _Mapped | _Chunks | _Hdf5:
        """How this process reads the file."""
        if self._source is None or self._pid != os.getpid():  # threads, and HDF5's handles, do not survive a fork
            self._source, self._pid = _open(self), os.getpid()
        return self._source

    def close(self) -> None:
        """Let go of what is held in memory; the next read opens the file again."""
        self._source, self._pid = None, -1

    @property
    def mapped(self) -> bool:
        """Whether patches lie in the file as they are wanted, so that a copy in memory would gain nothing."""
        return isinstance(self.source, _Mapped) and self.source.rows is not None

    @property
    def chunk_patches(self) -> int:
        """How many patches have to be read to have one: 1 where they are stored one by one."""
        return self.split.x.chunks[0] if self.split.x.chunks else 1

    def read(self, indices: Indices, out: torch.Tensor) -> None:
        """Read patches into `out`, uint8 (B, 96, 96, 3), in the order asked; an index may repeat.

        Raises:
            DataError: a value is not an integer in 0..255 and `rounding` is off, or a part of the file is damaged.
        """
        if len(indices) == 0:
            return
        self.source.read(indices, out)
        if self._bytes:
            return
        self._exact[indices] = ~self.misfits[indices]
        if not self.rounding and self.misfits[indices].any():
            try:
                self.split.read(indices)  # says which, in the words used everywhere
            except DataError as error:
                raise DataError(f"{error}, or set data.values=round") from error

    def put(self, raw: NDArray[Any], out: NDArray[np.uint8], which: slice | Indices) -> None:
        """Convert a part of some patches (k, h, w, c) in the stored dtype; `which` are their indices.

        Whoever calls has switched off numpy's warning of invalid values: once, since for each part it would be felt.
        """
        if raw.dtype == np.uint8:
            np.copyto(out, raw)
            return
        np.copyto(out, raw, casting="unsafe")
        if self._exact[which].all() or np.array_equal(out, raw):
            return
        self.misfits[which] |= (out != raw).reshape(len(raw), -1).any(axis=1)
        if self.rounding:
            np.copyto(out, np.nan_to_num(np.rint(raw), nan=0, posinf=255, neginf=0).clip(0, 255), casting="unsafe")


def _open(reader: Reader) -> _Mapped | _Chunks | _Hdf5:
    x = reader.split.x
    if x.file.userblock_size == 0:  # else the library's offsets do not all count from the same place
        if x.chunks is None and x.id.get_offset() is not None:
            return _Mapped(reader)
        if x.chunks is not None and _filters(x) in _DIRECT and hasattr(x.id, "chunk_iter"):
            return _Chunks(reader)
    return _Hdf5(reader)


def _filters(x: h5py.Dataset) -> list[int]:
    plist = x.id.get_create_plist()
    return [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]


class _Hdf5:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def read(self, indices: Indices, out: torch.Tensor) -> None:
        target = out.numpy()
        with np.errstate(invalid="ignore"):
            for row, (index, raw) in enumerate(zip(indices, self._reader.split.read_raw(indices), strict=True)):
                self._reader.put(raw[None], target[row : row + 1], slice(index, index + 1))


class _Mapped:
    """A contiguous dataset; `rows` (n, 27648) are its patches as a tensor where they are uint8."""

    def __init__(self, reader: Reader) -> None:
        x = reader.split.x
        self._reader = reader
        self._threads = Threads()
        self._patches = np.asarray(np.memmap(x.file.filename, x.dtype, "r", x.id.get_offset(), x.shape))
        self.rows: torch.Tensor | None = None
        if x.dtype == np.uint8:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nor is it written
                self.rows = torch.from_numpy(self._patches).view(len(x), _PATCH_BYTES)

    def read(self, indices: Indices, out: torch.Tensor) -> None:
        if self.rows is not None:
            torch.index_select(self.rows, 0, torch.from_numpy(indices), out=out.view(-1, _PATCH_BYTES))
            return
        target = out.numpy()

        def convert(first: int) -> None:
            some = indices[first : first + _TOGETHER]
            self._reader.put(self._patches[some], target[first : first + _TOGETHER], some)

        self._threads.run(convert, range(0, len(indices), _TOGETHER))


class _Chunks:
    """A chunked dataset. A *block* is the chunks that hold the same patches: one chunk, unless patches are cut too."""

    def __init__(self, reader: Reader) -> None:
        x = reader.split.x
        self._reader = reader
        self._threads = Threads()
        self._dtype, self._shape = x.dtype, x.chunks
        self._chunk_bytes = int(np.prod(x.chunks)) * x.dtype.itemsize
        self._gzip, self._shuffle = x.compression == "gzip", x.shuffle
        self._depth = x.chunks[0]
        blocks = -(-len(x) // self._depth)
        steps = [range(0, side, step) for side, step in zip(PATCH_SHAPE, x.chunks[1:], strict=True)]
        self._corners = list(product(*steps))
        self._plain = x.dtype == np.uint8 and len(self._corners) == 1 and not self._shuffle
        number = {corner: k for k, corner in enumerate(self._corners)}
        # -1: never written, or stored without its filters; the library knows what to do.
        self._places = np.full((blocks, len(self._corners), 2), -1, dtype=np.int64)

        def note(chunk: h5py.h5d.StoreInfo) -> None:
            if chunk.filter_mask == 0:
                first, *corner = chunk.chunk_offset
                self._places[first // self._depth, number[tuple(corner)]] = chunk.byte_offset, chunk.size

        x.id.chunk_iter(note)
        with Path(x.file.filename).open("rb") as file:
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self._whole = np.asarray((self._places >= 0).all(axis=(1, 2)))
        # Where each chunk holds one patch, none is asked for twice in an epoch.
        kept = 0 if self._depth == 1 else max(1, reader.cache_bytes // (self._depth * _PATCH_BYTES))
        self._slots = min(kept, blocks)
        self._cache = torch.empty((self._slots * self._depth, _PATCH_BYTES), dtype=torch.uint8)
        self._kept: OrderedDict[int, int] = OrderedDict()  # block → slot, the one used longest ago first

    def read(self, indices: Indices, out: torch.Tensor) -> None:
        if self._depth == 1:
            target, blocks = out.numpy(), indices.tolist()
            self._threads.run(lambda row: self._inflate(blocks[row], target[row : row + 1]), range(len(blocks)))
            return
        blocks, rows = np.divmod(indices, self._depth)
        wanted, which = np.unique(blocks, return_inverse=True)
        rows_out = out.view(-1, _PATCH_BYTES)
        for start in range(0, len(wanted), self._slots):
            slots = self._inflated(wanted[start : start + self._slots].tolist())
            here = np.flatnonzero((which >= start) & (which < start + self._slots))
            source = torch.from_numpy(slots[which[here] - start] * self._depth + rows[here])
            if len(here) == len(indices):
                torch.index_select(self._cache, 0, source, out=rows_out)
            else:
                rows_out[torch.from_numpy(here)] = self._cache[source]

    def _inflated(self, blocks: list[int]) -> Indices:
        """Return the slots in which blocks lie, after inflating those that are not there yet."""
        for block in blocks:
            if block in self._kept:
                self._kept.move_to_end(block)
        missing = [block for block in blocks if block not in self._kept]
        for block in missing:
            full = len(self._kept) == self._slots
            self._kept[block] = self._kept.popitem(last=False)[1] if full else len(self._kept)
        patches = self._cache.numpy().reshape(self._slots, self._depth, *PATCH_SHAPE)

        try:
            self._threads.run(lambda block: self._inflate(block, patches[self._kept[block]]), missing)
        except BaseException:
            self._kept.clear()  # some of them hold nothing
            raise
        return np.array([self._kept[block] for block in blocks])

    def _inflate(self, block: int, target: NDArray[np.uint8]) -> None:
        first, reader = block * self._depth, self._reader
        n = min(self._depth, len(reader.misfits) - first)  # the last chunk may reach beyond the last patch
        here = slice(first, first + n)
        if not self._whole[block]:
            reader.put(reader.split.read_raw(here), target[:n], here)
            return
        if self._plain:  # numpy's way to the same is felt beside the inflating of one patch
            ((start, size),) = self._places[block].tolist()
            target[:n].data.cast("B")[:] = self._stored(start, size, first)[: n * _PATCH_BYTES]
            return
        for (y, x, c), (start, size) in zip(self._corners, self._places[block].tolist(), strict=True):
            raw = self._decode(self._stored(start, size, first))
            part = target[:n, y : y + raw.shape[1], x : x + raw.shape[2], c : c + raw.shape[3]]
            reader.put(raw[:n, : part.shape[1], : part.shape[2], : part.shape[3]], part, here)

    def _stored(self, start: int, size: int, first: int) -> memoryview:
        """Return a chunk's bytes, inflated; its first patch is `first`."""
        data, why = self._bytes[start : start + size], None
        if self._gzip:
            try:
                data = memoryview(deflate.zlib_decompress(data, self._chunk_bytes))
            except (deflate.DeflateError, ValueError) as error:
                why = error
        if why or len(data) != self._chunk_bytes:
            split = self._reader.split
            fault = damaged(split_path(split.directory, split.name, "x"), "x", first)
            raise DataError(str(fault)) from why
        return data

    def _decode(self, data: memoryview) -> NDArray[Any]:
        values = np.frombuffer(data, dtype=np.uint8)
        if self._shuffle:  # stored as all first bytes, all second bytes …
            values = np.ascontiguousarray(values.reshape(self._dtype.itemsize, -1).T).reshape(-1)
        return values.view(self._dtype).reshape(self._shape)
