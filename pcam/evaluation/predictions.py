"""Predictions: the contract between training and everything after it.

One row per patch: split, index, label, score. Every metric, slice, curve and gallery is a pure function of this
table (and of the patches), so it can be recomputed without a model and by someone else's code. Reading is strict:
a file with a missing, doubled or misplaced row would shift every score against its patch without any metric
looking odd, so such a file is refused with the line that is wrong.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcam import storage
from pcam.data import Split
from pcam.errors import DataError, clip

COLUMNS = ("split", "index", "label", "score")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Scores of one model on patches of one split.

    Attributes:
        split: name of the split, for example "valid".
        index: int64 (N,), strictly increasing positions of the patches in the split's files.
        label: uint8 (N,) of 0 and 1, or None where the truth is not known.
        score: float64 (N,) in [0, 1], the predicted probability of label 1.
    """

    split: str
    index: np.ndarray
    label: np.ndarray | None
    score: np.ndarray

    def __post_init__(self) -> None:
        index = np.asarray(self.index, dtype=np.int64)
        score = np.asarray(self.score, dtype=np.float64)
        where = f"predictions of '{self.split}'"
        if index.ndim != 1 or score.shape != index.shape:
            raise DataError(f"{where}: {index.size} indices but {score.size} scores; give one each")
        if (np.diff(index) <= 0).any() or (index < 0).any():
            raise DataError(f"{where}: indices must increase from 0 up, every index once")
        # `not (in range)` instead of `out of range`, so that NaN is caught too.
        if not ((score >= 0) & (score <= 1)).all():
            raise DataError(f"{where}: scores must be finite and in [0, 1]")
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "score", score)
        if self.label is None:
            return
        label = np.asarray(self.label)
        if label.shape != index.shape:
            raise DataError(f"{where}: {index.size} indices but {label.size} labels; give one each")
        if not np.isin(label, (0, 1)).all():
            raise DataError(f"{where}: labels must be 0 or 1")
        object.__setattr__(self, "label", label.astype(np.uint8))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def labels(self) -> np.ndarray:
        """The labels, uint8 (N,).

        Raises:
            DataError: the labels are not known.
        """
        if self.label is None:
            raise DataError(f"predictions of '{self.split}' have no labels; this needs a split whose y file is present")
        return self.label

    @property
    def n_positive(self) -> int | None:
        """Number of patches with label 1, or None where the labels are not known."""
        return None if self.label is None else int(self.label.sum())

    def take(self, keep: np.ndarray) -> Predictions:
        """Return the rows that `keep` (boolean mask (N,) or increasing positions) selects."""
        return Predictions(
            self.split, self.index[keep], None if self.label is None else self.label[keep], self.score[keep]
        )


def write_predictions(path: str | Path, predictions: Predictions) -> Path:
    """Write predictions as CSV, atomically; scores are written so that they are read back bit for bit."""
    p = predictions
    labels = [""] * len(p) if p.label is None else p.label.tolist()
    rows = (
        f"{p.split},{index},{label},{score!r}"
        for index, label, score in zip(p.index.tolist(), labels, p.score.tolist(), strict=True)
    )
    storage.write_text(Path(path), "\n".join([",".join(COLUMNS), *rows]) + "\n")
    return Path(path)


def read_predictions(path: str | Path) -> Predictions:
    """Read and check a predictions file.

    Args:
        path: CSV with the columns split, index, label, score: one split, rows in index order from 0 on, every
            index once, scores finite in [0, 1], labels 0 or 1 or all empty.

    Raises:
        DataError: the file is missing or breaks that contract; the message names the file and the line.
    """
    path = Path(path)
    try:
        # Spreadsheets put a byte order mark before UTF-8 text; utf-8-sig reads with it and without.
        with path.open(newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.reader(handle))
    except FileNotFoundError:
        raise DataError(f"{path}: no such predictions file; write one with 'pcam evaluate RUN'") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file ({error}); write it again with 'pcam evaluate RUN'") from None
    if not rows or tuple(rows[0]) != COLUMNS:
        found = clip(",".join(rows[0])) if rows else "nothing"
        raise DataError(f"{path}, line 1: the header must be {','.join(COLUMNS)}, found {found}")
    if len(rows) == 1:
        raise DataError(f"{path}: holds no rows; write it again with 'pcam evaluate RUN'")
    first_split, unlabelled = rows[1][0] if rows[1] else "", len(rows[1]) > 2 and rows[1][2] == ""
    scores = np.empty(len(rows) - 1)
    for position, row in enumerate(rows[1:]):
        fault = _fault(row, position, first_split, unlabelled)
        if fault:
            raise DataError(f"{path}, line {position + 2}: {fault}")
        scores[position] = float(row[3])
    labels = None if unlabelled else np.array([row[2] == "1" for row in rows[1:]], dtype=np.uint8)
    return Predictions(first_split, np.arange(len(scores)), labels, scores)


def check_labels(predictions: Predictions, split: Split, where: str | Path) -> None:
    """Refuse predictions that have no labels, or not those of their patches: they were made on other data.

    Args:
        predictions: of a split. Those that go beyond its last patch are not compared: `Scored.of` refuses them.
        split: the split that they are said to be of; without labels, there is nothing to compare.
        where: the predictions' file, to name in the error.

    Raises:
        DataError: there are no labels, or one differs.
    """
    if predictions.label is None:
        raise DataError(f"{where}: holds no labels; slices need a split whose y file is present")
    if split.labels is None or (predictions.index >= len(split)).any():
        return
    differ = np.flatnonzero(predictions.label != split.labels[predictions.index])
    if differ.size:
        raise DataError(
            f"{where}: {differ.size} of {len(predictions)} labels differ from those of '{split.name}' in "
            f"{split.directory}, the first at index {predictions.index[differ[0]]}; use the data that they were made on"
        )


def _fault(row: list[str], position: int, split: str, unlabelled: bool) -> str | None:
    """What is wrong with one row, or None."""
    if len(row) != len(COLUMNS):
        return f"{len(row)} fields where {len(COLUMNS)} are due"
    if row[0] != split or not split:
        return f"split is '{clip(row[0])}' where the file began with '{clip(split)}'; a file holds one split"
    if row[1] != str(position):
        return f"index is '{clip(row[1])}' where {position} is due; rows must be in index order, every index once"
    if (row[2] == "") != unlabelled:
        return "labels must be given in every row or in none"
    if row[2] not in ("", "0", "1"):
        return f"label is '{clip(row[2])}'; it must be 0, 1 or empty"
    try:
        score = float(row[3])
    except ValueError:
        return f"score is '{clip(row[3])}', not a number"
    if not (math.isfinite(score) and 0 <= score <= 1):
        return f"score is {clip(row[3])}; it must be finite and in [0, 1]"
    return None
