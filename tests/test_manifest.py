"""The full check of a data folder: contract first, then the manifest."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import h5py
import pytest
from broken import BAD_VALUES, REFUSED, make_broken

from pcam.data.format import split_path, validate
from pcam.data.manifest import MANIFEST, Entry, add_entry, read_manifest, verify, write_manifest
from pcam.data.pack import pack
from pcam.errors import DataError


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A sample that a test may damage."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def test_a_clean_sample_has_no_fault(tiny: Path) -> None:
    assert verify(tiny) == []


def test_the_manifest_lists_every_file_but_itself(tiny: Path) -> None:
    assert set(read_manifest(tiny)) == {path.name for path in tiny.iterdir()} - {MANIFEST}


def test_one_flipped_bit_is_found(copy: Path) -> None:
    path = split_path(copy, "valid", "x")
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1  # contiguous HDF5 reads this without complaint
    path.write_bytes(content)
    (fault,) = verify(copy)
    assert (fault.file, fault.field) == (str(path), "sha256")


def test_a_changed_size_and_a_missing_file_are_found(copy: Path) -> None:
    meta, truth = split_path(copy, "train", "meta"), copy / "truth.csv"
    meta.write_text(meta.read_text() + "\n")
    truth.unlink()
    assert [fault.field for fault in verify(copy)] == ["bytes", "file"]


@pytest.mark.parametrize("content", ["{", "[]", '{"files": {"a": 3}}', '{"files": {"a": {"bytes": "many"}}}'])
def test_a_broken_manifest_is_a_fault(copy: Path, content: str) -> None:
    (copy / MANIFEST).write_text(content)
    assert [fault.problem for fault in verify(copy)] == ["not a manifest"]
    with pytest.raises(DataError, match=r"manifest\.json: files: not a manifest; restore it"):
        read_manifest(copy)


@pytest.mark.parametrize("name", [*REFUSED, *BAD_VALUES])
def test_every_broken_folder_is_named(tmp_path: Path, name: str) -> None:
    folder = make_broken(name, tmp_path / name)
    if name == "missing":
        (fault,) = verify(folder)
        assert re.search(r"train_y\.h5: file: its patches are missing: there is no .*train_x\.h5; fetch it", str(fault))
        return
    faults = [str(fault) for fault in verify(folder)]
    assert any(re.search({**REFUSED, **BAD_VALUES}[name], fault) for fault in faults), faults


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data folder; make one with 'pcam data sample"):
        verify(tmp_path / "nowhere")


def test_labels_without_their_patches_are_a_fault(copy: Path) -> None:
    split_path(copy, "test", "x").unlink()
    (copy / MANIFEST).unlink()
    assert [(Path(fault.file).name, fault.problem) for fault in verify(copy)] == [
        (
            f"camelyonpatch_level_2_split_test_{end}",
            f"its patches are missing: there is no {split_path('', 'test', 'x')}",
        )
        for end in ("y.h5", "meta.csv")
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_one_flipped_bit_of_a_pixel_is_found(copy: Path, tmp_path: Path, packed: bool) -> None:
    folder = pack(copy, tmp_path / "packed", progress=False).directory if packed else copy
    path = split_path(folder, "train", "x")
    with h5py.File(path) as file:
        offset = file["x"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset + 7 * 27648 + 5] ^= 16
    path.write_bytes(content)
    assert validate(folder, "train") == []
    (fault,) = verify(folder)
    assert str(fault) == f"{path}: sha256: differs from the manifest; write or copy it again"


def test_entries_are_added_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"bb")
    write_manifest(tmp_path, ["b"])
    add_entry(tmp_path, "a", Entry(1, "c" * 64, "d" * 32))
    entries = read_manifest(tmp_path)
    assert entries["b"] == Entry.of(tmp_path / "b")
    assert entries["a"].source_md5 == "d" * 32
