"""HDF5 files, opened as data and as nothing else.

An HDF5 file can do more than hold numbers: links, virtual datasets and external storage read other paths, and a filter
that the library does not know makes it search folders for a plugin and run what it finds. A data file that came from
somewhere must do neither, so all of it is looked at in the file's own tables before the first value is read.
Source: the HDF5 file format specification, version 3, messages 0003 (layout), 0007 (external files), 000B (filters).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py

from pcam.errors import DataError, clip

# Filters that the library or h5py brings along, by their registered number; any other would be loaded from a plugin.
FILTERS = {
    h5py.h5z.FILTER_DEFLATE: "gzip",
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
    h5py.h5z.FILTER_SZIP: "szip",
    h5py.h5z.FILTER_LZF: "lzf",
    h5py.h5z.FILTER_NBIT: "nbit",
    h5py.h5z.FILTER_SCALEOFFSET: "scaleoffset",
}
_LINKS = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "an external link"}
_CHUNK_BYTES = 1 << 29  # a compressed chunk is read whole, however little of it is wanted
# What h5py raises on tables that are damaged, by where it meets them.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)


@dataclass(frozen=True)
class Fault:
    """One way in which a file breaks the contract: `file`, the `field` in it, the `problem` and its `mend`."""

    file: str
    field: str
    problem: str
    mend: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field}: {self.problem}; {self.mend}"


def open_h5(path: Path, key: str) -> h5py.File:
    """Open a data file to read its dataset `key`.

    Raises:
        DataError: it is missing, cannot be read, or would read other paths or load code.
    """
    file = _opened(path, key)
    if isinstance(file, Fault):
        raise DataError(str(file))
    return file


def damaged(path: Path, key: str, start: int) -> Fault:
    """Return the fault of a file whose values from patch `start` on cannot be read."""
    return Fault(str(path), key, f"damaged: patches near {start} cannot be read", "fetch it again")


@contextmanager
def reading(path: Path, key: str, start: int = 0) -> Iterator[None]:
    """Turn h5py's `OSError` about values from patch `start` on into a one-line `DataError`."""
    try:
        yield
    except OSError as error:
        raise DataError(str(damaged(path, key, start))) from error


def check_array(path: Path, key: str, item: tuple[int, ...], faults: list[Fault]) -> int | None:
    """Check one file's key, dtype and shape (N, *item) and add what is wrong to `faults`.

    Returns:
        N, or None when the dataset cannot be used.
    """
    file = _opened(path, key)
    if isinstance(file, Fault):
        faults.append(file)
        return None
    with file:
        try:
            found = _array_fault(file, path, key, item)
        except _DAMAGE:
            found = _damaged_tables(path, key)
        if isinstance(found, Fault):
            faults.append(found)
            return None
        return found


def _array_fault(file: h5py.File, path: Path, key: str, item: tuple[int, ...]) -> Fault | int:
    array = file.get(key)
    if array is None and key in set(file):
        return _damaged_tables(path, key)
    if not isinstance(array, h5py.Dataset):
        found = clip(", ".join(sorted(file))) or "nothing"
        return Fault(str(path), key, f"no dataset '{key}' in it (found {found})", f"rename it to '{key}'")
    if array.ndim != 1 + len(item) or array.shape[1:] != item:
        expected = "(N, " + ", ".join(map(str, item)) + ")"
        return Fault(str(path), key, f"shape {array.shape} is not {expected}", "store it in that shape")
    if array.dtype.kind not in "uif" or array.dtype.itemsize > 8:
        return Fault(str(path), key, f"dtype {array.dtype} is not uint8", "store it as uint8")
    if array.chunks and math.prod(array.chunks) * array.dtype.itemsize > _CHUNK_BYTES:
        return Fault(str(path), key, "chunks of more than 512 MiB", "store it in chunks of fewer patches")
    if array.shape[0] == 0:
        return Fault(str(path), key, "the split is empty", "give it at least one patch")
    if unwritten := _unwritten(array):
        return Fault(str(path), key, f"incomplete: {unwritten} was never written", "fetch it again")
    try:
        array[array.shape[0] - 1]  # a file cut after its header opens, and fails only here
    except OSError:
        return Fault(str(path), key, "truncated or damaged: its last patch cannot be read", "fetch it again")
    return int(array.shape[0])


def _unwritten(array: h5py.Dataset) -> str:
    """Say what has no place in the file: HDF5 would read it as zeros, and so as black patches."""
    if array.chunks is None:
        return f"{missing:,} B of it" if (missing := array.nbytes - array.id.get_storage_size()) > 0 else ""
    needed = math.prod(-(-size // chunk) for size, chunk in zip(array.shape, array.chunks, strict=True))
    return f"{missing:,} of {needed:,} chunks" if (missing := needed - array.id.get_num_chunks()) > 0 else ""


def _opened(path: Path, key: str) -> h5py.File | Fault:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            return Fault(str(path), "file", "not a file", "fetch it again")
        file = h5py.File(path, "r")
    except FileNotFoundError:
        return Fault(str(path), "file", "missing", f"fetch it with 'pcam data fetch {path.parent}'")
    except OSError as error:
        return Fault(str(path), "file", _unreadable(error), "fetch it again")
    try:
        fault = _outward(file, path, key)
    except _DAMAGE:
        fault = _damaged_tables(path, key)
    if fault is None:
        return file
    file.close()
    return fault


def _damaged_tables(path: Path, key: str) -> Fault:
    return Fault(str(path), key, "damaged: its tables cannot be read", "fetch it again")


def _unreadable(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "permission denied"
    if "truncated" in str(error):
        return "truncated"
    return "not an HDF5 file"


def _outward(file: h5py.File, path: Path, key: str) -> Fault | None:
    """Find what would lead out of the file, by looking at links and headers only: nothing is followed or read."""

    def other_link(name: bytes, info: h5py.h5l.LinkInfo) -> tuple[str, str] | None:
        if info.type == h5py.h5l.TYPE_HARD:
            return None
        return clip(name.decode(errors="backslashreplace")), _LINKS.get(info.type, "a foreign link")

    if link := file.id.links.visit(other_link, info=True):
        return Fault(
            str(path), link[0], f"{link[1]}, which may read another file", "store the values in the file itself"
        )
    array = file.get(key)
    if not isinstance(array, h5py.Dataset):
        return None
    layout = array.id.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL:
        return Fault(
            str(path), key, "a virtual dataset, which reads other files", "store the values in the file itself"
        )
    if layout.get_external_count():
        return Fault(
            str(path), key, "external storage, which reads another file", "store the values in the file itself"
        )
    for number in range(layout.get_nfilters()):
        code = layout.get_filter(number)[0]
        if code not in FILTERS or (FILTERS[code] == "szip" and "szip" not in h5py.filters.decode):
            return Fault(str(path), key, f"filter {code} would load code from a plugin", "store it plain or with gzip")
    return None
