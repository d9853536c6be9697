"""Turn any copy of PCam into the canonical one: contiguous uint8, with a manifest.

Copies go around as float32 (four times the bytes) or in compressed chunks (a hundred times slower to read
patch by patch). Packing keeps every value or refuses: patches with NaN, a fraction or a value outside of 0..255
are counted, and nothing is left. The new folder appears whole or not at all; an interrupted pack is continued.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pcam.data.format import (
    PATCH_SHAPE,
    SAMPLE_MARKER,
    Split,
    available_splits,
    open_split,
    split_path,
)
from pcam.data.manifest import MANIFEST, write_manifest
from pcam.data.values import misfits, unfit
from pcam.errors import DataError, StorageError
from pcam.storage import claim, make_folder, read_json, write_bytes, write_json, writing

_BLOCK = 256  # patches in memory at a time: 28 MB as float32
_BLOCKS_PER_CHECKPOINT = 16
_ORIGIN = "packed.json"
_STATE = "packing.json"
_PATCH_BYTES = int(np.prod(PATCH_SHAPE))


@dataclass(frozen=True)
class PackReport:
    """What a pack did.

    Attributes:
        directory: the canonical folder.
        patches: number of patches per split.
        bytes_before: of the source's patch and label files.
        bytes_after: of the canonical ones.
        resumed: whether an interrupted pack was continued, or a finished one found.
    """

    directory: Path
    patches: dict[str, int]
    bytes_before: int
    bytes_after: int
    resumed: bool

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {n:,}" for split, n in self.patches.items())
        return f"{self.directory}: {counts} patches; {self.bytes_before:,} B as found, {self.bytes_after:,} B as uint8"


def pack(src: Path | str, dst: Path | str, *, progress: bool = True) -> PackReport:
    """Write the canonical copy of a data folder; the source is only read.

    Args:
        src: any copy that keeps the contract but for dtype, chunking and compression.
        dst: missing, empty, or an earlier pack of the same source.
        progress: show a progress bar.

    Returns:
        The report.

    Raises:
        DataError: the source breaks the contract, a value does not fit into uint8, or `dst` holds something else.
        StorageError: it cannot be written; run it again to continue.
    """
    source, target = Path(src), Path(dst)
    splits = {name: open_split(source, name) for name in available_splits(source)}
    origin = _identity(source, splits)
    if source.resolve() == target.resolve():
        raise DataError(f"{target}: is the source itself; give another folder")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        if _read_origin(target / _ORIGIN) != origin:
            raise DataError(f"{target}: not empty and not a pack of {source}; give an empty or new folder")
        return _report(target, splits, origin, resumed=True)
    work = target.with_name(f".{target.name}.packing")
    with claim(target.with_name(f".{target.name}.packing-claim")):
        resumed = work.exists()
        if resumed and _read_origin(work / _ORIGIN) != origin:
            raise DataError(
                f"{work}: an unfinished pack of another source, or of this one before it changed; remove it"
            )
        make_folder(work)
        write_json(work / _ORIGIN, origin)
        try:
            for split in splits.values():
                _pack_patches(split, work, progress)
                _pack_labels(split, work)
                split.check_unchanged()
        except DataError:  # there is nothing to continue: the source itself has to change first
            shutil.rmtree(work)
            raise
        _copy_rest(source, splits, work)
        (work / _STATE).unlink()
        write_manifest(work, [path.name for path in work.iterdir() if path.name != MANIFEST])
        with writing(target):
            work.replace(target)
    return _report(target, splits, origin, resumed)


def _identity(source: Path, splits: dict[str, Split]) -> dict[str, Any]:
    """Tell one source from another, and from itself after a change, without reading all of it."""
    paths = [split_path(source, name, part) for name in splits for part in ("x", "y")]
    stats = {path.name: path.stat() for path in paths if path.exists()}
    return {"files": {name: {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns} for name, stat in stats.items()}}


def _read_origin(path: Path) -> Any:
    try:
        return read_json(path, "pack record")
    except StorageError:
        return None


def _pack_patches(split: Split, work: Path, progress: bool) -> None:
    path = split_path(work, split.name, "x")
    state: dict[str, int] = read_json(work / _STATE, "pack state") if (work / _STATE).exists() else {}
    done = state.get(split.name, 0) if path.exists() else 0
    if not done:
        _allocate(path, len(split))
    with h5py.File(path, "r") as file:
        offset = int(file["x"].id.get_offset())
    with (
        writing(path),
        path.open("rb+") as file,
        tqdm(total=len(split), initial=done, desc=split.name, unit="patch", disable=not progress) as bar,
    ):
        file.seek(offset + done * _PATCH_BYTES)
        for number, start in enumerate(range(done, len(split), _BLOCK), 1):
            block = _as_uint8(split, start)
            _write_block(file, block)
            bar.update(len(block))
            if number % _BLOCKS_PER_CHECKPOINT == 0 or start + _BLOCK >= len(split):
                # The state may only name what has reached the disk.
                file.flush()
                os.fsync(file.fileno())
                write_json(work / _STATE, {**state, split.name: start + len(block)})


def _allocate(path: Path, count: int) -> None:
    """Create an HDF5 file whose data has its place, so that blocks can be written to it as plain bytes.

    A file that h5py is writing to is unreadable after a kill; one that is only filled in is not.
    """
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with writing(path), h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((count, *PATCH_SHAPE))
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT8, space, layout)


def _as_uint8(split: Split, start: int) -> NDArray[np.uint8]:
    raw = split.read_raw(slice(start, start + _BLOCK))
    if np.logical_or(*unfit(raw)).any():
        raise DataError(_refusal(split))
    return raw.astype(np.uint8, copy=False)


def _refusal(split: Split) -> str:
    """Count all that does not fit."""
    nan, other = np.zeros((2, len(split)), dtype=bool)
    for start in range(0, len(split), _BLOCK):
        block = slice(start, start + _BLOCK)
        nan[block], other[block] = unfit(split.read_raw(block))
    found = " and ".join(misfits(nan, other))
    path = split_path(split.directory, split.name, "x")
    return f"{path}: x: {found}; packing would change them: see which with 'pcam audit' and leave them out"


def _write_block(file: BinaryIO, block: NDArray[np.uint8]) -> None:
    file.write(np.ascontiguousarray(block).data)


def _pack_labels(split: Split, work: Path) -> None:
    if split.labels is not None:
        path = split_path(work, split.name, "y")
        with writing(path), h5py.File(path, "w") as file:
            file.create_dataset("y", data=split.labels.reshape(-1, 1, 1, 1))


def _copy_rest(source: Path, splits: dict[str, Split], work: Path) -> None:
    """Copy the tables, and the marker and the truth of a sample: a packed sample is still a sample."""
    paths = [split_path(source, name, part) for name in splits for part in ("meta", "ids")]
    for path in (*paths, source / SAMPLE_MARKER, source / "truth.csv"):
        if path.exists():
            write_bytes(work / path.name, path.read_bytes())


def _report(target: Path, splits: dict[str, Split], origin: dict[str, Any], resumed: bool) -> PackReport:
    return PackReport(
        directory=target,
        patches={name: len(split) for name, split in splits.items()},
        bytes_before=sum(entry["bytes"] for entry in origin["files"].values()),
        bytes_after=sum((target / name).stat().st_size for name in origin["files"]),
        resumed=resumed,
    )
