"""The order is a pure function of (seed, epoch), whatever reads the patches."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pcam.data.format import Split, open_split, split_path
from pcam.data.loader import Batch, Loader, PatchDataset, augment_generator, batch_indices, epoch_order, subset_indices
from pcam.errors import DataError


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
