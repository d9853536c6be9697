"""Prediction on image files: a score where the file is a patch, a verdict where it is not.

Files are read in order and scored in batches of the one shape that evaluation uses too, so the scores are the same
bits, and ten thousand files need no more memory than a few hundred.
"""

from __future__ import annotations

import csv
import math
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pcam import storage
from pcam.config import EvalConfig
from pcam.data.format import Split
from pcam.errors import RunError, StorageError
from pcam.evaluation.image_files import Item, find_files, printable, read_items
from pcam.evaluation.predict import READ_SIZE, PatchModel, for_scoring, score_patches
from pcam.evaluation.thresholds import Threshold, fixed_threshold, implied_threshold

if TYPE_CHECKING:
    import pandas as pd

    from pcam.models import PatchClassifier

COLUMNS = ("path", "index", "score", "label", "verdict")


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
        lines = [
            f"{printable(self.out)}: {self.n_scored} scored, {self.n_refused} refused, threshold {self.threshold:.3g}"
        ]
        return "\n".join(lines + [f"  {count} × {reason}" for reason, count in self.refused.items()])


def predict_images(
    model: str | Path, paths: Sequence[str | Path], out: str | Path, threshold: float | None = None
) -> PredictReport:
    """Score image files and write `path,index,score,label,verdict`, one row per patch or refused file.

    The label is the decision: 1 where the score reaches the threshold. A refused file has neither score nor label.

    Args:
        model: folder of a completed run, or a model file alone (`model.safetensors`).
        paths: PNG, TIFF, JPEG or HDF5 files, or folders, which are searched for them in order of name; a file that
            is named twice gets one row.
        out: CSV file to write, whole or not at all.
        threshold: the cut; by default the one implied by the costs in the run's config, or by the default costs
            where a model file comes alone. The run's config also says whether scores are means over symmetries;
            for a model file alone they are not.

    Raises:
        RunError: the run is missing or not completed, the model file is damaged, or the model gives no number.
        DataError: a path does not exist, or there is nothing to score in them.
        StorageError: the output cannot be written, or is one of the files to score.
    """
    out = Path(out)
    if out.exists() and not out.is_file():  # found before the work is done, and a device is not overwritten
        raise StorageError(f"cannot write {printable(out)}: it is there and no regular file; choose another path")
    files = find_files(paths)
    if any(file.name == out.name and file.parent.resolve() == out.parent.resolve() for file in files):
        raise StorageError(f"cannot write {printable(out)}: it is one of the files to score; choose another path")
    loaded, costs = open_model(Path(model))
    rule = implied_threshold(costs.cost_fn, costs.cost_fp) if threshold is None else fixed_threshold(threshold)
    scored, refused = 0, Counter[str]()
    with (
        storage.atomic_path(out) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as handle,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", module=r"PIL\.")  # what Pillow warns of gets a verdict instead
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(COLUMNS)
        for item, score in _scored(loaded, read_items(files), costs.symmetries):
            if score is not None and not math.isfinite(score):
                raise RunError(f"{model}: it gives no number for {item.path}: its training diverged; train it again")
            writer.writerow(_row(item, score, rule))
            scored += score is not None
            if score is None:
                refused[item.verdict] += 1
    return PredictReport(out, scored, refused.total(), rule.value, dict(refused))


def open_model(path: Path) -> tuple[PatchClassifier, EvalConfig]:
    """Return the model of a run folder or a model file, for scoring, and how its scores are to be used.

    Raises:
        RunError: the run is missing or not completed, or the model file is damaged.
    """
    from pcam.training import load_model, open_run
    from pcam.training.model_file import load_model_file
    from pcam.training.runs import MODEL_FILE

    if path.is_file():
        if path.name != MODEL_FILE or not (path.parent / "status.json").is_file():
            return for_scoring(load_model_file(path)), EvalConfig()
        path = path.parent  # the model of a run folder: the run knows its hash and its costs
    run = open_run(path)
    return for_scoring(load_model(run)), run.config.evaluation


def read_scores(path: Path | str) -> pd.DataFrame:
    """Read what `predict_images` wrote, with the file's name alone in a column `file`; no score is NaN."""
    import pandas as pd

    # A file may be called "NA" or "7"; only an empty score or label is missing.
    empty = {"score": [""], "label": [""]}
    table = pd.read_csv(path, dtype={"path": str}, keep_default_na=False, na_values=empty)
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


def _scored(model: PatchModel, items: Iterator[Item], symmetries: bool) -> Iterator[tuple[Item, float | None]]:
    """Score the items in batches, keeping their order."""
    waiting: deque[Item] = deque()

    def batches() -> Iterator[np.ndarray]:
        while block := list(islice(items, READ_SIZE)):
            waiting.extend(block)
            if patches := [item.patch for item in block if item.patch is not None]:
                yield np.stack(patches)

    for scores in score_patches(model, batches(), symmetries=symmetries):
        for score in scores.tolist():
            while waiting[0].patch is None:
                yield waiting.popleft(), None
            yield waiting.popleft(), score
    yield from ((item, None) for item in waiting)  # refused, after the last patch


def _row(item: Item, score: float | None, rule: Threshold) -> list[str | int]:
    if score is None:
        return [item.path, item.index, "", "", item.verdict]
    return [item.path, item.index, repr(score), int(score >= rule.value), item.verdict]
