"""What the installed environment weighs, package by package: why CI takes PyTorch's CPU build."""

from __future__ import annotations

from importlib.metadata import distributions
from pathlib import Path

import pandas as pd

_GPU_ONLY = ("nvidia-", "triton", "cuda-", "pytorch-triton")


def installed_packages() -> pd.DataFrame:
    """Return columns package, version, files, megabytes, gpu_only; the largest first.

    `gpu_only` marks the packages that PyTorch's CUDA build brings and a machine without a GPU never loads.
    """
    rows = {}
    for found in distributions():
        name = str(found.metadata["Name"])
        sizes = [
            path.stat().st_size for file in found.files or [] if (path := Path(str(found.locate_file(file)))).is_file()
        ]
        rows[name.lower()] = (name, found.version, len(sizes), sum(sizes) / 1e6, name.lower().startswith(_GPU_ONLY))
    table = pd.DataFrame(list(rows.values()), columns=["package", "version", "files", "megabytes", "gpu_only"])
    return table.sort_values(["megabytes", "package"], ascending=[False, True], ignore_index=True)
