"""Which idea buys what: one change at a time against the cnn preset, over seeds, on the same patches.

    python benchmarks/ablation.py DIR [--out OUT] [--runs RUNS] [--seeds 3] [--only NAME …] [--quick]

Trains every variant below with each seed on DIR's train split and scores its test split; a run that is there already
is used, one that was interrupted goes on, so the command may be stopped and given again. OUT/ablation.csv is written
after each variant: the mean ROC-AUC on test with its interval over seeds (Student's t: other seeds, the same patches),
the seeds' standard deviation, the gap to the first variant seed by seed with its interval, training seconds and
weights. Seconds are of the wall and count only where nothing else runs. `--quick` shrinks every network and trains
one epoch: it shows that the script works, and nothing else.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import pandas as pd

from pcam import storage
from pcam.config import load_config
from pcam.data.format import open_split
from pcam.evaluation import predict_split, t_interval
from pcam.training import load_model, train
from pcam.training.validate import roc_auc


@dataclass(frozen=True)
class Variant:
    """A name for people, a preset with what is changed in it, and whether scores are means over the symmetries."""

    name: str
    preset: str = "cnn"
    overrides: tuple[str, ...] = ()
    symmetries: bool = False


_STILL = ("train.augment.flip=false", "train.augment.rotate=false")
VARIANTS = (
    Variant("cnn"),
    Variant("no augmentation", overrides=(*_STILL, "train.augment.color=0.0")),
    Variant("no turning, no mirroring", overrides=_STILL),
    Variant("no colour jitter", overrides=("train.augment.color=0.0",)),
    Variant("stain jitter", overrides=("train.augment.stain=0.2",)),
    Variant("stain jitter, no colour jitter", overrides=("train.augment.stain=0.2", "train.augment.color=0.0")),
    Variant("constant rate", overrides=("train.schedule=constant",)),
    Variant("constant rate, weight averaging", overrides=("train.schedule=constant", "train.average=0.99")),
    Variant("weight averaging", overrides=("train.average=0.99",)),
    Variant("test-time symmetries", symmetries=True),
    Variant("half the width", overrides=("model.width=16",)),
    Variant("twice the width", overrides=("model.width=64",)),
    Variant("twice the epochs", overrides=("train.epochs=60",)),
    Variant("resnet18", "resnet18"),
    Variant("resnet18, test-time symmetries", "resnet18", symmetries=True),
    Variant("p4m", "p4m"),
    Variant("p4m, no turning, no mirroring", "p4m", _STILL),
    Variant("mlp", "mlp"),
)
_QUICK = ("train.epochs=1", "train.batch_size=32", "train.precision=float32", "model.width=2", "model.hidden=8")


@dataclass(frozen=True)
class Row:
    """One row of ablation.csv; `n` counts test patches, the interval and the deviation are over `seeds` runs."""

    variant: str
    seeds: int
    n: int
    auc: float
    auc_low: float
    auc_high: float
    auc_sd: float
    gap: float
    gap_low: float
    gap_high: float
    train_seconds: float
    weights: int
    runs: str


def main() -> None:
    """Train what is missing, score, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("ablation"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, default=3, help="at least 2")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=f"of: {names}")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    chosen = [v for v in VARIANTS if v.name in args.only or v is VARIANTS[0]]
    rows: list[Row] = []
    reference: list[float] = []
    for variant in chosen:
        aucs, row = measure(variant, args.dir, args.runs, args.seeds, reference, args.quick)
        reference = reference or aucs
        rows.append(row)
        with storage.atomic_path(storage.make_folder(args.out) / "ablation.csv") as path:
            pd.DataFrame([asdict(r) for r in rows]).to_csv(path, index=False)
        print(line(row), flush=True)


def measure(
    variant: Variant, data: Path, runs: Path, seeds: int, reference: list[float], quick: bool
) -> tuple[list[float], Row]:
    """Return a variant's ROC-AUC on test by seed, and its row; `reference` are those of the first variant."""
    test = open_split(data, "test")
    done, aucs = [], []
    for seed in range(seeds):
        overrides = (*variant.overrides, *(_QUICK if quick else ()), f"seed={seed}")
        run = train(load_config(variant.preset, overrides), data, runs, resume=True, wait=True, progress=False)
        predictions = predict_split(run, test, symmetries=variant.symmetries)
        auc = roc_auc(predictions.labels, predictions.score)
        if auc is None:
            raise SystemExit(f"{data}: test holds one class only, so there is no ROC-AUC; give other data")
        done.append(run)
        aucs.append(auc)
    mean = t_interval(aucs)
    gap = t_interval([a - b for a, b in zip(aucs, reference or aucs, strict=True)])
    weights = sum(p.numel() for p in load_model(done[0]).parameters())
    seconds = median(run.final["seconds"] for run in done)
    row = Row(
        *(variant.name, seeds, len(test), mean.mean, mean.low, mean.high, mean.sd, gap.mean, gap.low, gap.high),
        *(seconds, weights, " ".join(run.id for run in done)),
    )
    return aucs, row


def line(row: Row) -> str:
    """Return a row for people."""
    return (
        f"{row.variant:<34} {row.auc:.4f} [{row.auc_low:.4f}, {row.auc_high:.4f}]  sd {row.auc_sd:.4f}  "
        f"gap {row.gap:+.4f} [{row.gap_low:+.4f}, {row.gap_high:+.4f}]  {row.train_seconds:7.1f} s  "
        f"{row.weights:>10,} weights  n {row.n}, {row.seeds} seeds"
    )


if __name__ == "__main__":
    main()
