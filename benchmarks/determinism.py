"""Train every preset twice in fresh processes, for several seeds: are the weights and the logs the same bits?

    python benchmarks/determinism.py [--pairs 5] [--presets mlp cnn] [--data DIR] [--patches 128] [--epochs 2]

Each twin is a `pcam train` of its own, with the preset's own precision, augmentation and optimiser on a part of the
data (a fresh sample unless a folder is given). Another pair of each seed differs from it in what must not matter:
patches are read by a worker, other lines logged, other checkpoints kept. Exits with 1 if any two of the four part.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from pcam.config import load_config, preset_names
from pcam.data.synthetic import write_sample
from pcam.provenance import hardware
from pcam.training.twins import Twins, train_twins

_HARMLESS = ["data.workers=1", "train.log_every=3", "train.checkpoint_every=2"]


def main() -> int:
    """Train, compare, and print one line a preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="seeds per preset")
    parser.add_argument("--presets", nargs="+", default=preset_names(), metavar="NAME")
    parser.add_argument("--data", type=Path, help="PCam-format files (default: a fresh sample)")
    parser.add_argument("--patches", type=int, default=128, help="training patches used")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    small = [f"train.epochs={options.epochs}", f"data.max_train={options.patches}", "train.threads=1"]
    good = True
    print(hardware())
    print(f"{'preset':<14}{'twins equal':>14}{'others equal':>14}{'seconds':>10}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = options.data or write_sample(
            folder / "data", train=options.patches, valid=32, test=8, seed=1, progress=False
        )
        for preset in options.presets:
            began, twins, others = time.perf_counter(), 0, 0
            for seed in range(options.pairs):
                own = [*small, f"seed={seed}"]
                configs = {"twin": load_config(preset, own), "other": load_config(preset, [*own, *_HARMLESS])}
                pair, other = train_twins(configs, data, folder / "twins")
                twins += pair.same_weights and pair.same_log
                others += Twins("other", (pair.runs[0], other.runs[0])).same_weights and other.same_weights
            counts = f"{twins} of {options.pairs}", f"{others} of {options.pairs}"
            print(f"{preset:<14}{counts[0]:>14}{counts[1]:>14}{time.perf_counter() - began:>10.0f}", flush=True)
            good &= twins == others == options.pairs
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
