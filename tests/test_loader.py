"""The order is a pure function of (seed, epoch), whatever reads the patches."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pcam.data.format import Split, open_split, split_path
from pcam.data.loader import (
    Batch,
    Loader,
    PatchDataset,
    augment_generator,
    balanced_draw,
    batch_indices,
    block_order,
    epoch_order,
    subset_indices,
)
from pcam.errors import DataError

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}


@pytest.fixture
def split(tiny: Path) -> Split:
    return open_split(tiny, "train")


def gathered(batches: list[Batch]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    patches, labels, indices = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    return patches, labels, indices


@pytest.mark.parametrize("n", [1, 2, 97, 1000])
def test_order_is_a_permutation(n: int) -> None:
    assert np.array_equal(np.sort(epoch_order(n, 3, 4)), np.arange(n))


def test_order_is_pure_and_knows_seed_and_epoch() -> None:
    first = epoch_order(100, 0, 0)
    np.random.seed(5)
    torch.manual_seed(5)
    assert np.array_equal(first, epoch_order(100, 0, 0))
    assert not np.array_equal(first, epoch_order(100, 1, 0))
    assert not np.array_equal(first, epoch_order(100, 0, 1))
    assert not np.array_equal(epoch_order(100, 1, 0), epoch_order(100, 0, 1))


def test_order_does_not_drift_between_releases() -> None:
    assert epoch_order(8, 0, 0).tolist() == [5, 0, 1, 4, 2, 6, 3, 7]


def test_batches_cover_the_epoch_once() -> None:
    batches = batch_indices(10, 4, seed=0, epoch=2)
    assert [len(b) for b in batches] == [4, 4, 2]
    assert np.array_equal(np.concatenate(batches), epoch_order(10, 0, 2))


@pytest.mark.parametrize(("size", "expected"), [(None, 48), (100, 48), (48, 48), (7, 7)])
def test_subset_is_sorted_and_drawn_by_seed(size: int | None, expected: int) -> None:
    chosen = subset_indices(48, size, seed=1)
    assert len(chosen) == expected
    assert np.array_equal(chosen, np.unique(chosen))
    assert np.array_equal(chosen, subset_indices(48, size, seed=1))
    if size == 7:
        assert not np.array_equal(chosen, subset_indices(48, size, seed=2))


def test_augment_generators_differ_by_seed_epoch_and_step() -> None:
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    draws = {torch.rand(1, generator=augment_generator(*place)).item() for place in places}
    assert len(draws) == len(places)
    assert torch.rand(1, generator=augment_generator(0, 0, 0)).item() in draws


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_same_batches_with_any_number_of_workers(split: Split, workers: int) -> None:
    resident = Loader(split, 10, resident=True)
    reading = Loader(split, 10, workers=workers, resident=False)
    assert resident.resident
    assert not reading.resident
    expected, found = (gathered(list(loader.epoch(seed=3, epoch=1))) for loader in (resident, reading))
    for a, b in zip(expected, found, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("resident", [True, False])
def test_batches_hold_the_patches_of_their_indices(split: Split, resident: bool) -> None:
    loader = Loader(split, 7, indices=subset_indices(len(split), 20, 0), resident=resident)
    patches, labels, indices = gathered(list(loader.epoch(0, 0)))
    assert sorted(indices) == loader.indices.tolist()
    assert np.array_equal(patches, split.read(indices))
    assert np.array_equal(labels, split.labels[indices])


@pytest.mark.parametrize("start", [0, 2, 4])
def test_an_epoch_goes_on_from_any_batch(split: Split, start: int) -> None:
    loader = Loader(split, 10)
    whole = [b.indices.tolist() for b in loader.epoch(0, 5)]
    assert [b.indices.tolist() for b in loader.epoch(0, 5, start=start)] == whole[start:]
    assert len(loader) == len(whole) == 5


@pytest.mark.parametrize("world", [1, 2, 3, 11])
@pytest.mark.parametrize("resident", [True, False])
def test_ranks_share_each_batch_of_one_process(split: Split, world: int, resident: bool) -> None:
    loaders = [Loader(split, 10, rank=rank, world=world, resident=resident) for rank in range(world)]
    whole = list(Loader(split, 10).epoch(0, 1, start=1))
    for loader in loaders:
        assert len(loader) == 5
        assert len(loader.labels) == 48
    for batch, *shares in zip(whole, *(loader.epoch(0, 1, start=1) for loader in loaders), strict=True):
        for a, b in zip(gathered([batch]), gathered(shares), strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_same_batches_however_workers_are_started(split: Split, context: str) -> None:
    expected = gathered(list(Loader(split, 10).epoch(seed=3, epoch=1, start=2)))
    loader = Loader(split, 10, workers=2, context=context)  # type: ignore[arg-type]
    for a, b in zip(expected, gathered(list(loader.epoch(seed=3, epoch=1, start=2))), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_processes_take_the_file_as_it_is(tiny: Path, tmp_path: Path, workers: int) -> None:
    compressed = _copy(tiny, tmp_path, chunks=(5, 96, 96, 3), compression="gzip")
    expected = gathered(list(Loader(open_split(tiny, "train"), 10, block=5).epoch(0, 1)))
    loader = Loader(open_split(compressed, "train"), 10, block=5, workers=workers, resident=False)
    for a, b in zip(expected, gathered(list(loader.epoch(0, 1))), strict=True):
        assert np.array_equal(a, b)


def _copy(folder: Path, to: Path, **how: Any) -> Path:
    """A copy of a folder whose train patches are stored in another way."""
    copy = shutil.copytree(folder, to / "copy")
    patches = Split(folder, "train").read(slice(None)).astype(how.pop("dtype", np.uint8))
    with h5py.File(split_path(copy, "train", "x"), "w") as file:
        file.create_dataset("x", data=patches, **how)
    return copy


@pytest.mark.parametrize("block", [2, 7, 64, 10_000])
def test_blocks_come_whole_within_a_window(block: int) -> None:
    indices = subset_indices(20_000, 15_000, 0)
    order = block_order(indices, block, seed=1, epoch=2)
    assert np.array_equal(np.sort(order), np.arange(len(indices)))
    assert np.array_equal(order, block_order(indices, block, seed=1, epoch=2))
    assert not np.array_equal(order, block_order(indices, block, seed=1, epoch=3))
    blocks = indices[order] // block
    places = np.arange(len(order))
    first, last = (np.full(blocks.max() + 1, edge) for edge in (len(order), 0))
    np.minimum.at(first, blocks, places)
    np.maximum.at(last, blocks, places)
    assert (last - first).max() < max(4096, block)  # no chunk is wanted again once its window is over
    assert (np.diff(indices[order]) == 1).mean() < 0.01


def test_the_order_does_not_depend_on_how_the_file_is_stored(tiny: Path, tmp_path: Path) -> None:
    other = _copy(tiny, tmp_path, dtype=np.float32, chunks=(7, 96, 96, 3), compression="gzip", shuffle=True)
    for how in ({}, {"block": 4}, {"balance": True}, {"block": 4, "balance": True}):
        one, two = (Loader(open_split(folder, "train"), 9, **how) for folder in (tiny, other))
        assert two.resident
        assert not one.resident
        for a, b in zip(gathered(list(one.epoch(1, 1))), gathered(list(two.epoch(1, 1))), strict=True):
            assert np.array_equal(a, b)


def test_large_chunks_in_full_order_are_told(tiny: Path, tmp_path: Path) -> None:
    split = open_split(_copy(tiny, tmp_path, chunks=(8, 96, 96, 3), compression="gzip"), "train")
    assert Loader(split, 10, resident=False, block=16).inflated_again == 0
    assert Loader(split, 10, resident=True).inflated_again == 0
    assert Loader(split, 10, resident=False).inflated_again == 8


def test_balance_uses_the_labels_of_the_patches_that_remain(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "copy")
    labels = (np.arange(48) < 24).astype(np.uint8)
    with h5py.File(split_path(folder, "train", "y"), "w") as file:
        file["y"] = labels.reshape(-1, 1, 1, 1)
    split = open_split(folder, "train")
    remain = np.arange(20, 48)  # 4 positive, 24 negative: weights that belonged to all 48 would draw 1 in 7
    loader = Loader(split, 10, indices=remain, balance=True)
    _, drawn, indices = gathered([batch for epoch in range(60) for batch in loader.epoch(0, epoch)])
    assert set(indices) == set(remain)
    assert np.array_equal(drawn, labels[indices])
    assert abs(drawn.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(drawn))
    shares = np.bincount(indices, minlength=48)[20:] / len(indices)
    assert shares[:4].min() > 2 * shares[4:].max()
    with pytest.raises(DataError, match=r"train: data\.balance needs patches of both classes"):
        Loader(split, 10, indices=remain[4:], balance=True)


def test_a_balanced_draw_is_pure() -> None:
    labels = (np.arange(100) < 10).astype(np.uint8)
    assert np.array_equal(balanced_draw(labels, 0, 1), balanced_draw(labels, 0, 1))
    assert not np.array_equal(balanced_draw(labels, 0, 1), balanced_draw(labels, 0, 2))


@pytest.mark.parametrize("resident", [True, False])
def test_batches_that_are_kept_stay_as_they_are(split: Split, resident: bool) -> None:
    loader = Loader(split, 4, resident=resident)
    for batches in (loader.epoch(0, 0), loader.in_order()):
        for batch in list(batches):
            assert np.array_equal(batch.patches.numpy(), split.read(batch.indices.numpy()))


def test_memory_of_batches_let_go_is_used_again(split: Split) -> None:
    places = {batch.patches.data_ptr() for batch in Loader(split, 2, resident=False).epoch(0, 0)}
    assert len(places) <= 3


def test_values_are_refused_or_rounded_and_counted(tiny: Path, tmp_path: Path) -> None:
    folder = _copy(tiny, tmp_path, dtype=np.float32)
    with h5py.File(split_path(folder, "train", "x"), "r+") as file:
        file["x"][[5, 9], 0, 0, 0] = 1e5
    split = open_split(folder, "train")
    with pytest.raises(DataError, match=r"not integers in 0\.\.255 in 2 of 48 patches, the first at index 5"):
        Loader(split, 10, resident=False).channel_statistics()
    loader = Loader(split, 10, indices=np.arange(8), rounding=True)
    loader.channel_statistics()
    assert loader.rounded == 1
    assert {int(b.patches[list(b.indices).index(5), 0, 0, 0]) for b in loader.in_order() if 5 in b.indices} == {255}
    by_workers = Loader(split, 10, workers=2, rounding=True, context="forkserver")
    assert by_workers.rounded == 0
    assert sum(len(batch.indices) for batch in by_workers.in_order()) == 48
    assert by_workers.rounded == 2


def test_a_resident_split_is_gathered_on_its_device(split: Split) -> None:
    loader = Loader(split, 10, device="meta", resident=True)  # a device without values: shapes and places only
    batch = next(loader.epoch(0, 0))
    assert batch.patches.device.type == batch.labels.device.type == "meta"
    assert batch.patches.shape == (10, 96, 96, 3)
    assert batch.indices.tolist() == epoch_order(48, 0, 0)[:10].tolist()


def test_reading_leaves_the_global_generators_alone(split: Split) -> None:
    before = torch.get_rng_state()
    for workers in (0, 1):
        list(Loader(split, 16, workers=workers, resident=False).epoch(0, 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_validation_is_in_index_order(split: Split) -> None:
    _, _, indices = gathered(list(Loader(split, 10).in_order()))
    assert np.array_equal(indices, np.arange(len(split)))


@pytest.mark.parametrize("resident", [True, False])
def test_channel_statistics(split: Split, resident: bool) -> None:
    mean, std = Loader(split, 10, resident=resident).channel_statistics()
    pixels = split.read(slice(None)).reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-5)


def test_statistics_are_of_the_patches_used_only(split: Split) -> None:
    mean, _ = Loader(split, 10, indices=np.array([3, 5])).channel_statistics()
    np.testing.assert_allclose(mean, split.read([3, 5]).reshape(-1, 3).mean(0), rtol=1e-6)


def test_dataset_in_ones_own_dataloader(split: Split) -> None:
    dataset = pickle.loads(pickle.dumps(PatchDataset(split)))  # noqa: S301 — as spawn does
    patches, labels, indices = next(iter(DataLoader(dataset, batch_size=5)))
    assert patches.shape == (5, 96, 96, 3)
    assert patches.dtype == torch.uint8
    assert np.array_equal(patches.numpy(), split.read(slice(0, 5)))
    assert labels.tolist() == split.labels[:5].tolist()
    assert indices.tolist() == [0, 1, 2, 3, 4]


def test_items_of_a_dataset_stay_as_they_are(split: Split) -> None:
    dataset = PatchDataset(split)
    kept = [dataset.__getitems__([k, k + 1]) for k in range(8)]
    for k, items in enumerate(kept):
        for patch, label, index in items:
            assert index in (k, k + 1)
            assert label == split.labels[index]
            assert np.array_equal(patch.numpy(), split.read([index])[0])


def test_no_labels(tmp_path: Path) -> None:
    with h5py.File(split_path(tmp_path, "test", "x"), "w") as file:
        file["x"] = np.zeros((2, 96, 96, 3), np.uint8)
    with pytest.raises(DataError, match="test has no labels; training needs its y file"):
        Loader(open_split(tmp_path, "test"), 2)


@pytest.mark.parametrize("resident", [True, False])
def test_a_file_that_changes_stops_the_epoch(tiny: Path, tmp_path: Path, resident: bool) -> None:
    folder = shutil.copytree(tiny, tmp_path / "copy")
    loader = Loader(open_split(folder, "train"), 16, resident=resident)
    batches = loader.epoch(0, 0)
    next(batches)
    split_path(folder, "train", "x").touch()
    with pytest.raises(
        DataError, match=r"train_x\.h5: file: changed while it was open; leave it alone and start again"
    ):
        next(batches)
    with pytest.raises(DataError, match="changed while it was open"):
        list(loader.in_order())


def test_a_file_that_changes_stops_ones_own_dataloader_too(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "copy")
    batches = iter(DataLoader(PatchDataset(open_split(folder, "train")), batch_size=8))
    next(batches)
    split_path(folder, "train", "y").touch()
    with pytest.raises(DataError, match=r"train_y\.h5: file: changed while it was open"):
        next(batches)


def test_the_benchmark_runs(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "benchmarks" / "loader.py"), "--quick", "--scale", "--threads", "1"]
    command += ["--dir", str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout
    rows = {line[:24].strip(): line[24:].split() for line in printed.splitlines()[2:]}
    assert float(rows["per item, uint8"][1]) == 1
    assert float(rows["uint8 batches"][1]) > 1  # even on a machine that is busy
    assert {"normalised", "DataLoader", "gzip 1", "gzip 32, data.block=32", "float32 source", "MLP, loading"} <= set(
        rows
    )
    assert "512 patches" in printed
    assert "anonymous memory" in printed
    assert not list(tmp_path.iterdir())
