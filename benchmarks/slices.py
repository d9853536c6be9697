"""How often the search for weak slices finds a planted one first, and how often it claims one where there is none.

    python benchmarks/slices.py [DIR] [--seeds 20] [--first 0] [--kinds none dark stain pair slide]

Without DIR, four synthetic samples are painted: 2,400 + 2,400 patches of 48 + 48 slides. The patches, labels and slides
are the data's; scores are simulated (`pcam.evaluation.planting`), once per seed, with a weakness in the same slice of
valid and of test. A planted slice counts where it stands first in the table of valid and is confirmed on test; a slide
is in one split only, so it counts where it stands first and is found, and so does the blurriest fifth for a slide that
was blurred. Where nothing is planted, a study counts where no slice of features is found on valid, nor anything
confirmed on test. (Each slide has a shift of its own, so a slide that is found weak then is no false claim: "found"
counts the studies with any claim on valid, slides included.) Bounds: 19 studies in 20.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pcam.data import open_split
from pcam.data.synthetic import write_sample
from pcam.errors import DataError
from pcam.evaluation import Predictions, Scored, feature_edges, find_slices, weak_slices
from pcam.evaluation.planting import PLANTS, blurred, planted, simulated


def main() -> int:
    """Run every kind of study and print a row for each; 1 where a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed, of the scores and of what is painted")
    parser.add_argument("--kinds", nargs="+", choices=PLANTS, default=list(PLANTS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folders = [args.dir] if args.dir else [paint(Path(name), seed) for seed in range(args.first, args.first + 4)]
        scored = [join([measured(folder, split) for folder in folders]) for split in ("valid", "test")]
        groups = [len(np.unique(s.groups)) for s in scored]
        print(f"{len(scored[0].predictions)} + {len(scored[1].predictions)} patches, {groups[0]} + {groups[1]} groups")
        print(f"{'planted':<8}{'n valid':>8}{'n test':>8}{'held':>8}{'found':>7}{'confirmed':>11}{'CPU s':>8}")
        broken = False
        for kind in args.kinds:
            broken |= study(kind, scored, folders, range(args.first, args.first + args.seeds))
    return int(broken)


def paint(folder: Path, seed: int) -> Path:
    """Paint a sample of 12 + 12 slides."""
    return write_sample(folder / str(seed), train=0, valid=600, test=600, seed=seed)


def measured(folder: Path, name: str) -> Scored:
    """Measure a split's patches; their scores are to come, and slides of different folders must not share a name."""
    split = open_split(folder, name)
    scored = Scored.of(Predictions(name, np.arange(len(split)), split.labels, np.zeros(len(split))), split)
    if "slide" in scored.features:
        scored.features["slide"] = f"{folder.name}: " + scored.features["slide"]
    return scored


def join(parts: list[Scored]) -> Scored:
    """Return several folders' patches as one split."""
    split, label = parts[0].predictions.split, np.concatenate([part.predictions.labels for part in parts])
    features = pd.concat([part.features for part in parts], ignore_index=True)
    keys = [(place, group) for place, part in enumerate(parts)
            for group in (np.arange(len(part.features)) if part.groups is None else part.groups)]  # fmt: skip
    groups = np.unique(np.array(keys), axis=0, return_inverse=True)[1].reshape(-1)
    return Scored(Predictions(split, np.arange(len(label)), label, np.zeros(len(label))), features, groups)


def study(kind: str, scored: list[Scored], folders: list[Path], seeds: range) -> bool:
    """Print what the search makes of one kind of weakness over all seeds; True where it misses the bound."""
    edges = feature_edges(scored[0].features)
    try:
        name, parts = planted(kind, scored, edges)
    except DataError as error:
        print(f"{kind:<8}not tried: {error}")
        return False
    if kind == "slide":
        folder = next(f for f in folders if name.startswith(f"slide {f.name}: "))
        first = sum(len(open_split(f, "valid")) for f in folders[: folders.index(folder)])
        scored = [blurred(scored[0], open_split(folder, "valid"), name.removeprefix("slide "), first), scored[1]]
        edges = feature_edges(scored[0].features)
    held = found = confirmed = 0
    started = time.process_time()
    for seed in seeds:
        pair = [simulated(s, part.inside, 2 * seed + k) for k, (s, part) in enumerate(zip(scored, parts, strict=True))]
        table = find_slices(*pair, edges=edges, edges_from="valid")
        claims = weak_slices(table)
        sure = set(claims.loc[claims["verdict"] == "confirmed", "slice"])
        found += len(claims) > 0
        confirmed += len(sure) > 0
        leader = table["slice"].iloc[0]
        if kind == "none":
            held += claims["slice"].str.startswith("slide ").all() and not sure
        elif kind == "slide":
            held += leader in (name, "blurriest fifth") and leader in set(claims["slice"])
        else:
            held += leader == name and name in sure
    seconds = time.process_time() - started
    counts = [int(part.inside.sum()) for part in parts]
    print(
        f"{kind:<8}{counts[0]:>8}{counts[1]:>8}{held:>5}/{len(seeds)}{found:>7}{confirmed:>11}{seconds:>8.1f}"
        f"   {name or 'nothing'}",
        flush=True,
    )
    return held < 0.95 * len(seeds)


if __name__ == "__main__":
    sys.exit(main())
