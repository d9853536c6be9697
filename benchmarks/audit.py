"""How the audit's time grows with the number of patches, and what it finds.

    python benchmarks/audit.py DIR [--sizes 4096 8192 16384] [--seed 0]

DIR holds PCam-format files (real patches, or a sample). Larger sets are made from them: each new patch is a blend of
two turned patches, so that none is a copy of another, and one in twenty gets a partner that the audit should find.
Times are of the processor (both cores together) and of the wall; the exponent is fitted to the processor's, because
other work on the machine does not change it. Beside it, every pair compared, up to the size where that is bearable.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from pcam.audit import duplicates, near, overlap
from pcam.audit.scan import Scan, scan
from pcam.audit.symmetry import apply
from pcam.data.format import available_splits, open_split, split_path

FULL = 327_680  # patches of the public record
_EVERY = 20
_BRUTE = 8192


def write_blend(source: np.ndarray, n: int, folder: Path, seed: int) -> set[tuple[int, int]]:
    """Write n patches made of `source` (M, 96, 96, 3) as a train split, and return the pairs that share content."""
    rng = np.random.default_rng(seed)
    planted = set()
    with h5py.File(split_path(folder, "train", "x"), "w") as file:
        x = file.create_dataset("x", (n, 96, 96, 3), np.uint8)
        last = np.zeros((96, 96, 3), np.uint8)
        for start in range(0, n, 1024):
            block = np.empty((min(1024, n - start), 96, 96, 3), np.uint8)
            for k in range(len(block)):
                if (start + k) % _EVERY == 1:  # the partner of the patch before: shifted, or brighter and turned
                    planted.add((start + k - 1, start + k))
                    block[k] = _partner(last, source, rng)
                    continue
                one, two = (source[i].astype(np.float32) for i in rng.integers(0, len(source), 2))
                share = rng.uniform(0.35, 0.65)
                mixed = share * apply(one, int(rng.integers(8))) + (1 - share) * apply(two, int(rng.integers(8)))
                last = block[k] = np.clip(mixed + rng.normal(0, 2, mixed.shape), 0, 255).astype(np.uint8)
            x[start : start + len(block)] = block
    return planted


def _partner(patch: np.ndarray, source: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.5:
        turned = apply(patch, int(rng.integers(8))).astype(np.float32)
        return np.clip(turned * 1.08 + rng.normal(0, 3, patch.shape), 0, 255).astype(np.uint8)
    dy, dx = rng.integers(8, 65, 2)
    moved = source[rng.integers(len(source))][::-1].copy()
    moved[: 96 - dy, : 96 - dx] = patch[dy:, dx:]
    return moved


def timed(action: Callable[[], object]) -> tuple[object, float, float]:
    """Run an action and return its result, its processor seconds and its wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = action()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def brute_force(found: Scan) -> set[tuple[int, int]]:
    """Compare the low frequencies of all pairs, in all eight symmetries: what the search replaces."""
    spectra = found.facts.spectrum.astype(np.float32).copy()
    spectra[:, 0, 0] = 0
    spectra /= np.sqrt((spectra**2).mean(axis=0)) + 1e-9
    flat = spectra.reshape(len(spectra), -1)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    sign = ((-1.0) ** np.arange(near.SIZE)).astype(np.float32)
    shape = (-1, near.SIZE, near.SIZE)
    pairs = set()
    for form in (flat.reshape(shape), flat.reshape(shape).swapaxes(1, 2)):
        for signs in (
            np.ones((near.SIZE, near.SIZE)),
            sign[:, None] + 0 * sign,
            sign + 0 * sign[:, None],
            np.outer(sign, sign),
        ):
            other = (form * signs).reshape(len(flat), -1).astype(np.float32)
            for start in range(0, len(flat), 1024):
                close = np.argwhere(flat[start : start + 1024] @ other.T >= near.CORRELATION)
                pairs |= {(int(a) + start, int(b)) for a, b in close if a + start < b}
    return pairs


def main() -> None:
    """Measure, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 8192, 16384])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    source = np.concatenate([open_split(args.dir, s).read(slice(None)) for s in available_splits(args.dir)])
    parts: dict[str, list[float]] = {"scan": [], "copies": [], "near": [], "overlap": []}
    print(f"{'patches':>9} {'part':<10}{'CPU s':>9}{'wall s':>9}{'ms/patch':>10}")
    for n in args.sizes:
        with tempfile.TemporaryDirectory() as name:
            planted = write_blend(source, n, Path(name), args.seed)
            found, *seconds = timed(lambda folder=name: scan(folder, ["train"]))
            assert isinstance(found, Scan)
            unique = duplicates.representatives(found)
            actions: dict[str, Callable[[], object]] = {
                "copies": lambda f=found: (duplicates.exact(f), duplicates.symmetric(f)),
                "near": lambda f=found, u=unique: near.find(f.facts.spectrum, u)[0],
                "overlap": lambda f=found, u=unique: overlap.find(f.anchors.take(u[f.anchors.patch]), len(f)).pairs,
            }
            results = {"scan": (found, *seconds)} | {part: timed(action) for part, action in actions.items()}
            for part, (_, cpu, wall) in results.items():
                parts[part].append(cpu)
                print(f"{n:>9,} {part:<10}{cpu:>9.2f}{wall:>9.2f}{1e3 * cpu / n:>10.3f}")
            listed = {tuple(p) for part in ("near", "overlap") for p in np.asarray(results[part][0]).tolist()}
            print(f"{n:>9,} recall {len(planted & listed)}/{len(planted)}, listed {len(listed)}")
            if n <= _BRUTE:
                pairs, cpu, wall = timed(lambda f=found: brute_force(f))
                print(f"{n:>9,} {'all pairs':<10}{cpu:>9.2f}{wall:>9.2f}   near pairs {len(pairs)}")  # type: ignore[arg-type]
    if len(args.sizes) > 1:
        total = [sum(values) for values in zip(*parts.values(), strict=True)]
        for part, values in {**parts, "all": total}.items():
            exponent, offset = np.polyfit(np.log(args.sizes), np.log(values), 1)
            seconds_full = np.exp(offset + exponent * np.log(FULL))
            print(f"{part:<10} exponent {exponent:.2f}; {FULL:,} patches: {seconds_full:.0f} CPU s")


if __name__ == "__main__":
    main()
