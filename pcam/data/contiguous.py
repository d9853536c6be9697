"""Contiguous HDF5 files whose values this package writes itself.

A file that h5py is writing to is unreadable after a kill, and where the disk is full, closing it crashes the process.
So HDF5 makes only the header, in memory; the values are plain bytes, written where the header says, and an error of
the disk is an ordinary `OSError`. The header holds no time: the same values give the same file.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray


def allocate(path: Path, key: str, shape: tuple[int, ...], dtype: DTypeLike) -> int:
    """Create a file with room for the dataset `key`.

    Returns:
        The place in the file, in bytes, where its values go in C order.

    Raises:
        OSError: the file cannot be written.
    """
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)
    header = io.BytesIO()
    with h5py.File(header, "w") as file:
        kind, space = h5py.h5t.py_create(np.dtype(dtype)), h5py.h5s.create_simple(shape)
        offset = int(h5py.h5d.create(file.id, key.encode(), kind, space, layout).get_offset())
    with path.open("wb") as file:
        file.write(header.getbuffer())
        file.truncate(max(len(header.getbuffer()), offset + math.prod(shape) * np.dtype(dtype).itemsize))
    return offset


def write_array(path: Path, key: str, array: NDArray[Any]) -> None:
    """Write a file with one array as its dataset `key`.

    Raises:
        OSError: the file cannot be written.
    """
    offset = allocate(path, key, array.shape, array.dtype)
    with path.open("rb+") as file:
        file.seek(offset)
        file.write(np.ascontiguousarray(array).data)
