"""The manifest of a data folder, and the full check of a folder against contract and manifest.

HDF5 without compression does not notice a flipped bit, so `pcam data sample` and `pcam data pack` write
`manifest.json` with the size and the SHA-256 of every file; `verify` compares. A folder without a manifest,
such as the public record, is checked against the contract alone, and in full.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pcam.data.format import SPLITS, Fault, available_splits, split_path, validate
from pcam.errors import StorageError
from pcam.storage import read_json, sha256_file, write_json

MANIFEST = "manifest.json"


def write_manifest(directory: Path | str, names: Iterable[str]) -> Path:
    """Write `manifest.json` with size and SHA-256 of the named files of a folder.

    Raises:
        StorageError: a file cannot be read, or the manifest cannot be written.
    """
    folder = Path(directory)
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)} for name in sorted(names)
    }
    return write_json(folder / MANIFEST, {"files": files})


def verify(directory: Path | str) -> list[Fault]:
    """Name every fault of a data folder: the contract of each split, then the manifest where there is one.

    Raises:
        DataError: the folder is missing or holds no split.
    """
    folder = Path(directory)
    faults: list[Fault] = []
    present = available_splits(folder)
    for split in SPLITS:
        # A label file whose patches are gone is a fault too, not a split that was never there.
        if split in present or split_path(folder, split, "y").exists():
            faults += validate(folder, split)
    return faults + _compare(folder)


def _compare(folder: Path) -> list[Fault]:
    path = folder / MANIFEST
    if not path.exists():
        return []
    try:
        files: dict[str, dict[str, Any]] = read_json(path, "manifest")["files"]
        expected = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except (StorageError, KeyError, TypeError, ValueError, AttributeError):
        return [Fault(str(path), "files", "not a manifest", "restore it, or write the folder again")]
    faults = []
    for name, (size, digest) in sorted(expected.items()):
        file = folder / name
        if not file.is_file():
            faults.append(Fault(str(file), "file", "missing, though the manifest lists it", "restore it"))
        elif file.stat().st_size != size:
            problem = f"{file.stat().st_size} bytes, the manifest says {size}"
            faults.append(Fault(str(file), "bytes", problem, "write or copy it again"))
        elif sha256_file(file) != digest:
            faults.append(Fault(str(file), "sha256", "differs from the manifest", "write or copy it again"))
    return faults
