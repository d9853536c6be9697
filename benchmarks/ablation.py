"""Which idea bought what: train what is missing of the ablation, score it, and print the table.

    make ablation [DATA=DIR] [SEEDS=3] [ONLY="cnn stain-jitter"] [SET="train.epochs=15"]
    python benchmarks/ablation.py [--data DIR] [--seeds 3] [--only KEY …] [--set KEY=VALUE …]

Runs, predictions and results go into the journal's work folder of those data, where chapter Q4 finds them. A run that
is there already is used and one that was interrupted goes on, so the command may be stopped and given again, and
several with other `--only` may run at once. `--set` holds for every variant, such as `train.epochs=15` for a cheaper
ablation; each such set has rows of its own. See pcam.evaluation.ablation for the columns of ablation.csv.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pcam.errors import PcamError
from pcam.evaluation.ablation import VARIANTS, measure, write_table
from pcam.journal.plan import open_plan


def main() -> None:
    """Train what is missing, score, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    keys = [variant.key for variant in VARIANTS]
    parser.add_argument("--data", default="", help="folder of PCam-format files (default: the synthetic sample)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N-1, at least 2")
    parser.add_argument("--only", nargs="+", choices=keys, default=keys, metavar="KEY", help=f"of: {' '.join(keys)}")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides for every variant")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error("an interval over seeds needs at least 2 of them: --seeds 2 or more")
    chosen = [variant for variant in VARIANTS if variant.key in args.only]
    for variant in chosen:  # a bad override is told before anything is trained
        variant.config(0, args.set)
    plan = open_plan(args.data)
    for variant in chosen:
        for seed in range(args.seeds):
            one = measure(variant, seed, plan.data_dir, plan.work, args.set)
            said = one.reason or f"ROC-AUC valid {said_auc(one.valid)}, test {said_auc(one.test)}, run {one.run}"
            print(f"{variant.name}, seed {seed}: {said}", flush=True)
        table, refused = write_table(plan.data_dir, plan.work)
    for row in table.to_dict("records"):
        print(line(row))
    for problem in refused:
        print(f"not in the table: {problem}", file=sys.stderr)
    print(plan.work / "ablation" / "ablation.csv")


def said_auc(value: float | None) -> str:
    """Return a ROC-AUC for people; there is none where a split is missing, unlabelled or of one class."""
    return "none" if value is None else f"{value:.4f}"


def line(row: dict[str, Any]) -> str:
    """Return a row for people."""
    said = f"{row['variant']:<34} {row['seeds']} seeds"
    for split in ("valid", "test"):
        auc, low, high, sd = (row[f"{split}_auc{end}"] for end in ("", "_low", "_high", "_sd"))
        gap, least, most = (row[f"{split}_gap{end}"] for end in ("", "_low", "_high"))
        said += f"  {split} {auc:.4f} [{low:.4f}, {high:.4f}] sd {sd:.4f} gap {gap:+.4f} [{least:+.4f}, {most:+.4f}]"
        said += f" n {row[f'{split}_n']}"
    return f"{said}  {row['core_seconds']:8.1f} core-s  {row['weights']:>10,} weights  {row['overrides']}".rstrip()


if __name__ == "__main__":
    try:
        main()
    except PcamError as problem:
        print(f"pcam: error: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
