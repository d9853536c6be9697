"""Packing keeps every value or refuses; it can be interrupted anywhere."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
import pytest
from broken import make_broken

from pcam.data import pack as pack_module
from pcam.data import synthetic
from pcam.data.format import available_splits, data_kind, open_split, split_path
from pcam.data.manifest import verify
from pcam.data.pack import PackReport, pack
from pcam.data.synthetic import write_sample
from pcam.errors import DataError, StorageError


def recode(source: Path, target: Path, dtype: type, **storage: object) -> Path:
    """Store a sample's patches and labels in another way, without its other files."""
    target.mkdir()
    for split in available_splits(source):
        for part in ("x", "y"):
            with (
                h5py.File(split_path(source, split, part)) as old,
                h5py.File(split_path(target, split, part), "w") as new,
            ):
                new.create_dataset(part, data=old[part][:].astype(dtype), **storage)
    return target


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    ("dtype", "storage"),
    [
        (np.float32, {}),
        (np.float64, {"chunks": True, "compression": "gzip"}),
        (np.int16, {"chunks": (5, 96, 96, 3)}),
        (np.uint8, {"chunks": True, "compression": "lzf", "shuffle": True}),
    ],
)
def test_any_copy_becomes_canonical(tiny: Path, tmp_path: Path, dtype: type, storage: dict[str, object]) -> None:
    if "chunks" in storage and isinstance(storage["chunks"], tuple):
        source = recode(tiny, tmp_path / "copy", dtype)
        with h5py.File(split_path(source, "train", "x"), "r+") as file:
            pixels = file["x"][:]
            del file["x"]
            file.create_dataset("x", data=pixels, **storage)
    else:
        source = recode(tiny, tmp_path / "copy", dtype, **storage)
    before = digests(source)
    report = pack(source, tmp_path / "packed", progress=False)
    assert digests(source) == before
    assert report.patches == {"train": 48, "valid": 24, "test": 24}
    for split in report.patches:
        packed = open_split(tmp_path / "packed", split)
        assert (packed.x.dtype, packed.x.chunks) == (np.uint8, None)
        assert packed.fingerprint() == open_split(tiny, split).fingerprint()
    assert verify(tmp_path / "packed") == []
    assert list(tmp_path.glob(".*")) == []


def test_float32_takes_four_times_the_bytes(tiny: Path, tmp_path: Path) -> None:
    report = pack(recode(tiny, tmp_path / "copy", np.float32), tmp_path / "packed", progress=False)
    assert report.bytes_before / report.bytes_after == pytest.approx(4, rel=0.02)
    assert "train 48, valid 24, test 24 patches" in str(report)


def test_a_packed_sample_is_still_a_sample(tiny: Path, tmp_path: Path) -> None:
    pack(tiny, tmp_path / "packed", progress=False)
    assert data_kind(tmp_path / "packed") == "synthetic"
    assert open_split(tmp_path / "packed", "train").group_kind == "slide"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", r"train_x\.h5: x: NaN in 1 of 6 patches, the first at index 4; packing .*'pcam audit'"),
        ("out_of_range", r"values that are not integers in 0\.\.255 in 1 of 6 patches, the first at index 4"),
        ("fraction", r"values that are not integers in 0\.\.255 in 6 of 6 patches, the first at index 0"),
        (
            "damaged_chunk",
            r"source/camelyonpatch.*train_x\.h5: x: damaged: patches near 0 cannot be read; fetch it again",
        ),
        ("not_hdf5", "not an HDF5 file"),
        ("truncated", "truncated"),
        ("unequal", "5 labels for 6 patches"),
        ("wrong_shape", r"is not \(N, 96, 96, 3\)"),
    ],
)
def test_refused_with_nothing_left(tmp_path: Path, name: str, message: str) -> None:
    source = make_broken(name, tmp_path / "source")
    with pytest.raises(DataError, match=message):
        pack(source, tmp_path / "packed", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_all_bad_patches_of_all_blocks_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "_BLOCK", 16)
    source = write_sample(tmp_path / "course", train=64, valid=0, test=0, defects=["course"])
    bad = ~(open_split(source, "train").read_raw(slice(None)) <= 255).all(axis=(1, 2, 3))
    first = int(np.flatnonzero(bad)[0])
    with pytest.raises(DataError, match=rf"in {bad.sum()} of 64 patches, the first at index {first};"):
        pack(source, tmp_path / "packed", progress=False)


class Breaking:
    """Writes blocks until the given one, then fails as told."""

    def __init__(self, after: int, error: BaseException) -> None:
        self.after, self.error, self.written = after, error, 0
        self.write = pack_module._write_block

    def __call__(self, file: object, block: np.ndarray) -> None:
        if self.written == self.after:
            raise self.error
        self.written += 1
        self.write(file, block)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "_BLOCK", 8)
    monkeypatch.setattr(pack_module, "_BLOCKS_PER_CHECKPOINT", 2)


def packed_again(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PackReport, int]:
    counting = Breaking(-1, RuntimeError())
    monkeypatch.setattr(pack_module, "_write_block", counting)
    return pack(source, target, progress=False), counting.written


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("after", [0, 1, 5, 7])
def test_an_interrupted_pack_is_continued(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    source = recode(tiny, tmp_path / "copy", np.float32)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pack_module, "_write_block", Breaking(after, KeyboardInterrupt()))
        pack(source, tmp_path / "packed", progress=False)
    assert not (tmp_path / "packed").exists()
    report, written = packed_again(source, tmp_path / "packed", monkeypatch)
    assert report.resumed
    assert written == 12 - after // 2 * 2  # what the last checkpoint covers is not written again
    assert open_split(tmp_path / "packed", "train").fingerprint() == open_split(tiny, "train").fingerprint()
    assert verify(tmp_path / "packed") == []


@pytest.mark.usefixtures("small_blocks")
def test_a_full_disk_leaves_nothing_under_the_final_name(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch, pytest.raises(StorageError, match="the disk is full; free some space"):
        patch.setattr(pack_module, "_write_block", Breaking(3, full))
        pack(tiny, tmp_path / "packed", progress=False)
    assert not (tmp_path / "packed").exists()
    assert packed_again(tiny, tmp_path / "packed", monkeypatch)[0].resumed


@pytest.mark.usefixtures("small_blocks")
def test_a_source_that_changed_is_not_continued(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = recode(tiny, tmp_path / "copy", np.float32)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pack_module, "_write_block", Breaking(4, KeyboardInterrupt()))
        pack(source, tmp_path / "packed", progress=False)
    split_path(source, "train", "x").touch()
    with pytest.raises(DataError, match="an unfinished pack of another source, or of this one before it changed"):
        pack(source, tmp_path / "packed", progress=False)


def test_a_finished_pack_is_found(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pack(tiny, tmp_path / "packed", progress=False)
    again, written = packed_again(tiny, tmp_path / "packed", monkeypatch)
    assert (again.resumed, written, again.bytes_after) == (True, 0, first.bytes_after)


def test_a_target_that_holds_something_else_is_refused(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="mine: not empty and not a pack of"):
        pack(tiny, tmp_path / "mine", progress=False)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="file: not empty and not a pack of"):
        pack(tiny, tmp_path / "file", progress=False)
    for target in (tiny, tiny / "below"):
        with pytest.raises(DataError, match="is the source itself or inside of it; give another folder"):
            pack(tiny, target, progress=False)


@pytest.mark.usefixtures("small_blocks")
def test_only_what_is_still_as_it_was_written_is_continued(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pack_module, "_write_block", Breaking(5, KeyboardInterrupt()))
        pack(tiny, tmp_path / "packed", progress=False)
    half = split_path(tmp_path / ".packed.packing", "train", "x")
    content = bytearray(half.read_bytes())
    content[20_000] ^= 1
    half.write_bytes(content)
    _, written = packed_again(tiny, tmp_path / "packed", monkeypatch)
    assert written == 12
    assert open_split(tmp_path / "packed", "train").fingerprint() == open_split(tiny, "train").fingerprint()


@pytest.mark.usefixtures("small_blocks")
def test_killed_and_continued_ends_in_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    source = recode(tiny, tmp_path / "copy", np.float32)
    whole = pack(source, tmp_path / "whole", progress=False)
    context = multiprocessing.get_context("fork")
    for after in (1, 4, 5):
        process = context.Process(target=_killed_pack, args=(source, tmp_path / "packed", after))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (tmp_path / "packed").exists()
    report = pack(source, tmp_path / "packed", progress=False)
    assert report.resumed
    assert digests(tmp_path / "packed") == digests(whole.directory)
    assert list(tmp_path.glob(".*")) == []


def _killed_pack(source: Path, target: Path, after: int) -> None:
    write, written = pack_module._write_block, []

    def kill_at(file: BinaryIO, block: np.ndarray) -> None:
        if len(written) == after:
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(len(block))
        write(file, block)

    pack_module._write_block = kill_at  # this process is a fork that ends in here
    pack(source, target, progress=False)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk takes Linux and root")
@pytest.mark.parametrize("kilobytes", [4, 8, 16, 300, 2600])
def test_a_disk_that_is_really_full(
    tiny: Path, tmp_path: Path, kilobytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        with pytest.raises(StorageError, match="the disk is full; free some space and try again"):
            pack(tiny, disk / "packed", progress=False)
        assert not (disk / "packed").exists()
        shutil.rmtree(disk / ".packed.packing", ignore_errors=True)
        with pytest.raises(StorageError, match="MB are free; ask for fewer patches or choose another disk"):
            write_sample(disk / "sample", train=300)
        monkeypatch.setattr(synthetic, "_check_room", lambda *_: None)  # what was free may be taken meanwhile
        with pytest.raises(StorageError, match="the disk is full; free some space and try again"):
            write_sample(disk / "sample", train=300)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_of_two_at_once_one_refuses(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, refused = pack_module._write_block, []

    def second(file: BinaryIO, block: np.ndarray) -> None:
        if not refused:
            with pytest.raises(StorageError, match=r"process \d+ on .* is at work on it; wait for it") as error:
                pack(tiny, tmp_path / "packed", progress=False)
            refused.append(error)
        write(file, block)

    monkeypatch.setattr(pack_module, "_write_block", second)
    pack(tiny, tmp_path / "packed", progress=False)
    assert refused and verify(tmp_path / "packed") == []


def test_a_damaged_pack_is_not_taken_for_a_whole_one(tiny: Path, tmp_path: Path) -> None:
    pack(tiny, tmp_path / "packed", progress=False)
    split_path(tmp_path / "packed", "train", "y").unlink()
    with pytest.raises(DataError, match="packed: a damaged pack; remove the folder and pack again"):
        pack(tiny, tmp_path / "packed", progress=False)


@pytest.mark.parametrize("target", [".", ".."])
def test_a_folder_in_use_is_not_replaced(
    target: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match=r"^\.\.?: (a folder that is in use; give a new|not empty and not a pack)"):
        pack(tiny, target, progress=False)
    with pytest.raises((DataError, StorageError), match=r"\.: it is in use; choose a new name|\.\.: not empty"):
        write_sample(target, train=4)


def test_a_source_that_changes_meanwhile_is_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = recode(tiny, tmp_path / "copy", np.float32)
    write = pack_module._write_block

    def touch(file: BinaryIO, block: np.ndarray) -> None:
        split_path(source, "train", "x").touch()
        write(file, block)

    monkeypatch.setattr(pack_module, "_write_block", touch)
    with pytest.raises(DataError, match=r"train_x\.h5: file: changed while it was open; leave it alone"):
        pack(source, tmp_path / "packed", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize("chunk", [3, 7, 48])
def test_blocks_are_whole_chunks(chunk: int, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "_BLOCK", 8)
    source = recode(tiny, tmp_path / "copy", np.float32)
    with h5py.File(split_path(source, "train", "x"), "r+") as file:
        pixels = file["x"][:]
        del file["x"]
        file.create_dataset("x", data=pixels, chunks=(chunk, 96, 96, 3), compression="gzip")
    assert pack_module._block_size(open_split(source, "train")) == -(-8 // chunk) * chunk
    assert pack(source, tmp_path / "packed", progress=False).patches["train"] == 48
    assert open_split(tmp_path / "packed", "train").fingerprint() == open_split(tiny, "train").fingerprint()


def test_an_unwritable_place_is_told(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*choose another path"):
        pack(tiny, tmp_path / "file" / "packed", progress=False)


def test_the_real_copy(real_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "valid"
    source.mkdir()
    for part in ("x", "y", "ids"):
        path = split_path(real_data, "valid", part)
        (source / path.name).symlink_to(path)
    report = pack(source, tmp_path / "packed", progress=False)
    assert report.patches == {"valid": 600}
    packed = open_split(tmp_path / "packed", "valid")
    assert packed.fingerprint() == open_split(real_data, "valid").fingerprint()
    assert (packed.x.chunks, packed.group_kind) == (None, "overlap group")
