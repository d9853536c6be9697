"""Changed copies of a data folder, for experiments that plant something in known patches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcam.data.contiguous import write_array
from pcam.data.format import SAMPLE_MARKER, data_kind, split_path
from pcam.storage import atomic_path, write_bytes


def write_copy(
    source: Path | str, out: Path | str, patches: Mapping[str, NDArray[Any]], labels: Mapping[str, NDArray[np.uint8]]
) -> None:
    """Write splits into a folder; a copy of a synthetic sample still says that it is one.

    Args:
        source: the data folder that the copy is made from.
        out: the folder to write into.
        patches: by split, (n, 96, 96, 3) of any type.
        labels: by split, (n,).

    Raises:
        OSError: a file cannot be written; no half of it is left under its name.
    """
    for name in patches:
        for part, values in (("x", patches[name]), ("y", labels[name].reshape(-1, 1, 1, 1))):
            with atomic_path(split_path(out, name, part)) as path:
                write_array(path, part, values)
    copy_marker(source, out)


def copy_marker(source: Path | str, out: Path | str) -> None:
    """Mark a copy of a synthetic sample as one, also where the sample's own marker is lost or damaged."""
    if data_kind(source) == "synthetic":
        marker = Path(source) / SAMPLE_MARKER
        write_bytes(Path(out) / SAMPLE_MARKER, marker.read_bytes() if marker.is_file() else b"{}\n")
