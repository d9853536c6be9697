"""Prediction on image files: a score where the file is a patch, a verdict where it is not.

A file is either exactly what the model was trained on, 96×96 RGB with 8 bits, or it is refused with the reason. A
resized, greyscale or half-read image would get a confident score too, and nobody would know. Files are read in order
and scored in batches, so ten thousand of them need no more memory than a few hundred.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pcam import storage
from pcam.data.format import PATCH_SHAPE, Split
from pcam.errors import DataError
from pcam.evaluation.predict import BATCH_SIZE, PatchModel, score_patches
from pcam.evaluation.thresholds import Threshold, fixed_threshold, implied_threshold

if TYPE_CHECKING:
    import pandas as pd
    import PIL.Image

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
HDF5_SUFFIXES = (".h5", ".hdf5")
COLUMNS = ("path", "index", "score", "label", "verdict")
OK = "ok"


@dataclass(frozen=True)
class Item:
    """One patch to score, or the reason why there is none."""

    path: str
    index: int
    patch: np.ndarray | None
    verdict: str


@dataclass(frozen=True)
class PredictReport:
    """What became of the files.

    Attributes:
        out: the file written.
        n_scored: number of patches scored.
        n_refused: number of files (or HDF5 patches) refused.
        threshold: scores from here on have label 1.
        refused: reason → how often.
    """

    out: Path
    n_scored: int
    n_refused: int
    threshold: float
    refused: dict[str, int]

    def __str__(self) -> str:
        lines = [f"{self.out}: {self.n_scored} scored, {self.n_refused} refused, threshold {self.threshold:.3g}"]
        return "\n".join(lines + [f"  {count} × {reason}" for reason, count in self.refused.items()])


def predict_images(
    model: str | Path, paths: Sequence[str | Path], out: str | Path, threshold: float | None = None
) -> PredictReport:
    """Score image files and write `path,index,score,label,verdict`, one row per patch or refused file.

    The label is the decision: 1 where the score reaches the threshold. A refused file has neither score nor label.

    Args:
        model: folder of a completed run.
        paths: PNG, TIFF, JPEG or HDF5 files, or folders, which are searched for them in order of name.
        out: CSV file to write, whole or not at all.
        threshold: the cut; by default the one implied by the costs in the run's config.

    Raises:
        RunError: the run is missing or not completed.
        DataError: a path does not exist, or there is nothing to score in them.
    """
    from pcam.training import load_model, open_run

    files = find_files(paths)
    run = open_run(Path(model))
    costs = run.config.evaluation
    rule = implied_threshold(costs.cost_fn, costs.cost_fp) if threshold is None else fixed_threshold(threshold)
    loaded = load_model(run)
    scored, refused = 0, Counter[str]()
    with storage.atomic_path(Path(out)) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(COLUMNS)
        for item, score in _scored(loaded, read_items(files)):
            writer.writerow(_row(item, score, rule))
            scored += score is not None
            if score is None:
                refused[item.verdict] += 1
    return PredictReport(Path(out), scored, refused.total(), rule.value, dict(refused))


def read_scores(path: Path | str) -> pd.DataFrame:
    """Read what `predict_images` wrote, with the file's name alone in a column `file`; no score is NaN."""
    import pandas as pd

    table = pd.read_csv(path)
    table["file"] = [Path(name).name for name in table["path"]]
    return table


def write_examples(folder: Path | str, split: Split, count: int) -> Path:
    """Write the first patches of a split as PNG, and beside them files that no model should score.

    Args:
        folder: it is emptied of earlier examples first.
        split: where the patches come from.
        count: number of patches.
    """
    from PIL import Image

    folder = storage.make_folder(Path(folder))
    for old in folder.iterdir():
        old.unlink()
    patches = split.read(slice(0, count))
    for index, patch in enumerate(patches):
        Image.fromarray(patch).save(folder / f"patch_{index:05}.png")
    first = Image.fromarray(patches[0])
    first.convert("L").save(folder / "refuse_greyscale.png")
    first.resize((97, 97)).save(folder / "refuse_size.png")
    first.convert("CMYK").save(folder / "refuse_print.jpg")
    (folder / "refuse_empty.png").write_bytes(b"")
    whole = (folder / "patch_00000.png").read_bytes()
    (folder / "refuse_truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "refuse_text.png").write_text("not an image")
    return folder


def find_files(paths: Sequence[str | Path]) -> list[Path]:
    """Return the files that the paths name: files as given, folders searched for image and HDF5 files.

    Raises:
        DataError: a path does not exist, or no file is found at all.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            known = IMAGE_SUFFIXES + HDF5_SUFFIXES
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in known and p.is_file())
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file or folder; give image files, HDF5 files or folders of them")
    if not found:
        raise DataError(f"{', '.join(map(str, paths))}: no PNG, TIFF, JPEG or HDF5 file in there")
    return found


def read_items(files: Sequence[Path]) -> Iterator[Item]:
    """Yield the patches of the files in order, or for each file that is none, why."""
    for path in files:
        if path.suffix.lower() in HDF5_SUFFIXES:
            yield from _read_hdf5(path)
        else:
            patch, verdict = read_image(path)
            yield Item(str(path), 0, patch, verdict)


def read_image(path: Path) -> tuple[np.ndarray | None, str]:
    """Read one image file as a patch.

    Returns:
        The patch, uint8 (96, 96, 3), and "ok" (with a remark where something was dropped); or None and the reason.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        content = path.read_bytes() if path.stat().st_size < 64 << 20 else None
    except OSError as error:
        return None, f"refused: cannot be read ({error.strerror})"
    if content == b"":
        return None, "refused: the file is empty"
    try:
        with warnings.catch_warnings():
            # The size is looked at before anything is unpacked, so a huge image costs nothing here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path if content is None else io.BytesIO(content)) as image:
                return _as_patch(image)
    except Image.DecompressionBombError:
        return None, "refused: far more pixels than 96×96"
    except UnidentifiedImageError:
        return None, "refused: not an image file that can be read"
    except (OSError, SyntaxError, ValueError, EOFError):  # what Pillow raises on damaged files, by format
        return None, "refused: truncated or damaged"


def _as_patch(image: PIL.Image.Image) -> tuple[np.ndarray | None, str]:
    height, width = PATCH_SHAPE[:2]
    if image.size != (width, height):
        return None, f"refused: {image.size[0]}×{image.size[1]} pixels, not {width}×{height}"
    if getattr(image, "n_frames", 1) > 1:
        return None, f"refused: holds {getattr(image, 'n_frames', 1)} pages, not one"
    if image.mode == "RGB":
        return np.asarray(image), OK
    if image.mode == "RGBA":
        pixels = np.asarray(image)
        if (pixels[..., 3] == 255).all():
            return np.ascontiguousarray(pixels[..., :3]), f"{OK}: opaque alpha channel dropped"
        return None, "refused: transparent pixels have no colour"
    if image.mode == "P" and "transparency" not in image.info:
        return np.asarray(image.convert("RGB")), f"{OK}: palette expanded"
    if image.mode in ("1", "L", "LA", "I", "I;16", "F"):
        return None, f"refused: greyscale ({image.mode}), the stain's colours are missing"
    return None, f"refused: colour mode {image.mode}, not RGB with 8 bits"


def _read_hdf5(path: Path) -> Iterator[Item]:
    import h5py

    try:
        with h5py.File(path, "r") as handle:
            x = handle.get("x")
            if not isinstance(x, h5py.Dataset) or x.shape[1:] != PATCH_SHAPE or len(x) == 0:
                yield Item(str(path), 0, None, "refused: no dataset 'x' of shape (N, 96, 96, 3) with N > 0")
                return
            for start in range(0, len(x), BATCH_SIZE):
                raw = x[start : start + BATCH_SIZE]
                with np.errstate(invalid="ignore"):
                    patches = raw.astype(np.uint8)
                for offset, patch in enumerate(patches):
                    same = raw.dtype == np.uint8 or np.array_equal(patch, raw[offset])
                    verdict = OK if same else "refused: values that are not integers in 0..255"
                    yield Item(str(path), start + offset, patch if same else None, verdict)
    except OSError:
        yield Item(str(path), 0, None, "refused: not a readable HDF5 file")


def _scored(model: PatchModel, items: Iterator[Item]) -> Iterator[tuple[Item, float | None]]:
    """Score the items in batches, keeping their order."""
    waiting: list[Item] = []

    def flush() -> Iterator[tuple[Item, float | None]]:
        patches = [item.patch for item in waiting if item.patch is not None]
        scores = iter(next(iter(score_patches(model, [np.stack(patches)]))).tolist() if patches else [])
        for item in waiting:
            yield item, (None if item.patch is None else next(scores))
        waiting.clear()

    for item in items:
        waiting.append(item)
        if len(waiting) == BATCH_SIZE:
            yield from flush()
    yield from flush()


def _row(item: Item, score: float | None, rule: Threshold) -> list[str | int]:
    if score is None:
        return [item.path, item.index, "", "", item.verdict]
    return [item.path, item.index, repr(score), int(score >= rule.value), item.verdict]
