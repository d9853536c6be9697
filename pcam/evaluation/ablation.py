"""Which idea bought what: one change at a time against a preset, over seeds, on the same patches.

Each variant is trained with several seeds like any run of the journal, and scored on valid, by which ideas are chosen,
and on test, which only confirms. WORK/ablation holds one small file for each variant and seed, naming its run; so
several processes may measure at once, and each may be stopped and started again. The table is made of these files, and
only of those that the records bear out: a run that is gone, was trained otherwise or on other patches, or predictions
that give another figure, are refused by name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcam import storage
from pcam.config import Config, load_config
from pcam.data.format import available_splits, open_split
from pcam.errors import DataError, PcamError
from pcam.evaluation.intervals import SeedSummary, t_interval
from pcam.evaluation.predict import kept_predictions, predictions_path
from pcam.evaluation.predictions import Predictions, read_predictions
from pcam.training.runs import Run, open_run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Variant:
    """One idea.

    Attributes:
        name: what people call it.
        preset: what is trained,
        overrides: with what is changed in it,
        epochs: for this many times the preset's epochs.
        symmetries: whether a patch is scored by the mean over its eight symmetries.
        against: the variant that it differs from by this one idea.
    """

    name: str
    preset: str = "cnn"
    overrides: tuple[str, ...] = ()
    epochs: int = 1
    symmetries: bool = False
    against: str = "cnn"

    @property
    def key(self) -> str:
        """The name as a word for command lines and files."""
        return re.sub(r"[^a-z0-9_]+", "-", self.name.lower())

    def config(self, seed: int, common: Sequence[str] = ()) -> Config:
        """Return what is trained; `common` overrides hold for every variant and come before its own.

        Raises:
            ConfigError: an override is not valid.
        """
        config = load_config(self.preset, (*common, *self.overrides, f"seed={seed}"))
        longer = config.train.model_copy(update={"epochs": self.epochs * config.train.epochs})
        return config.model_copy(update={"train": longer})


_STILL = ("train.augment.flip=false", "train.augment.rotate=false")
_PLAIN, _STAINED = ("train.augment.color=0.0",), ("train.augment.stain=0.2",)
_CONSTANT, _AVERAGED = ("train.schedule=constant",), ("train.average=0.99",)
VARIANTS = (
    Variant("cnn"),
    Variant("no augmentation", overrides=(*_STILL, *_PLAIN)),
    Variant("no turning, no mirroring", overrides=_STILL),
    Variant("shift", overrides=("train.augment.shift=4",)),
    Variant("no colour jitter", overrides=_PLAIN),
    Variant("stain jitter", overrides=_STAINED),
    Variant("stain jitter, no colour jitter", overrides=(*_STAINED, *_PLAIN)),
    Variant("constant rate", overrides=_CONSTANT),
    Variant("constant rate, weight averaging", overrides=(*_CONSTANT, *_AVERAGED)),
    Variant("weight averaging", overrides=_AVERAGED),
    Variant("test-time symmetries", symmetries=True),
    Variant("half the width", overrides=("model.width=16",)),
    Variant("twice the width", overrides=("model.width=64",)),
    Variant("twice the epochs", epochs=2),
    Variant("cnn_long", "cnn_long", symmetries=True),
    Variant("cnn_long, no test-time symmetries", "cnn_long", against="cnn_long"),
    Variant("resnet18", "resnet18"),
    Variant("resnet18, test-time symmetries", "resnet18", symmetries=True, against="resnet18"),
    Variant("p4m", "p4m"),
    Variant("p4m, no shift", "p4m", ("train.augment.shift=0",), against="p4m"),
    Variant("mlp", "mlp"),
)
_BY_NAME = {variant.name: variant for variant in VARIANTS}


@dataclass(frozen=True)
class Measured:
    """One variant trained with one seed, as its file holds it.

    Attributes:
        variant, seed: which.
        overrides: those that hold for all variants, such as fewer epochs.
        run: id of its run; None where the training failed, and `reason` says why.
        valid, test: ROC-AUC; None for a split that is missing or has no ROC-AUC.
        n_valid, n_test: patches scored.
        weights: parameters of the network.
        core_seconds: training time, seconds of the wall times CPU threads.
    """

    variant: str
    overrides: tuple[str, ...]
    seed: int
    run: str | None = None
    valid: float | None = None
    test: float | None = None
    n_valid: int = 0
    n_test: int = 0
    weights: int = 0
    core_seconds: float = 0.0
    reason: str = ""


def measure(variant: Variant, seed: int, data_dir: Path, work: Path, common: Sequence[str] = ()) -> Measured:
    """Train a variant with a seed unless that is done, score it, and keep what came out.

    Args:
        variant: one of `VARIANTS`.
        seed: of its run.
        data_dir: a folder with train and valid, and test where there is one.
        work: the journal's work folder: runs, predictions and results go below it.
        common: overrides that hold for every variant, such as `train.epochs=15`.

    Returns:
        What was measured; with a reason, and nothing else, where the loss became NaN: such a result stays, too.

    Raises:
        PcamError: a bad override, data that cannot be trained on, or a signal.
    """
    from pcam.training import TrainingFailed, train

    measured = Measured(variant.name, tuple(common), seed)
    try:
        run = train(variant.config(seed, common), data_dir, work / "runs", resume=True, wait=True, progress=False)
    except TrainingFailed as error:
        measured = replace(measured, reason=str(error))
    else:
        scores: dict[str, Any] = {}
        for name in sorted({"valid", "test"} & set(available_splits(data_dir))):
            split = open_split(data_dir, name)
            found = kept_predictions(work, run, split, split.fingerprint(), variant.symmetries)
            scores |= {name: _roc_auc(found), f"n_{name}": len(found)}
        measured = replace(measured, run=run.id, weights=_weights(run), core_seconds=_core_seconds(run), **scores)
    storage.write_json(work / "ablation" / _file_name(variant, seed, common), asdict(measured))
    return measured


def read_measured(data_dir: Path, work: Path) -> tuple[list[Measured], list[str]]:
    """Return what was measured on these data and is borne out by the records, and why the rest is not shown.

    Raises:
        DataError: the data folder lacks a split that it needs, or breaks the contract.
    """
    prints = {name: open_split(data_dir, name).fingerprint() for name in available_splits(data_dir)}
    good, refused = [], []
    for path in sorted((work / "ablation").glob("*.json")):
        try:
            tree = storage.read_json(path, "ablation record")
            measured = Measured(**{**tree, "overrides": tuple(tree["overrides"])})
            fault = _fault(measured, prints, work)
        except (PcamError, TypeError, KeyError, AttributeError) as error:
            fault = f"it cannot be checked ({error})"
        if fault:
            refused.append(f"{path.name}: {fault}")
        else:
            good.append(measured)
    return good, refused


def _fault(measured: Measured, prints: dict[str, str], work: Path) -> str:
    """What keeps a result out of the table; empty for a good one. `prints` are the fingerprints of the splits."""
    variant = _BY_NAME.get(measured.variant)
    if variant is None:
        return f"there is no variant '{measured.variant}' any more"
    if measured.run is None:
        return f"{measured.variant}, seed {measured.seed}, has no run: {measured.reason}"
    run = open_run(work / "runs" / measured.run)
    if run.config != variant.config(measured.seed, measured.overrides):
        return f"run {run.id} was trained with another configuration"
    if any(record["fingerprint"] != prints.get(name) for name, record in run.data["splits"].items()):
        return f"run {run.id} was trained on other patches"
    if measured.core_seconds != _core_seconds(run):
        return f"run {run.id} took another time"
    if measured.weights != _weights(run):
        return f"run {run.id} has another number of weights"
    for name, value, n in (("valid", measured.valid, measured.n_valid), ("test", measured.test, measured.n_test)):
        if (value, n) == (None, 0):
            continue
        if name not in prints:
            return f"the data hold no {name} split"
        predictions = read_predictions(predictions_path(work, run, prints[name], variant.symmetries))
        if (_roc_auc(predictions), len(predictions)) != (value, n):
            return f"the predictions of {name} give another ROC-AUC"
    return ""


def ablation_table(measured: Sequence[Measured]) -> pd.DataFrame:
    """Return a row for each variant and set of common overrides with two seeds or more, in the order of VARIANTS.

    Columns: `variant`, `overrides`, `against`, `seeds`; for each split `SPLIT_n` (patches), `SPLIT_auc` (mean over
    seeds) with `_low`, `_high` (Student's t over seeds: other seeds, the same patches) and `_sd`, and `SPLIT_gap` to
    the variant it is compared with, seed by seed, with its interval; `core_seconds` of the fastest seed, as other work
    on the machine only ever adds; `weights`; `runs`. What is not known is NaN.
    """
    import pandas as pd

    rows = []
    for common in sorted({m.overrides for m in measured}):
        of_set: dict[str, dict[int, Measured]] = {name: {} for name in _BY_NAME}
        for one in measured:
            if one.overrides == common:
                of_set[one.variant][one.seed] = one
        for name, variant in _BY_NAME.items():
            seeds = of_set[name]
            if len(seeds) < 2:
                continue
            row: dict[str, Any] = {"variant": name, "overrides": " ".join(common), "against": variant.against}
            row["seeds"] = len(seeds)
            for split in ("valid", "test"):
                row |= _of_split(split, seeds, of_set[variant.against])
            row["core_seconds"] = min(m.core_seconds for m in seeds.values())
            row["weights"] = next(iter(seeds.values())).weights
            row["runs"] = " ".join(str(seeds[seed].run) for seed in sorted(seeds))
            rows.append(row)
    return pd.DataFrame(rows)


def _of_split(split: str, seeds: dict[int, Measured], others: dict[int, Measured]) -> dict[str, Any]:
    of = {seed: getattr(m, split) for seed, m in seeds.items()}
    reference = {seed: getattr(m, split) for seed, m in others.items()}
    both = [seed for seed in of if None not in (of[seed], reference.get(seed))]
    mean = _summary([value for value in of.values() if value is not None])
    gap = _summary([of[seed] - reference[seed] for seed in both])
    n = max(getattr(m, f"n_{split}") for m in seeds.values())
    area = {"auc": mean.mean, "auc_low": mean.low, "auc_high": mean.high, "auc_sd": mean.sd}
    gaps = {"gap": gap.mean, "gap_low": gap.low, "gap_high": gap.high}
    return {f"{split}_{key}": value for key, value in ({"n": n} | area | gaps).items()}


def _summary(values: list[float]) -> SeedSummary:
    try:
        return t_interval(values)
    except DataError:  # fewer than two seeds have it
        nan = float("nan")
        return SeedSummary(nan, nan, nan, nan, len(values))


def write_table(data_dir: Path, work: Path) -> tuple[pd.DataFrame, list[str]]:
    """Write WORK/ablation/ablation.csv of all that is measured, and return it with what was refused.

    Raises:
        DataError: as `read_measured`.
        StorageError: it cannot be written.
    """
    measured, refused = read_measured(data_dir, work)
    table = ablation_table(measured)
    with storage.atomic_path(work / "ablation" / "ablation.csv") as path:
        table.to_csv(path, index=False)
    return table, refused


def _file_name(variant: Variant, seed: int, common: Sequence[str]) -> str:
    mark = f"-{hashlib.sha256(' '.join(common).encode()).hexdigest()[:8]}" if common else ""
    return f"{variant.key}{mark}-{seed}.json"


def _roc_auc(predictions: Predictions) -> float | None:
    if predictions.label is None:
        return None
    from pcam.training.validate import roc_auc

    return roc_auc(predictions.labels, predictions.score)


def _weights(run: Run) -> int:
    """Count the parameters of a run's network, which is laid out for that without its values."""
    import torch

    from pcam.models import build

    with torch.device("meta"):
        return sum(p.numel() for p in build(run.config.model).parameters())


def _core_seconds(run: Run) -> float:
    return round(float(run.final["seconds"]) * int(run.environment["controls"]["threads"]), 1)
