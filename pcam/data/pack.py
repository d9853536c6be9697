"""Turn any copy of PCam into the canonical one: contiguous uint8, with a manifest.

Copies go around as float32 (four times the bytes) or in compressed chunks (many times slower to read
patch by patch). Packing keeps every value or refuses: patches with NaN, a fraction or a value outside of 0..255
are counted, and nothing is left. The new folder appears whole or not at all; an interrupted pack is continued.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pcam.data.contiguous import allocate, write_array
from pcam.data.copies import copy_marker
from pcam.data.format import PATCH_SHAPE, Split, available_splits, open_split, split_path
from pcam.data.hdf5 import open_h5
from pcam.data.manifest import MANIFEST, read_manifest, write_manifest
from pcam.data.values import misfits, unfit
from pcam.errors import DataError, StorageError
from pcam.storage import claim, make_folder, read_json, write_bytes, write_json, writing

_BLOCK = 256  # patches in memory at a time: 28 MB as float32
_BLOCK_BYTES = 1 << 28  # of a block as stored, where chunks ask for larger ones
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
    if target.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{target}: is the source itself or inside of it; give another folder")
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        if _read_origin(target / _ORIGIN) != origin:
            raise DataError(f"{target}: not empty and not a pack of {source}; give an empty or new folder")
        if not _is_whole(target, origin):
            raise DataError(f"{target}: a damaged pack; remove the folder and pack again")
        return _report(target, splits, origin, resumed=True)
    if target.name in ("", ".."):
        raise DataError(f"{target}: a folder that is in use; give a new folder by its name")
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


def _is_whole(target: Path, origin: dict[str, Any]) -> bool:
    entries = read_manifest(target)
    there = {name: (target / name).stat().st_size for name in entries if (target / name).is_file()}
    return origin["files"].keys() <= entries.keys() and there == {name: entry.bytes for name, entry in entries.items()}


def _pack_patches(split: Split, work: Path, progress: bool) -> None:
    path = split_path(work, split.name, "x")
    state: dict[str, Any] = read_json(work / _STATE, "pack state") if (work / _STATE).exists() else {}
    done, digest = _verified(path, **state.get(split.name, {"done": 0, "sha256": ""}))
    if not done:
        with writing(path):
            allocate(path, "x", (len(split), *PATCH_SHAPE), np.uint8)
    size = _block_size(split)
    with (
        writing(path),
        path.open("rb+") as file,
        tqdm(total=len(split), initial=done, desc=split.name, unit="patch", disable=not progress) as bar,
    ):
        file.seek(_offset(path) + done * _PATCH_BYTES)
        for number, start in enumerate(range(done, len(split), size), 1):
            block = _as_uint8(split, start, size)
            digest.update(block.data)
            _write_block(file, block)
            bar.update(len(block))
            if number % _BLOCKS_PER_CHECKPOINT == 0 or start + size >= len(split):
                # The state may only name what has reached the disk.
                file.flush()
                os.fsync(file.fileno())
                reached = {"done": start + len(block), "sha256": digest.hexdigest()}
                write_json(work / _STATE, {**state, split.name: reached})


def _verified(path: Path, done: int, sha256: str) -> tuple[int, Any]:
    """Return how many patches of an earlier attempt are on the disk as they were written, and their running SHA-256."""
    digest = hashlib.sha256()
    if not done or not path.exists():
        return 0, digest
    with path.open("rb") as file:
        file.seek(_offset(path))
        for start in range(0, done, _BLOCK):
            digest.update(file.read(min(_BLOCK, done - start) * _PATCH_BYTES))
    return (done, digest) if digest.hexdigest() == sha256 else (0, hashlib.sha256())


def _offset(path: Path) -> int:
    with open_h5(path, "x") as file:
        return int(file["x"].id.get_offset())


def _block_size(split: Split) -> int:
    """Patches a block: whole chunks where they fit, since a part of a compressed chunk costs as much as all of it."""
    chunk = split.x.chunks[0] if split.x.chunks else 1
    size = -(-_BLOCK // chunk) * chunk
    return size if size * _PATCH_BYTES * split.x.dtype.itemsize <= _BLOCK_BYTES else _BLOCK


def _as_uint8(split: Split, start: int, size: int) -> NDArray[np.uint8]:
    raw = split.read_raw(slice(start, start + size))
    if np.logical_or(*unfit(raw)).any():
        raise DataError(_refusal(split, size))
    return np.ascontiguousarray(raw.astype(np.uint8, copy=False))


def _refusal(split: Split, size: int) -> str:
    """Count all that does not fit."""
    nan, other = np.zeros((2, len(split)), dtype=bool)
    for start in range(0, len(split), size):
        block = slice(start, start + size)
        nan[block], other[block] = unfit(split.read_raw(block))
    found = " and ".join(misfits(nan, other))
    path = split_path(split.directory, split.name, "x")
    return f"{path}: x: {found}; packing would change them: see which with 'pcam audit' and leave them out"


def _write_block(file: BinaryIO, block: NDArray[np.uint8]) -> None:
    file.write(block.data)


def _pack_labels(split: Split, work: Path) -> None:
    if split.labels is not None:
        path = split_path(work, split.name, "y")
        with writing(path):
            write_array(path, "y", split.labels.reshape(-1, 1, 1, 1))


def _copy_rest(source: Path, splits: dict[str, Split], work: Path) -> None:
    """Copy the tables, and the marker and the truth of a sample: a packed sample is still a sample."""
    paths = [split_path(source, name, part) for name in splits for part in ("meta", "ids")]
    for path in (*paths, source / "truth.csv"):
        if path.exists():
            write_bytes(work / path.name, path.read_bytes())
    copy_marker(source, work)


def _report(target: Path, splits: dict[str, Split], origin: dict[str, Any], resumed: bool) -> PackReport:
    return PackReport(
        directory=target,
        patches={name: len(split) for name, split in splits.items()},
        bytes_before=sum(entry["bytes"] for entry in origin["files"].values()),
        bytes_after=sum((target / name).stat().st_size for name in origin["files"]),
        resumed=resumed,
    )
