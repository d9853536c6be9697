"""Write a synthetic sample: a folder of painted patches in the true PCam file format.

The sample lets everything run, be tested and be published where the public record is not at hand.
`sample.json` marks the folder as synthetic and holds the parameters that made it; `truth.csv` lists the
planted defects and the overlaps that every sample has; `manifest.json` holds the checksums. The folder appears
whole or not at all.
"""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from tqdm import tqdm

from pcam.data.contiguous import allocate, write_array
from pcam.data.defects import COURSE_POSITIVE, DefectPlan, Planted, check_names
from pcam.data.format import PATCH_SHAPE, SAMPLE_MARKER, SPLITS, split_path
from pcam.data.manifest import read_manifest, write_manifest
from pcam.data.sampler import Sampler
from pcam.errors import DataError, StorageError
from pcam.storage import atomic_path, read_json, write_json

GENERATOR = 3  # goes up with every change of the painted bytes
TRUTH = "truth.csv"
META_COLUMNS = ("coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi")


def write_sample(
    directory: Path | str,
    *,
    train: int = 1024,
    valid: int = 384,
    test: int = 384,
    seed: int = 0,
    defects: Sequence[str] = (),
    progress: bool = False,
) -> Path:
    """Write a synthetic sample, or return the same one if it is there already.

    Args:
        directory: missing, empty, or holding the same sample.
        train: number of patches; a split of 0 patches is left out.
        valid: likewise.
        test: likewise.
        seed: 0 or more; the same seed gives the same patches whatever their number.
        defects: names of `pcam.data.defects.NAMES`.
        progress: show a progress bar.

    Returns:
        The folder.

    Raises:
        DataError: an unknown defect, a number out of range, or a folder that holds something else.
        StorageError: the folder cannot be written, or the disk is too small; nothing is left then.
    """
    folder = Path(directory)
    counts = {"train": train, "valid": valid, "test": test}
    if min(counts.values()) < 0 or not any(counts.values()):
        raise DataError(f"sample of {train}/{valid}/{test} patches: give numbers from 0, at least one above 0")
    if seed < 0:
        raise DataError(f"sample seed {seed}: give a number from 0")
    names = check_names(defects)
    recipe = {"synthetic": True, "generator": GENERATOR, "seed": seed, **counts, "defects": list(names)}
    if _is_there(folder, recipe):
        return folder
    _check_room(folder, sum(counts.values()))
    sampler = Sampler(seed, {"train": COURSE_POSITIVE} if "course" in names else None)
    plan = DefectPlan(sampler, counts, names)
    try:
        with (
            atomic_path(folder) as temporary,
            tqdm(total=sum(counts.values()), desc="sample", unit="patch", disable=not progress) as bar,
        ):
            temporary.mkdir()
            for split in SPLITS:
                if counts[split]:
                    with_labels = not (split == "test" and "course" in names)
                    _write_split(temporary, split, counts[split], plan, with_labels, bar)
            _write_truth(temporary, plan.truth(counts))
            write_json(temporary / SAMPLE_MARKER, recipe)
            write_manifest(temporary, [path.name for path in temporary.iterdir()])
    except StorageError:
        if not _is_there(folder, recipe):  # another process may have been faster with the same sample
            raise
    return folder


def read_truth(directory: Path | str) -> list[Planted]:
    """Return what a sample's `truth.csv` lists.

    Raises:
        DataError: there is no such file, or it is not one.
    """
    path = Path(directory) / TRUTH
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                Planted(
                    split=row["split"],
                    index=int(row["index"]),
                    issue=row["issue"],
                    partner_split=row["partner_split"],
                    partner_index=int(row["partner_index"]) if row["partner_index"] else None,
                    origin=row["origin"],
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: no truth file of a sample; make one with 'pcam data sample'") from error


def _check_room(folder: Path, patches: int) -> None:
    """Refuse at once what would fill the disk after hours of painting."""
    parent = next(path for path in folder.absolute().parents if path.exists())
    needed, free = patches * math.prod(PATCH_SHAPE), shutil.disk_usage(parent).free
    if needed > free:
        problem = f"{patches} patches need {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free"
        raise StorageError(f"{folder}: {problem}; ask for fewer patches or choose another disk")


def _is_there(folder: Path, recipe: dict[str, Any]) -> bool:
    """Return whether the folder holds this very sample; False when it is missing or empty."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    marker = folder / SAMPLE_MARKER
    if not marker.is_file():
        raise DataError(f"{folder}: not empty and not a synthetic sample; give an empty or new folder")
    try:
        found, entries = dict(read_json(marker, "sample")), read_manifest(folder)
        whole = entries and all((folder / name).stat().st_size == entry.bytes for name, entry in entries.items())
    except (StorageError, DataError, OSError, TypeError, ValueError):
        whole = False
    if not whole:
        raise DataError(f"{folder}: a damaged sample; remove the folder and make it again")
    for key, value in recipe.items():
        if found.get(key) != value:
            problem = f"holds another sample ({key} is {found.get(key)}, not {value})"
            raise DataError(f"{folder}: {problem}; give another folder or remove it")
    return True


def _write_split(folder: Path, split: str, count: int, plan: DefectPlan, with_labels: bool, bar: tqdm) -> None:
    dtype = np.float32 if split == "train" and plan.float_train else np.uint8
    labels = np.empty(count, dtype=np.uint8)
    path = split_path(folder, split, "x")
    offset = allocate(path, "x", (count, *PATCH_SHAPE), dtype)
    with (
        path.open("rb+") as x,
        split_path(folder, split, "meta").open("w", newline="", encoding="utf-8") as meta,
    ):
        x.seek(offset)
        rows = _csv_writer(meta, META_COLUMNS)
        for index in range(count):
            patch, pixels, labels[index] = plan.patch(split, index)
            x.write(np.ascontiguousarray(pixels, dtype=dtype).data)
            rows.writerow((patch.y, patch.x, patch.tumour, bool(patch.label), patch.slide))
            bar.update()
    if with_labels:
        write_array(split_path(folder, split, "y"), "y", labels.reshape(-1, 1, 1, 1))


def _write_truth(folder: Path, truth: list[Planted]) -> None:
    with (folder / TRUTH).open("w", newline="", encoding="utf-8") as file:
        rows = _csv_writer(file, tuple(field.name for field in fields(Planted)))
        rows.writerows(astuple(planted) for planted in truth)


def _csv_writer(file: TextIO, header: Sequence[str]) -> Any:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    return writer
