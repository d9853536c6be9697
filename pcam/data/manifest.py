"""The manifest of a data folder, and the full check of a folder against contract and manifest.

HDF5 without compression does not notice a flipped bit, so what this package writes or fetches gets a
`manifest.json` with the size and the SHA-256 of every file; `verify` compares. A folder without a manifest is
checked against the contract alone, and in full.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pcam.data.format import SPLITS, Fault, available_splits, split_path, validate
from pcam.errors import DataError, StorageError
from pcam.storage import read_json, sha256_file, write_json

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """What a file must be: `bytes`, `sha256`, and the md5 of what it was downloaded as, if it was."""

    bytes: int
    sha256: str
    source_md5: str | None = None

    @classmethod
    def of(cls, path: Path) -> Entry:
        """Measure a file that is there.

        Raises:
            StorageError: it cannot be read.
        """
        return cls(bytes=path.stat().st_size, sha256=sha256_file(path))


def write_manifest(directory: Path | str, names: Iterable[str]) -> Path:
    """Write `manifest.json` for the named files of a folder.

    Raises:
        StorageError: a file cannot be read, or the manifest cannot be written.
    """
    folder = Path(directory)
    return _write(folder, {name: Entry.of(folder / name) for name in names})


def add_entry(directory: Path | str, name: str, entry: Entry) -> Path:
    """Add or replace one file's entry.

    Raises:
        DataError: the manifest that is there cannot be read.
        StorageError: the new one cannot be written.
    """
    folder = Path(directory)
    return _write(folder, {**read_manifest(folder), name: entry})


def read_manifest(directory: Path | str) -> dict[str, Entry]:
    """Return the entries by file name; none where there is no manifest.

    Raises:
        DataError: the file is not a manifest.
    """
    path = Path(directory) / MANIFEST
    if not path.exists():
        return {}
    try:
        files = read_json(path, "manifest")["files"]
        return {
            str(name): Entry(int(entry["bytes"]), str(entry["sha256"]), entry.get("source_md5"))
            for name, entry in files.items()
        }
    except (StorageError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: files: not a manifest; restore it, or write the folder again") from error


def verify(directory: Path | str) -> list[Fault]:
    """Name every fault of a data folder: the contract of each split, then the manifest where there is one.

    Raises:
        DataError: the folder is missing or holds no split.
    """
    folder = Path(directory)
    orphans = _orphans(folder)
    try:
        present = available_splits(folder)
    except DataError:
        if not orphans:
            raise
        present = ()
    faults = [fault for split in present for fault in validate(folder, split)]
    return faults + orphans + _compare(folder)


def _orphans(folder: Path) -> list[Fault]:
    """Name files whose patches are gone: that is a fault too, not a split that was never there."""
    faults = []
    for split in SPLITS:
        patches = split_path(folder, split, "x")
        for part in ("y", "meta", "ids"):
            path = split_path(folder, split, part)
            if path.exists() and not patches.exists():
                mend = f"fetch it with 'pcam data fetch {folder}', or remove this file"
                faults.append(Fault(str(path), "file", f"its patches are missing: there is no {patches.name}", mend))
    return faults


def _write(folder: Path, entries: Mapping[str, Entry]) -> Path:
    files = {name: asdict(entry) for name, entry in sorted(entries.items())}
    return write_json(folder / MANIFEST, {"files": files})


def _compare(folder: Path) -> list[Fault]:
    try:
        entries = read_manifest(folder)
    except DataError:
        return [Fault(str(folder / MANIFEST), "files", "not a manifest", "restore it, or write the folder again")]
    faults = []
    for name, entry in entries.items():
        file = folder / name
        if not file.is_file():
            faults.append(Fault(str(file), "file", "missing, though the manifest lists it", "restore it"))
        elif file.stat().st_size != entry.bytes:
            problem = f"{file.stat().st_size} bytes, the manifest says {entry.bytes}"
            faults.append(Fault(str(file), "bytes", problem, "write or copy it again"))
        elif sha256_file(file) != entry.sha256:
            faults.append(Fault(str(file), "sha256", "differs from the manifest", "write or copy it again"))
    return faults
