"""How many flipped labels the audit's ranking of label suspects puts first, and what that costs.

    python benchmarks/labels.py DIR [--patches 2600] [--share 0.03] [--seeds 10 11 12] [--methods colour texture]

DIR holds PCam-format files with labels; groups (slides, or sets that share pixels) are found by the audit. For each
seed, patches of train are drawn and a share of their labels is flipped. Counted are the flipped ones within the first
places of the ranking, twice as many as were flipped, and how many of the listed suspects are flipped ones. Times are
of the processor and of the wall, the scan apart, since every audit makes it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from pcam.audit import labels, overlap
from pcam.audit.findings import groups
from pcam.audit.scan import Scan, scan
from pcam.data.format import open_split, split_path


def flipped_copy(source: Path, folder: Path, n: int, share: float, seed: int) -> tuple[Scan, np.ndarray]:
    """Write n train patches of `source` with flipped labels; return their scan and the flipped indices."""
    split = open_split(source, "train")
    assert split.labels is not None, "the patches need labels"
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(split))[:n])
    label = split.labels[chosen].copy()
    wrong = np.sort(rng.permutation(n)[: round(share * n)])
    label[wrong] ^= 1
    with h5py.File(split_path(folder, "train", "x"), "w") as file:
        file["x"] = split.read(chosen)
    with h5py.File(split_path(folder, "train", "y"), "w") as file:
        file["y"] = label.reshape(-1, 1, 1, 1)
    return scan(folder, ["train"]), wrong


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--patches", type=int, default=2600)
    parser.add_argument("--share", type=float, default=0.03)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--methods", nargs="+", default=["colour", "texture"], choices=("colour", "texture"))
    args = parser.parse_args()
    shares: dict[str, list[float]] = {}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as name:
            found, wrong = flipped_copy(args.dir, Path(name), args.patches, args.share, seed)
            tied = groups(len(found), overlap.find(found.anchors, len(found)).pairs)
            for method in args.methods:
                cpu, wall = time.process_time(), time.perf_counter()
                suspects, _ = labels.find(found, tied, method)
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                first = np.isin(suspects[: 2 * len(wrong)], wrong).sum() / len(wrong)
                shares.setdefault(method, []).append(first)
                print(
                    f"seed {seed} {method:<8} first {2 * len(wrong)} hold {first:.3f} of {len(wrong)}; listed "
                    f"{len(suspects)}, of them flipped {np.isin(suspects, wrong).sum()}; {cpu:.0f} CPU s, {wall:.0f} s",
                    flush=True,
                )
    for method, values in shares.items():
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        print(f"{method}: {np.mean(values):.3f}{spread} over {len(values)} plantings")


if __name__ == "__main__":
    main()
