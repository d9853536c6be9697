"""Tiny data folders in the true file format, each broken on purpose in one way.

`make_broken(name, directory)` writes a train split of six patches. `REFUSED` names those that opening refuses,
`BAD_VALUES` those whose pixels are wrong, which only a full check or the audit sees, each with what the error
must say. "one_class" keeps the contract, yet nothing can be learnt from or measured on it.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

N = 6
REFUSED = {
    "missing": r"train_x\.h5: file: missing; fetch it",
    "truncated": r"train_x\.h5: file: truncated; fetch it again",
    "not_hdf5": r"train_x\.h5: file: not an HDF5 file",
    "wrong_key": r"train_x\.h5: x: no dataset 'x' in it \(found images\); rename it",
    "wrong_dtype": r"train_x\.h5: x: dtype complex64 is not uint8",
    "wrong_shape": r"train_x\.h5: x: shape \(6, 3, 96, 96\) is not \(N, 96, 96, 3\)",
    "unequal": r"train_y\.h5: y: 5 labels for 6 patches",
    "empty": r"train_x\.h5: x: the split is empty",
    "bad_label": r"train_y\.h5: y: label 2 is neither 0 nor 1",
    "labels_not_hdf5": r"train_y\.h5: file: not an HDF5 file",
    "meta_rows": r"train_meta\.csv: wsi: 5 rows for 6 patches",
    "meta_cell": r"train_meta\.csv: wsi: row 4 has no 'wsi'; restore the file or remove it",
    "meta_blank": r"train_meta\.csv: wsi: row 5 has no 'wsi'; restore the file or remove it",
    "meta_folder": r"train_meta\.csv: wsi: cannot be read \(Is a directory\)",
    "meta_column": r"train_meta\.csv: wsi: no column 'wsi'",
}
BAD_VALUES = {
    "nan": r"train_x\.h5: x: NaN in 1 of 6 patches, the first at index 4; see which",
    "out_of_range": r"train_x\.h5: x: values that are not integers in 0\.\.255 in 1 of 6 patches, the first at index 4",
    "fraction": r"train_x\.h5: x: values that are not integers in 0\.\.255 in 6 of 6 patches, the first at index 0",
    "damaged_chunk": r"train_x\.h5: x: damaged: patches near 0 cannot be read",
}
NAMES = (*REFUSED, *BAD_VALUES, "one_class")


def make_broken(name: str, directory: Path) -> Path:
    """Write the folder `name` (one of `NAMES`) to `directory` and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (N, 96, 96, 3)).astype(np.uint8)
    labels = np.arange(N, dtype=np.uint8) % 2
    if name == "one_class":
        labels[:] = 0
    elif name == "bad_label":
        labels[3] = 2
    elif name == "unequal":
        labels = labels[:5]
    elif name == "empty":
        pixels, labels = pixels[:0], labels[:0]

    x = directory / "camelyonpatch_level_2_split_train_x.h5"
    y = directory / "camelyonpatch_level_2_split_train_y.h5"
    meta = directory / "camelyonpatch_level_2_split_train_meta.csv"
    with h5py.File(y, "w") as file:
        file["y"] = labels.reshape(-1, 1, 1, 1)
    with h5py.File(x, "w") as file:
        if name == "damaged_chunk":
            file.create_dataset("x", data=pixels, chunks=(2, 96, 96, 3), compression="gzip")
        else:
            file["images" if name == "wrong_key" else "x"] = _pixels(name, pixels)

    if name == "missing":
        x.unlink()
    elif name == "truncated":
        x.write_bytes(x.read_bytes()[: x.stat().st_size // 2])
    elif name == "not_hdf5":
        x.write_text("<html>404 Not Found</html>")
    elif name == "labels_not_hdf5":
        y.write_bytes(b"")
    elif name == "meta_rows":
        meta.write_text("wsi\n" + "slide\n" * (N - 1))
    elif name == "meta_cell":
        meta.write_text("tumour,wsi\n0,a\n1,b\n0\n1,b\n0,b\n1,b\n")
    elif name == "meta_blank":
        meta.write_text("tumour,wsi\n0,a\n1,b\n0,a\n1,\n0,b\n1,b\n")
    elif name == "meta_folder":
        meta.mkdir()
    elif name == "meta_column":
        meta.write_text("slide\n" + "slide\n" * N)
    elif name == "damaged_chunk":
        content = bytearray(x.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 64] = bytes(64)
        x.write_bytes(content)
    return directory


def _pixels(name: str, pixels: np.ndarray) -> np.ndarray:
    if name == "wrong_dtype":
        return pixels.astype(np.complex64)
    if name == "wrong_shape":
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    if name == "fraction":
        return (pixels / np.float32(255)).astype(np.float32)
    if name in ("nan", "out_of_range"):
        spoilt = pixels.astype(np.float32)
        spoilt[4, 10, 10] = np.nan if name == "nan" else 1e5
        return spoilt
    return pixels
