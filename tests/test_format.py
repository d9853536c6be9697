"""The data contract: what is read is what is stored, and every fault is named with its file and mend."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from broken import BAD_VALUES, NAMES, REFUSED, make_broken

from pcam.data import available_splits, data_kind, open_split, split_path, validate
from pcam.data.format import SPLITS
from pcam.errors import DataError


@pytest.mark.parametrize("name", REFUSED)
def test_opening_refuses_and_names_file_and_mend(name: str, tmp_path: Path) -> None:
    folder = make_broken(name, tmp_path)
    with pytest.raises(DataError, match=REFUSED[name]) as error:
        open_split(folder, "train")
    assert "\n" not in str(error.value) and "; " in str(error.value)


@pytest.mark.parametrize("name", BAD_VALUES)
def test_full_check_finds_bad_values(name: str, tmp_path: Path) -> None:
    folder = make_broken(name, tmp_path)
    assert validate(folder, "train", values=False) == []
    faults = validate(folder, "train")
    assert len(faults) == 1
    with pytest.raises(DataError, match=BAD_VALUES[name]):
        raise DataError(str(faults[0]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", r"x: stored as float32 with NaN in 1 of 3 patches, the first at index 4 \(of those read\); find them"),
        ("out_of_range", r"values that are not integers in 0\.\.255 in 1 of 3 patches, the first at index 4 "),
        ("fraction", r"values that are not integers in 0\.\.255 in 3 of 3 patches, the first at index 0 "),
    ],
)
def test_bad_values_are_never_read_as_pixels(name: str, message: str, tmp_path: Path) -> None:
    split = open_split(make_broken(name, tmp_path), "train")
    with pytest.raises(DataError, match=message):
        split.read([4, 2, 0])
    with pytest.raises(DataError, match=r"(1|6) of 6 patches"):
        split.read(slice(None))


@pytest.mark.parametrize("indices", [slice(None), slice(0, 1), [5, 4, 3, 2, 1, 0], [0]], ids=str)
def test_damage_is_named_whichever_way_it_is_met(indices: slice | list[int], tmp_path: Path) -> None:
    folder = make_broken("damaged_chunk", tmp_path)
    path = split_path(folder, "train", "x")
    content = path.read_bytes()
    with h5py.File(path) as file:
        offset, size = file["x"].id.get_chunk_info(0).byte_offset, file["x"].id.get_chunk_info(0).size
    path.write_bytes(content[:offset] + bytes(size) + content[offset + size :])
    with pytest.raises(DataError, match=r"train_x\.h5: x: damaged: patches near 0 cannot be read; fetch it again$"):
        open_split(folder, "train").read_raw(indices)


def test_damaged_labels_are_named(tmp_path: Path) -> None:
    folder = make_broken("one_class", tmp_path)
    path = split_path(folder, "train", "y")
    with h5py.File(path, "w") as file:
        file.create_dataset("y", data=np.zeros((6, 1, 1, 1), np.uint8), chunks=(2, 1, 1, 1), fletcher32=True)
        offset = file["y"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train_y\.h5: y: damaged: patches near 0 cannot be read; fetch it again"):
        open_split(folder, "train")


def test_one_class_keeps_the_contract(tmp_path: Path) -> None:
    assert validate(make_broken("one_class", tmp_path), "train") == []


def test_every_broken_folder_is_tested() -> None:
    assert set(NAMES) == {*REFUSED, *BAD_VALUES, "one_class"}


@pytest.mark.parametrize("split", SPLITS)
def test_sample_keeps_the_contract(tiny: Path, split: str) -> None:
    assert validate(tiny, split) == []


def test_indices_come_back_in_the_order_asked(tiny: Path) -> None:
    split = open_split(tiny, "train")
    whole = split.read(slice(None))
    assert whole.dtype == np.uint8 and whole.shape == (48, 96, 96, 3)
    order = [7, 3, 3, 40, 0]
    assert np.array_equal(split.read(order), whole[order])
    assert split.read([]).shape == (0, 96, 96, 3)


def rewrite(source: Path, target: Path, **how: object) -> Path:
    """Copy a folder with its train patches stored in another way."""
    shutil.copytree(source, target)
    pixels = open_split(source, "train").read(slice(None))
    dtype = how.pop("dtype", np.uint8)
    with h5py.File(split_path(target, "train", "x"), "w") as file:
        file.create_dataset("x", data=pixels.astype(dtype), **how)  # type: ignore[arg-type]
    return target


STORED = {
    "float32": {"dtype": np.float32},
    "int64": {"dtype": np.int64},
    "gzip": {"chunks": (1, 96, 96, 3), "compression": "gzip"},
    "lzf of 16": {"chunks": (16, 96, 96, 3), "compression": "lzf", "shuffle": True},
    "fletcher32": {"chunks": (5, 96, 96, 3), "fletcher32": True},
}


@pytest.mark.parametrize("how", STORED.values(), ids=STORED)
def test_fingerprint_sees_content_not_storage(how: dict[str, object], tiny: Path, tmp_path: Path) -> None:
    other = open_split(rewrite(tiny, tmp_path / "copy", **dict(how)), "train")
    split = open_split(tiny, "train")
    assert other.fingerprint() == split.fingerprint()
    assert np.array_equal(other.read([5, 2]), split.read([5, 2]))


@pytest.mark.parametrize("part", ["x", "y"])
def test_fingerprint_sees_one_changed_value(part: str, tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "copy")
    before = open_split(folder, "train").fingerprint()
    with h5py.File(split_path(folder, "train", part), "r+") as file:
        value = file[part][11]
        file[part][11] = 1 - value if part == "y" else value ^ 1
    assert open_split(folder, "train").fingerprint() != before


def test_labels_slides_and_groups(tiny: Path) -> None:
    split = open_split(tiny, "train")
    assert split.labels is not None and set(split.labels) == {0, 1} and split.labels.shape == (48,)
    assert split.slides is not None and split.groups is not None and split.group_kind == "slide"
    assert len(set(split.slides)) == len(set(split.groups)) > 1


def test_split_without_labels_or_meta(tiny: Path, tmp_path: Path) -> None:
    shutil.copy(split_path(tiny, "test", "x"), tmp_path)
    split = open_split(tmp_path, "test")
    assert split.labels is None and split.slides is None and split.groups is None and split.group_kind is None
    assert available_splits(tmp_path) == ("test",)
    assert split.fingerprint() != open_split(tiny, "test").fingerprint()


def first_patch(split: object, queue: multiprocessing.Queue) -> None:
    queue.put(split.read([0]).tobytes())  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_opened_once_per_process(tiny: Path, method: str) -> None:
    split = open_split(tiny, "train")
    expected = split.read([0]).tobytes()  # the parent holds an open handle now
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=first_patch, args=(split, queue))
    process.start()
    assert queue.get(timeout=60) == expected
    process.join()


CHANGES = {
    "written": lambda path: path.write_bytes(path.read_bytes()),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"0"),
    "replaced": lambda path: shutil.copy2(path, path.with_suffix(".new")) and path.with_suffix(".new").replace(path),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("part", ["x", "y"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_changes_while_it_is_open_is_named(
    change: Callable[[Path], object], part: str, tiny: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny, tmp_path / "copy")
    split = open_split(folder, "train")
    split.check_unchanged()
    copy = pickle.loads(pickle.dumps(split))  # noqa: S301 - our own object, made in this line
    change(split_path(folder, "train", part))
    for opened in (split, copy):  # a worker that opens the file after the change must not take it for the old one
        with pytest.raises(DataError, match=rf"train_{part}\.h5: file: changed while it was open; leave it alone and"):
            opened.check_unchanged()


def test_a_change_stops_what_is_being_read(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "copy")
    split = open_split(folder, "train")
    blocks = split.while_unchanged(split.read([i]) for i in range(3))
    next(blocks)
    split_path(folder, "train", "x").touch()
    with pytest.raises(DataError, match=r"train_x\.h5: file: changed while it was open"):
        next(blocks)


def test_pickle_drops_the_open_file(tiny: Path) -> None:
    split = open_split(tiny, "valid")
    split.read([0])
    copy = pickle.loads(pickle.dumps(split))  # noqa: S301 - our own object, made in this line
    assert np.array_equal(copy.read([1]), split.read([1]))


def test_kind_of_data(tiny: Path, tmp_path: Path) -> None:
    assert data_kind(tiny) == "synthetic" and data_kind(tmp_path) == "real"


@pytest.mark.parametrize("damage", ["emptied", "not JSON", "a folder", "a broken link", "lost"])
def test_a_sample_stays_one_when_its_marker_is_damaged(damage: str, tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "copy")
    marker = folder / "sample.json"
    marker.unlink()
    if damage == "emptied":
        marker.touch()
    elif damage == "not JSON":
        marker.write_text('{"synthetic": false')
    elif damage == "a folder":
        marker.mkdir()
    elif damage == "a broken link":
        marker.symlink_to(folder / "nowhere")
    assert data_kind(folder) == "synthetic"


@pytest.mark.parametrize(
    ("split", "message"), [("trian", r"unknown split 'trian'; did you mean 'train'\?"), ("x", "known: test, train")]
)
def test_unknown_split_is_named(split: str, message: str, tiny: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_split(tiny, split)


def test_folder_without_patches_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no PCam files .* 'pcam data sample' or 'pcam data fetch'"):
        available_splits(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such data folder"):
        open_split(tmp_path / "nowhere", "train")
    (tmp_path / "x.h5").touch()
    for reader in (available_splits, lambda path: open_split(path, "train")):
        with pytest.raises(DataError, match=r"x\.h5: a file, not a folder of PCam files; name the folder"):
            reader(tmp_path / "x.h5")


def test_unreadable_file_says_so(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(tiny, tmp_path / "copy")

    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(h5py, "File", deny)
    with pytest.raises(DataError, match=r"train_x\.h5: file: permission denied"):
        open_split(folder, "train")


def test_real_patches_keep_the_contract(real_data: Path) -> None:
    assert available_splits(real_data) == SPLITS
    for name in SPLITS:
        split = open_split(real_data, name)
        assert split.group_kind == "overlap group" and validate(real_data, name, values=False) == []


def test_a_table_saved_by_a_spreadsheet_is_read(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(tiny, folder)
    expected = open_split(tiny, "test").slides
    assert expected is not None
    table = "\n".join(["wsi", *expected.tolist()])
    split_path(folder, "test", "meta").write_text(table, encoding="utf-8-sig")
    assert validate(folder, "test") == []
    found = open_split(folder, "test").slides
    assert found is not None and found.tolist() == expected.tolist()
