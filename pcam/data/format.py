"""The PCam contract: which files a data folder holds, what is in them, and how they are opened.

    camelyonpatch_level_2_split_{train,valid,test}_x.h5    dataset "x"  uint8 (N, 96, 96, 3), RGB
    camelyonpatch_level_2_split_{train,valid,test}_y.h5    dataset "y"  uint8 (N, 1, 1, 1), 0 or 1
    camelyonpatch_level_2_split_{train,valid,test}_meta.csv             column "wsi": the slide of each patch

A folder need not hold every split, and `y` and the meta file may be missing. Copies with another dtype,
chunking or compression are read too, as long as every value is an integer in 0..255.
Source: Veeling et al. 2018 (arXiv 1806.03962), Zenodo record 2546921.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from pcam.data.hdf5 import Fault, check_array, damaged, open_h5, reading
from pcam.data.tables import read_column
from pcam.data.values import misfits, unfit
from pcam.errors import DataError, did_you_mean

SPLITS = ("train", "valid", "test")
PATCH_SHAPE = (96, 96, 3)
SAMPLE_MARKER = "sample.json"
_PREFIX = "camelyonpatch_level_2_split"
_BLOCK = 512  # patches read at a time where a whole split is walked: 14 MB

T = TypeVar("T")


def split_path(directory: Path | str, split: str, part: str) -> Path:
    """Return the path of one file: `part` is "x", "y", "meta" or "ids"."""
    suffix = "h5" if part in ("x", "y") else "csv"
    return Path(directory) / f"{_PREFIX}_{split}_{part}.{suffix}"


def _existing(directory: Path | str) -> Path:
    folder = Path(directory)
    if folder.is_file():
        raise DataError(f"{folder}: a file, not a folder of PCam files; name the folder that holds them")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such data folder; make one with 'pcam data sample {folder}'")
    return folder


def available_splits(directory: Path | str) -> tuple[str, ...]:
    """Return the splits whose `x` file is there, in the order train, valid, test.

    Raises:
        DataError: the folder is missing or holds no split.
    """
    folder = _existing(directory)
    found = tuple(split for split in SPLITS if split_path(folder, split, "x").exists())
    if not found:
        raise DataError(
            f"{folder}: no PCam files ({_PREFIX}_*_x.h5) in it; make some with 'pcam data sample' or 'pcam data fetch'"
        )
    return found


def data_kind(directory: Path | str) -> str:
    """Return "synthetic" for a folder written by `pcam data sample`, or a copy of one, else "real"."""
    marker, manifest = Path(directory) / SAMPLE_MARKER, Path(directory) / "manifest.json"
    # Whatever the marker holds; and the manifest still names one that was lost: damage makes no patch real.
    listed = manifest.is_file() and f'"{SAMPLE_MARKER}"'.encode() in manifest.read_bytes()
    return "synthetic" if listed or os.path.lexists(marker) else "real"


class Split:
    """One split, opened lazily and once per process; it can be pickled and sent to workers.

    Attributes:
        directory: the data folder.
        name: "train", "valid" or "test".
    """

    def __init__(self, directory: Path | str, name: str) -> None:
        self.directory = Path(directory)
        self.name = name
        self._handle: h5py.File | None = None
        self._pid = -1
        self._opened = {
            os.fspath(path): _state(os.fspath(path)) for path in (self._path, split_path(directory, name, "y"))
        }

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def __repr__(self) -> str:
        return f"Split({str(self.directory)!r}, {self.name!r}, n={len(self)})"

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "name": self.name, "_handle": None, "_pid": -1, "_opened": self._opened}

    @property
    def _path(self) -> Path:
        return split_path(self.directory, self.name, "x")

    @property
    def n(self) -> int:
        """The number of patches."""
        return len(self)

    @property
    def x(self) -> h5py.Dataset:
        """The stored patches as an open HDF5 dataset (N, 96, 96, 3)."""
        # HDF5 handles do not survive a fork: each process opens its own.
        if self._handle is None or self._pid != os.getpid():
            self._handle, self._pid = open_h5(self._path, "x"), os.getpid()
        return self._handle["x"]

    def check_unchanged(self) -> None:
        """Check that the patch and the label file are those that were opened: two `stat` calls.

        Raises:
            DataError: size, time of writing or inode of one of them changed since.
        """
        for path, before in self._opened.items():
            if _state(path) != before:
                raise DataError(f"{path}: file: changed while it was open; leave it alone and start again")

    def while_unchanged(self, batches: Iterator[T]) -> Iterator[T]:
        """Pass on what is read from the files until one of them changes; then raise as `check_unchanged`."""
        for batch in batches:
            self.check_unchanged()
            yield batch

    @cached_property
    def labels(self) -> NDArray[np.uint8] | None:
        """Labels uint8 (N,), 1 where tumour touches the centre 32×32; None when there is no `y` file."""
        path = split_path(self.directory, self.name, "y")
        if not path.exists():
            return None
        with open_h5(path, "y") as file, reading(path, "y"):
            return np.asarray(file["y"][:], dtype=np.uint8).reshape(-1)

    @cached_property
    def slides(self) -> NDArray[np.str_] | None:
        """The slide name (N,) of each patch from the meta file's `wsi`; None when there is no meta file."""
        return read_column(split_path(self.directory, self.name, "meta"), "wsi", len(self))

    @cached_property
    def groups(self) -> NDArray[np.int64] | None:
        """A group number (N,) for patches that are not independent of each other; see `group_kind`."""
        names = self.slides if self.slides is not None else self._overlap_groups
        return None if names is None else np.unique(names, return_inverse=True)[1].astype(np.int64)

    @property
    def group_kind(self) -> str | None:
        """What `groups` are: "slide", "overlap group" (of an ids file), or None."""
        if self.slides is not None:
            return "slide"
        return None if self._overlap_groups is None else "overlap group"

    @cached_property
    def _overlap_groups(self) -> NDArray[np.str_] | None:
        return read_column(split_path(self.directory, self.name, "ids"), "overlap_group", len(self))

    def read_raw(self, indices: Sequence[int] | NDArray[np.integer] | slice) -> NDArray[Any]:
        """Return the patches (B, 96, 96, 3) in the stored dtype, in the order asked; an index may repeat.

        Raises:
            DataError: a part of the file is damaged.
        """
        x = self.x
        if isinstance(indices, slice):
            with reading(self._path, "x", indices.indices(len(x))[0]):
                return np.asarray(x[indices])
        wanted = np.asarray(indices, dtype=np.int64)
        out = np.empty((len(wanted), *PATCH_SHAPE), dtype=x.dtype)
        # A loop in file order: h5py's fancy indexing is much slower.
        try:
            for place in np.argsort(wanted, kind="stable"):
                x.read_direct(out, np.s_[wanted[place]], np.s_[place])
        except OSError as error:
            raise DataError(str(damaged(self._path, "x", int(wanted[place])))) from error
        return out

    def read(self, indices: Sequence[int] | NDArray[np.integer] | slice) -> NDArray[np.uint8]:
        """Return patches uint8 (B, 96, 96, 3), in the order asked.

        Raises:
            DataError: a value is NaN or not an integer in 0..255, or a part of the file is damaged.
        """
        raw = self.read_raw(indices)
        if raw.dtype == np.uint8:
            return raw
        with np.errstate(invalid="ignore"):
            patches = raw.astype(np.uint8)
        if not np.array_equal(patches, raw):
            problems = " and ".join(misfits(*unfit(raw), np.arange(len(self))[indices]))
            raise DataError(
                f"{self._path}: x: stored as {raw.dtype} with {problems} (of those read); find them with 'pcam audit'"
            )
        return patches

    def fingerprint(self) -> str:
        """Return the SHA-256 of the split's logical content: dtype-free patch values and labels.

        The same patches give the same fingerprint whatever the chunking, compression or integer-valued dtype.
        """
        digest = hashlib.sha256(f"{self.name} {len(self)}".encode())
        for start in range(0, len(self), _BLOCK):
            raw = self.read_raw(slice(start, start + _BLOCK))
            with np.errstate(invalid="ignore"):
                patches = raw.astype(np.uint8)
            integral = raw.dtype == np.uint8 or np.array_equal(patches, raw)
            digest.update(np.ascontiguousarray(patches if integral else raw).data)
        digest.update(b"no labels" if self.labels is None else self.labels.tobytes())
        return digest.hexdigest()


def _state(path: str) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path)  # noqa: PTH116 - called with every batch, and a Path takes longer to make than the call
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def open_split(directory: Path | str, split: str) -> Split:
    """Open a split after checking everything about it that does not need its pixels.

    Raises:
        DataError: the first fault that `validate` would name (pixel values excepted), with its mend.
    """
    faults = validate(directory, split, values=False)
    if faults:
        raise DataError(str(faults[0]))
    return Split(directory, split)


def validate(directory: Path | str, split: str, *, values: bool = True) -> list[Fault]:
    """Name every fault of a split's files.

    Args:
        directory: the data folder.
        split: "train", "valid" or "test".
        values: also walk the pixels for NaN and values that are not integers in 0..255.

    Raises:
        DataError: the folder is missing, or `split` is not a split's name.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split '{split}'{did_you_mean(split, SPLITS)}")
    folder = _existing(directory)
    faults: list[Fault] = []
    x_path, y_path = split_path(folder, split, "x"), split_path(folder, split, "y")
    n = check_array(x_path, "x", PATCH_SHAPE, faults)
    if n is not None and values:
        _check_pixels(Split(folder, split), x_path, faults)
    if y_path.exists():
        n_labels = check_array(y_path, "y", (1, 1, 1), faults)
        if n_labels is not None:
            _check_labels(y_path, n, n_labels, faults)
    for part, column in (("meta", "wsi"), ("ids", "overlap_group")):
        path = split_path(folder, split, part)
        if n is not None and path.exists():
            try:
                read_column(path, column, n)
            except DataError as error:
                faults.append(
                    Fault(str(path), column, str(error).removeprefix(f"{path}: "), "restore the file or remove it")
                )
    return faults


def _check_pixels(split: Split, path: Path, faults: list[Fault]) -> None:
    nan, other = np.zeros((2, len(split)), dtype=bool)
    try:
        for start in range(0, len(split), _BLOCK):
            # Nothing to look at in the values of uint8, but reading them finds damaged compressed chunks.
            block = slice(start, start + _BLOCK)
            nan[block], other[block] = unfit(split.read_raw(block))
    except DataError:
        faults.append(damaged(path, "x", start))
        return
    faults += [
        Fault(str(path), "x", text, "see which with 'pcam audit' and leave them out") for text in misfits(nan, other)
    ]


def _check_labels(path: Path, n: int | None, n_labels: int, faults: list[Fault]) -> None:
    if n is not None and n != n_labels:
        faults.append(Fault(str(path), "y", f"{n_labels} labels for {n} patches", "fetch x and y of the same copy"))
    try:
        with open_h5(path, "y") as file, reading(path, "y"):
            found = np.unique(file["y"][:])
    except DataError:
        faults.append(damaged(path, "y", 0))
        return
    if not np.isin(found, (0, 1)).all():
        wrong = found[~np.isin(found, (0, 1))][0]
        faults.append(Fault(str(path), "y", f"label {wrong} is neither 0 nor 1", "store 0 (no tumour) or 1 (tumour)"))
