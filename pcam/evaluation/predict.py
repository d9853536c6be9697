"""Prediction of a split by a run, and its evaluation.

Whatever scores patches goes through `score_patches`, which feeds the model batches of one fixed shape: a short
batch is filled up with blank patches. Otherwise a library may choose another kernel for another batch size, and the
same patch would get another last digit in `pcam predict` than in `pcam evaluate`. For the same reason both score with
the model that `for_scoring` makes, and each batch is scored by one thread, however many there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pcam import storage
from pcam.data.format import Split, available_splits, data_kind, open_split
from pcam.errors import DataError
from pcam.evaluation.calibration import expected_calibration_error
from pcam.evaluation.constant import baselines, is_constant
from pcam.evaluation.metrics import score_metrics
from pcam.evaluation.predictions import Predictions, read_predictions, write_predictions
from pcam.evaluation.thresholds import Threshold, choose_threshold, confusion_matrix, implied_threshold

if TYPE_CHECKING:
    import torch

    from pcam.config import EvalConfig
    from pcam.models import PatchClassifier
    from pcam.training import Run

READ_SIZE = 128  # patches that are read at a time
# The maps of more patches do not stay in a processor's cache: 128 cost up to half as much again.
BATCH_SIZE = 32


class PatchModel(Protocol):
    """What is needed of a model: logits of raw patches."""

    def predict_logits(self, patches: torch.Tensor) -> torch.Tensor:
        """Map uint8 (B, 96, 96, 3) to float32 (B,)."""


def for_scoring(model: PatchClassifier) -> PatchClassifier:
    """Return a copy of a model that scores the same patches faster, in evaluation mode; see `pcam.models.fold`."""
    import torch

    from pcam.models import fold

    # In the order that patches come in: the wide layers of a resnet18 take a seventh less time so.
    return fold(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def score_patches(
    model: PatchModel, batches: Iterable[np.ndarray], batch_size: int = BATCH_SIZE, symmetries: bool = False
) -> Iterator[np.ndarray]:
    """Score batches of patches, on as many threads as torch has here, while the next batch is read.

    Threads that share a batch wait for each other after every layer, and for whatever else runs on their cores; so each
    takes a batch of its own.

    Args:
        model: a loaded model, in evaluation mode.
        batches: uint8 (B, 96, 96, 3) arrays with B > 0.
        batch_size: the one shape that the model sees.
        symmetries: give each patch the mean score of its eight turned and mirrored forms, at eight times the cost.

    Yields:
        float64 (B,) probabilities of label 1, per batch.
    """
    import torch

    threads = torch.get_num_threads()
    under_way: deque[list[Future[np.ndarray]]] = deque()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for patches in batches:
            parts = [patches[start : start + batch_size] for start in range(0, len(patches), batch_size)]
            under_way.append([pool.submit(_score, model, part, batch_size, symmetries) for part in parts])
            if len(under_way) > 1:
                yield np.concatenate([part.result() for part in under_way.popleft()])
        while under_way:
            yield np.concatenate([part.result() for part in under_way.popleft()])
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what the pool's threads set for themselves holds for later threads too


def _score(model: PatchModel, patches: np.ndarray, batch_size: int, symmetries: bool) -> np.ndarray:
    """Score at most `batch_size` patches."""
    import torch

    from pcam.data.augment import apply_symmetries

    filled = np.zeros((batch_size, *patches.shape[1:]), dtype=np.uint8)
    filled[: len(patches)] = patches
    whole = torch.from_numpy(filled)
    scores, forms = np.zeros(len(patches)), range(8 if symmetries else 1)
    for form in forms:
        with torch.inference_mode():
            turned = apply_symmetries(whole, torch.full((batch_size,), form)) if form else whole
            logits = model.predict_logits(turned)[: len(patches)]
        # The sigmoid in double precision: in single precision every logit above 17 becomes exactly 1, a tie.
        scores += 1 / (1 + np.exp(-logits.double().cpu().numpy()))
    return scores / len(forms)


def predict_split(run: Run, split: Split, batch_size: int = BATCH_SIZE, symmetries: bool | None = None) -> Predictions:
    """Score every patch of a split with the weights of a completed run.

    Args:
        run: a completed run.
        split: an open split; its labels go along where they are known.
        batch_size: patches per forward pass; another size may change the last digits.
        symmetries: mean over the eight symmetries; None: as the run's `evaluation.symmetries` says.

    Raises:
        RunError: the run is not completed or its weights are damaged.
        DataError: the split breaks the contract, or the model gives a score that is not a number.
    """
    from pcam.training import load_model

    model = for_scoring(load_model(run))
    averaged = run.config.evaluation.symmetries if symmetries is None else symmetries
    batches = (split.read(slice(start, start + READ_SIZE)) for start in range(0, len(split), READ_SIZE))
    scores = np.concatenate(list(score_patches(model, batches, batch_size, averaged)))
    if not np.isfinite(scores).all():
        first = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise DataError(f"run {run.id} gives no number for patch {first} of {split.name}: its training diverged")
    return Predictions(split.name, np.arange(len(scores)), split.labels, scores)


def predictions_path(work: Path, run: Run, fingerprint: str, symmetries: bool | None = None) -> Path:
    """Return where a journal keeps a run's predictions of a split: under all that determines them.

    Args:
        work: the journal's work folder.
        run: a run.
        fingerprint: of the split, so that changed data can never show old predictions.
        symmetries: as for `predict_split`; scores that the run's own configuration does not ask for lie apart.
    """
    own = symmetries in (None, run.config.evaluation.symmetries)
    mark = "" if own else "-symmetries" if symmetries else "-single"
    return work / "predictions" / f"{run.id}-{fingerprint[:12]}{mark}" / "predictions.csv"


def kept_predictions(
    work: Path, run: Run, split: Split, fingerprint: str, symmetries: bool | None = None
) -> Predictions:
    """Return a run's predictions of a split as a journal keeps them, scoring the split first if need be.

    Args and errors are those of `predictions_path` and `predict_split`.
    """
    path = predictions_path(work, run, fingerprint, symmetries)
    if not path.exists():
        write_predictions(path, predict_split(run, split, symmetries=symmetries))
    return read_predictions(path)


def evaluate(run_dir: str | Path, data_dir: str | Path, split: str, out: str | Path) -> dict[str, Any]:
    """Predict a split with a run and score it; write `out/predictions.csv` and `out/metrics.json`.

    The threshold is chosen on valid for the costs in the run's config. Where that would be choosing and reporting on
    one split (valid itself) or where valid is missing, unlabelled or one-sided, the threshold is the one that the
    costs imply for calibrated scores, cost_fp / (cost_fp + cost_fn): no data are looked at, and the file says so.

    Args:
        run_dir: folder of a completed run.
        data_dir: folder with the split (and, for the threshold, with valid).
        split: "train", "valid" or "test".
        out: folder to write to.

    Returns:
        The content of metrics.json.

    Raises:
        RunError: the run is missing or not completed.
        DataError: the split is missing or breaks the contract.
    """
    from pcam.training import open_run

    run, opened = open_run(run_dir), open_split(data_dir, split)
    predictions = predict_split(run, opened)
    valid = None
    if split != "valid" and "valid" in available_splits(data_dir):
        valid = predict_split(run, open_split(data_dir, "valid"))
    report = assess(predictions, opened, valid, run.config.evaluation)
    report = {"run": run.id, "data_kind": data_kind(data_dir), "fingerprint": opened.fingerprint()} | report
    write_predictions(Path(out) / "predictions.csv", predictions)
    storage.write_json(Path(out) / "metrics.json", report)
    return report


def decision_threshold(valid: Predictions | None, config: EvalConfig, reported: str = "test") -> Threshold:
    """The threshold that is cheapest on valid, or the one that the costs imply where valid cannot say.

    Args:
        valid: predictions of valid, or None where there are none to choose on.
        config: the costs.
        reported: split that the threshold will be used on.
    """
    if valid is None or valid.split == reported or valid.n_positive in (None, 0, len(valid)):
        return implied_threshold(config.cost_fn, config.cost_fp)
    return choose_threshold(valid, config.cost_fn, config.cost_fp)


def assess(predictions: Predictions, split: Split, valid: Predictions | None, config: EvalConfig) -> dict[str, Any]:
    """Put together what is to be said about predictions of a split, as JSON values.

    Args:
        predictions: predictions of every patch of `split`.
        split: the split, for its slides or overlap groups.
        valid: predictions of valid by the same run, to choose the threshold on; None for the implied one.
        config: beta, costs and number of resamples.

    Raises:
        DataError: predictions and split do not match.
    """
    if len(predictions) != len(split):
        raise DataError(f"{len(predictions)} predictions for {len(split)} patches of {split.name}; predict it again")
    threshold = decision_threshold(valid, config, predictions.split)
    metrics = score_metrics(
        predictions,
        threshold,
        split.groups,
        group_kind=split.group_kind or "group",
        beta=config.beta,
        bootstrap=config.bootstrap,
    )
    labelled = predictions.label is not None
    constant = is_constant(predictions, threshold)
    calibrated = labelled and not constant
    return {
        "split": predictions.split,
        "n": len(predictions),
        "n_positive": predictions.n_positive,
        "constant": constant,
        "threshold": asdict(threshold),
        "beta": config.beta,
        "metrics": {name: metric.as_dict() for name, metric in metrics.items()},
        "confusion": asdict(confusion_matrix(predictions, threshold)) if labelled else None,
        "expected_calibration_error": expected_calibration_error(predictions) if calibrated else None,
        "baselines": [b.as_dict() for b in baselines(predictions.labels, config.beta)] if labelled else [],
    }
