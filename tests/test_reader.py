"""Whatever way a file is stored in, the same patches come out, and batches that are held stay as they are."""

from __future__ import annotations

import pickle
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pcam.data import threads
from pcam.data.buffers import Buffers
from pcam.data.format import PATCH_SHAPE, Split, split_path
from pcam.data.reader import Reader, _Chunks, _Hdf5, _Mapped
from pcam.data.threads import Threads
from pcam.errors import DataError

N = 21
PATCHES = np.random.default_rng(0).integers(0, 256, (N, *PATCH_SHAPE), dtype=np.uint8)
ASKED = np.array([20, 3, 3, 0, 19, 7, 8, 1])


def store(folder: Path, values: np.ndarray = PATCHES, userblock: int = 0, **how: Any) -> Split:
    folder.mkdir(exist_ok=True)
    with h5py.File(split_path(folder, "train", "x"), "w", userblock_size=userblock) as file:
        file.create_dataset("x", data=values, **how)
    return Split(folder, "train")


def read(reader: Reader, indices: np.ndarray) -> np.ndarray:
    out = torch.zeros((len(indices), *PATCH_SHAPE), dtype=torch.uint8)
    reader.read(indices, out)
    return out.numpy()


GZIP = {"compression": "gzip"}
LAYOUTS = {
    "plain": (_Mapped, {}),
    "float32": (_Mapped, {"dtype": np.float32}),
    "big-endian": (_Mapped, {"dtype": ">f4"}),
    "int16": (_Mapped, {"dtype": np.int16}),
    "user block": (_Hdf5, {"userblock": 512}),
    "chunks": (_Chunks, {"chunks": (4, *PATCH_SHAPE)}),
    "gzip 1": (_Chunks, {"chunks": (1, *PATCH_SHAPE), **GZIP}),
    "gzip 4": (_Chunks, {"chunks": (4, *PATCH_SHAPE), **GZIP}),
    "gzip cut patches": (_Chunks, {"chunks": (5, 40, 96, 2), **GZIP}),
    "gzip chosen by h5py": (_Chunks, GZIP),
    "gzip float32": (_Chunks, {"chunks": (4, *PATCH_SHAPE), "dtype": np.float32, **GZIP}),
    "shuffle": (_Chunks, {"chunks": (4, *PATCH_SHAPE), "dtype": np.float32, "shuffle": True, **GZIP}),
    "fletcher32": (_Hdf5, {"chunks": (4, *PATCH_SHAPE), "fletcher32": True, **GZIP}),
    "lzf": (_Hdf5, {"chunks": (4, *PATCH_SHAPE), "compression": "lzf"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("threads", [1, 2])
def test_same_patches_from_every_layout(tmp_path: Path, layout: str, threads: int) -> None:
    kind, how = LAYOUTS[layout]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        reader = Reader(store(tmp_path, PATCHES.astype(how.get("dtype", np.uint8)), **how))
        for indices in (ASKED, np.arange(N), ASKED[:1], ASKED[:0]):
            assert np.array_equal(read(reader, indices), PATCHES[indices])
    finally:
        torch.set_num_threads(before)
    assert isinstance(reader.source, kind)
    assert reader.mapped == (layout == "plain")


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_any_cache_is_enough(tmp_path: Path, slots: int) -> None:
    split = store(tmp_path, chunks=(4, *PATCH_SHAPE), **GZIP)
    reader = Reader(split, cache_bytes=slots * 4 * PATCHES[0].nbytes)
    rng = np.random.default_rng(1)
    for _ in range(10):
        indices = rng.integers(N, size=9)
        assert np.array_equal(read(reader, indices), PATCHES[indices])


def test_a_chunk_is_inflated_once_while_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(store(tmp_path, chunks=(4, *PATCH_SHAPE), **GZIP))
    inflated: list[int] = []
    whole = _Chunks._inflate
    monkeypatch.setattr(_Chunks, "_inflate", lambda self, block, to: (inflated.append(block), whole(self, block, to)))
    for _ in range(3):
        read(reader, ASKED)
    assert sorted(inflated) == [0, 1, 2, 4, 5]


def test_chunks_that_were_never_written_or_not_filtered(tmp_path: Path) -> None:
    with h5py.File(split_path(tmp_path, "train", "x"), "w") as file:
        x = file.create_dataset("x", (8, *PATCH_SHAPE), np.uint8, chunks=(4, *PATCH_SHAPE), fillvalue=7, **GZIP)
        x.id.write_direct_chunk((4, 0, 0, 0), PATCHES[:4].tobytes(), filter_mask=1)
    reader = Reader(Split(tmp_path, "train"))
    assert np.array_equal(read(reader, np.array([1, 5])), np.stack([np.full(PATCH_SHAPE, 7), PATCHES[1]]))


@pytest.mark.parametrize("how", [{}, {"chunks": (4, *PATCH_SHAPE), **GZIP}], ids=["plain", "gzip"])
@pytest.mark.parametrize(("bad", "rounded"), [(0.5, 0), (1e5, 255), (-3.0, 0), (np.nan, 0), (np.inf, 255), (7.6, 8)])
def test_values_that_are_no_bytes(tmp_path: Path, how: dict[str, Any], bad: float, rounded: int) -> None:
    values = PATCHES.astype(np.float32)
    values[3, 5, 5, 1] = bad
    split = store(tmp_path, values, **how)
    with pytest.raises(
        DataError, match=r"x: stored as float32 with .* in 2 of 8 patches, the first at index 3 .*values=round"
    ):
        read(Reader(split), ASKED)
    assert np.array_equal(read(Reader(split), np.array([2, 4])), PATCHES[[2, 4]])  # its neighbours in the chunk
    expected = PATCHES.copy()
    expected[3, 5, 5, 1] = rounded
    reader = Reader(split, rounding=True)
    assert np.array_equal(read(reader, ASKED), expected[ASKED])
    assert np.flatnonzero(reader.misfits).tolist() == [3]


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    split = store(tmp_path, chunks=(4, *PATCH_SHAPE), **GZIP)
    info = split.x.id.get_chunk_info(2)
    path = split_path(tmp_path, "train", "x")
    data = bytearray(path.read_bytes())
    data[info.byte_offset + info.size // 2] ^= 255
    path.write_bytes(data)
    reader = Reader(Split(tmp_path, "train"))
    with pytest.raises(DataError, match="x: damaged: patches near 8 cannot be read; fetch it again"):
        read(reader, np.array([0, 9]))
    assert np.array_equal(read(reader, np.array([0, 4])), PATCHES[[0, 4]])


def test_an_interrupt_leaves_no_thread_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would write a chunk into memory in which the next read keeps another."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        pool = Threads()
    finally:
        torch.set_num_threads(before)
    begun, let_go, done = Semaphore(0), Event(), []

    def work(item: int) -> None:
        begun.release()
        assert let_go.wait(60)
        done.append(item)

    def interrupted(_: list[Future[None]]) -> None:
        begun.acquire()
        begun.acquire()
        monkeypatch.setattr(threads, "wait", lambda jobs: (let_go.set(), wait(jobs)))
        raise KeyboardInterrupt

    monkeypatch.setattr(threads, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.run(work, range(1000))
    assert sorted(done) == [0, 1]


def test_a_reader_can_be_sent_and_closed(tmp_path: Path) -> None:
    reader = Reader(store(tmp_path, chunks=(4, *PATCH_SHAPE), **GZIP))
    read(reader, ASKED)
    reader.close()
    other = pickle.loads(pickle.dumps(reader))  # noqa: S301 — as spawn does
    for one in (reader, other):
        assert np.array_equal(read(one, ASKED), PATCHES[ASKED])


def test_memory_is_used_again_only_when_nobody_holds_it() -> None:
    buffers = Buffers()
    first = buffers.empty(4)
    address = first.data_ptr()
    view = first[1].float().new_empty(0), first[2:]  # a view keeps the memory, a result does not
    del first
    second = buffers.empty(4)
    assert second.data_ptr() != address
    del view
    assert buffers.empty(3).data_ptr() == address
    kept = [buffers.empty(2).fill_(k) for k in range(12)]
    assert [int(batch.max()) for batch in kept] == list(range(12))
    assert len({batch.data_ptr() for batch in kept}) == 12
