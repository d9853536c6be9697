"""What can go wrong between a person's intention and a run, done on purpose to see what happens."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pcam.config import Config, build_config, config_hash
from pcam.data.format import Split, split_path
from pcam.errors import ConfigError, DataError
from pcam.storage import make_folder
from pcam.training.compare import Leaf, parameters
from pcam.training.runs import run_id


def complaint(override: str) -> str:
    """Return the one line that an override is refused with; empty when it is accepted."""
    try:
        build_config({}, [override])
    except ConfigError as error:
        return str(error)
    return ""


def hashes_of_changed_leaves() -> dict[str, bool]:
    """Change every leaf of the default configuration alone; return whether its hash moved, by leaf.

    Raises:
        ConfigError: a leaf has no other allowed value that is tried here.
    """
    original = config_hash(Config())
    return {leaf.key: config_hash(_with_another_value(leaf)) != original for leaf in parameters()}


def _with_another_value(leaf: Leaf) -> Config:
    candidates: tuple[Any, ...] = leaf.choices
    if not candidates and isinstance(leaf.default, bool):
        candidates = (not leaf.default,)
    elif not candidates and isinstance(leaf.default, int | float):
        candidates = (leaf.default + 1, leaf.default / 2 + 0.1)
    for value in candidates or (3, "another"):
        if value != leaf.default:
            try:
                return build_config({}, [f"{leaf.key}={str(value).lower()}"])
            except ConfigError:
                continue  # out of this leaf's limits: the next one
    raise ConfigError(f"{leaf.key}: no other value than {leaf.default!r} was found to be allowed")


def run_names_of_copies(config: Config, split: Split, folder: Path, patches: int = 64) -> dict[str, str]:
    """Return the name that a run would get on copies of the same patches, by what was done to the copy.

    Args:
        config: of the run; both of its splits are made from the first patches of `split`.
        split: where the patches come from.
        folder: emptied first; the copies are written in it.
        patches: how many.

    Raises:
        DataError: the split has no labels.
    """
    if folder.exists():
        shutil.rmtree(folder)
    if split.labels is None:
        raise DataError(f"{split.directory}: {split.name} has no labels; a run needs them")
    x, y = split.read(slice(0, patches)), split.labels[:patches]
    pixel, label = x.copy(), y.copy()
    pixel[0, 0, 0, 0] ^= 1
    label[0] ^= 1
    copies: dict[str, tuple[NDArray[Any], NDArray[np.uint8], dict[str, Any]]] = {
        "as it is": (x, y, {}),
        "in another folder": (x, y, {}),
        "compressed": (x, y, {"compression": "gzip", "compression_opts": 1, "chunks": (1, *x.shape[1:])}),
        "stored as float32": (x.astype(np.float32), y, {}),
        "one pixel changed by one": (pixel, y, {}),
        "one label changed": (x, label, {}),
        "two patches swapped": (x[[1, 0, *range(2, len(x))]], y[[1, 0, *range(2, len(y))]], {}),
    }
    names: dict[str, str] = {}
    for number, (what, (pictures, labels, storage)) in enumerate(copies.items()):
        place = make_folder(folder / str(number))
        for name in (config.data.train_split, config.data.valid_split):
            _write(split_path(place, name, "x"), "x", pictures, storage)
            _write(split_path(place, name, "y"), "y", labels.reshape(-1, 1, 1, 1), {})
        names[what] = run_id(config, place)
    return names


def _write(path: Path, key: str, values: NDArray[Any], storage: dict[str, Any]) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=values, **storage)
