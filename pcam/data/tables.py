"""The tables beside the patches: one row a patch, of which one column is wanted."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcam.errors import DataError


def read_column(path: Path, column: str, n: int) -> NDArray[np.str_] | None:
    """Return the texts (n,) of a CSV file's column; None when there is no such file.

    Raises:
        DataError: it is not a CSV file, has no such column, or not one row for each of the n patches.
    """
    if not path.exists():
        return None
    try:
        # Spreadsheets begin a file with a byte order mark, which would become a part of the first column's name.
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if column not in (rows.fieldnames or ()):
                raise DataError(f"{path}: no column '{column}'")
            values = [row[column] or "" for row in rows]
            if "" in values:  # taken for a name, it would tie patches to each other that have nothing in common
                raise DataError(f"{path}: row {values.index('') + 2} has no '{column}'")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file ({error})") from error
    if len(values) != n:
        raise DataError(f"{path}: {len(values)} rows for {n} patches")
    return np.array(values, dtype=np.str_)
