"""What the search gains over the untuned preset and over random search of the same number of epochs.

    python benchmarks/tune.py --data DIR [--preset mlp] [--trials 16] [--studies 5] [--set key=value …] [--runs DIR]

For each seed of the study: a search with Optuna's estimator and, with as many epochs, a random one. Both begin with
the same three random trials and end poor trials early, and the best three of each are trained over three seeds. Gains
are in ROC-AUC on valid, with a t interval over the studies; test is not looked at. Valid chose among the finalists and
not the untuned preset, so the gain over that is flattered a little. Runs that are there already are used again, so the
command may be stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pcam.evaluation import t_interval
from pcam.training.tune import tune


def main() -> int:
    """Print one line a study and the mean gains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", default="mlp")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--studies", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="key=value")
    parser.add_argument("--runs", type=Path, default=Path("_work/tune"))
    args = parser.parse_args()
    common = {"runs_dir": args.runs, "overrides": args.set}
    over_random, over_preset = [], []
    print(f"{'study':<7}{'epochs, TPE':>12}{'random':>8}{'pruned':>8}{'TPE':>8}{'random':>8}{'preset':>8}")
    for seed in range(args.studies):
        tpe = tune(args.preset, args.data, trials=args.trials, seed=seed, **common)
        random = tune(
            args.preset, args.data, trials=100 * args.trials, epochs=tpe.epochs, seed=seed, sampler="random", **common
        )
        pruned = sum(trial.state == "pruned" for trial in tpe.trials)
        best = [tpe.finalists[0].mean, random.finalists[0].mean, tpe.untuned.mean]
        over_random.append(best[0] - best[1])
        over_preset.append(best[0] - best[2])
        scores = "".join(f"{value:>8.4f}" for value in best)
        print(f"{seed:<7}{tpe.epochs:>12}{random.epochs:>8}{pruned:>8}{scores}", flush=True)
    for name, gains in (("random search", over_random), ("the untuned preset", over_preset)):
        mean = t_interval(gains)
        print(f"gain over {name}: {mean.mean:+.4f} ({mean.low:+.4f} to {mean.high:+.4f}), n = {mean.n} studies")
    return 0


if __name__ == "__main__":
    sys.exit(main())
