"""Plain textured patches and data folders for the audit's tests: structure at all scales, no two patches alike."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from pcam.data.format import split_path


def canvas(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """A coloured random texture (height, width, 3): blocks of 1, 4 and 16 pixels added up."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for size, strength in ((1, 8), (4, 25), (16, 45)):
        coarse = rng.normal(0, strength, (-(-height // size), -(-width // size), 3))
        total += coarse.repeat(size, axis=0).repeat(size, axis=1)[:height, :width]
    return np.clip(140 + total, 0, 255).astype(np.uint8)


def textured(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """n unrelated patches uint8 (n, 96, 96, 3)."""
    return np.stack([canvas(96, 96, seed * 100_003 + k) for k in range(n)])


def write_folder(
    folder: Path,
    patches: dict[str, NDArray[np.generic]],
    labels: dict[str, NDArray[np.integer]] | None = None,
    slides: dict[str, list[str]] | None = None,
    **storage: object,
) -> Path:
    """Write splits in the PCam format; labels alternate where none are given."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in patches.items():
        label = np.arange(len(array)) % 2 if labels is None else labels[name]
        with h5py.File(split_path(folder, name, "x"), "w") as file:
            file.create_dataset("x", data=array, **storage)
        with h5py.File(split_path(folder, name, "y"), "w") as file:
            file["y"] = np.asarray(label, np.uint8).reshape(-1, 1, 1, 1)
        if slides and name in slides:
            rows = "\n".join(["wsi", *slides[name]])
            split_path(folder, name, "meta").write_text(rows + "\n")
    return folder
