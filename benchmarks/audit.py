"""How the audit's time and memory grow with the number of patches.

    python -m pcam data sample big --train 65536 --valid 16 --test 16
    python benchmarks/audit.py big [--sizes 8192 16384 32768 65536] [--seed 0] [--brute 8192]

DIR holds PCam-format files. A set of n patches is the first n of its train split, or, where that is smaller, blends
of two turned patches of it, so that none is a copy of another; in either, one patch in twenty is replaced by a
partner of the patch before that the audit should find, and pairs that the source holds itself come on top. Every
size runs in a process of its own. Times are of the processor (both cores together) and of the wall; the exponent is
fitted to the processor's, because other work on the machine changes it little. `hash` reads the file and hashes
every patch, which is also a part of `scan`. Beside the search for near duplicates, every pair is compared up to the
size `--brute`. What the audit finds is measured by audit_quality.py.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np

from pcam.audit import duplicates, near, overlap
from pcam.audit.scan import BLOCK, Scan, as_bytes, digest, read_block, scan
from pcam.audit.symmetry import apply
from pcam.data.format import Split, open_split, split_path

FULL = 327_680  # patches of the public record
_EVERY = 20
_SOURCES = 4096  # patches that are blended where there are not enough

Row = tuple[str, float, float]


def write(directory: Path, n: int, folder: Path, seed: int) -> set[tuple[int, int]]:
    """Write n patches as a train split, and return the planted pairs."""
    rng = np.random.default_rng(seed)
    split = open_split(directory, "train")
    some = split.read(slice(0, min(len(split), _SOURCES)))
    planted = set()
    with h5py.File(split_path(folder, "train", "x"), "w") as file:
        x = file.create_dataset("x", (n, 96, 96, 3), np.uint8)
        for start in range(0, n, 1000):  # a multiple of _EVERY: a partner stands in the block of its patch
            count = min(1000, n - start)
            enough = len(split) >= n
            block = split.read(slice(start, start + count)) if enough else _blends(some, count, rng)
            for k in range(1, count, _EVERY):
                planted.add((start + k - 1, start + k))
                block[k] = _partner(block[k - 1], some, rng)
            x[start : start + count] = block
    return planted


def _blends(source: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    block = np.empty((count, 96, 96, 3), np.uint8)
    for k in range(count):
        one, two = (source[i].astype(np.float32) for i in rng.integers(0, len(source), 2))
        share = rng.uniform(0.35, 0.65)
        mixed = share * apply(one, int(rng.integers(8))) + (1 - share) * apply(two, int(rng.integers(8)))
        block[k] = np.clip(mixed + rng.normal(0, 2, mixed.shape), 0, 255)
    return block


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


def hash_all(split: Split) -> np.ndarray:
    """Hash every patch, as the scan does."""
    with ThreadPoolExecutor(2) as pool:
        starts = range(0, len(split), BLOCK)
        return np.concatenate(list(pool.map(lambda start: digest(as_bytes(read_block(split, start))), starts)))


def brute_force(found: Scan) -> set[tuple[int, int]]:
    """Compare the low frequencies of all pairs, in all eight symmetries: what the search replaces."""
    white = near._whitened(found.facts.spectrum)
    pairs = set()
    for symmetry in range(8):
        form = near.symmetric_form(white, symmetry).reshape(len(white), -1)
        for start in range(0, len(white), 1024):
            close = np.argwhere(form[start : start + 1024] @ white.reshape(len(white), -1).T >= near.CORRELATION)
            pairs |= {(int(a) + start, int(b)) for a, b in close if a + start < b}
    return pairs


def measure(directory: Path, n: int, seed: int, brute: int) -> tuple[list[Row], str, float]:
    """Time every part on n patches; return the rows, a line on what was found, and the peak memory in GB."""
    with tempfile.TemporaryDirectory() as name:
        planted = write(directory, n, Path(name), seed)
        split = open_split(name, "train")
        hash_all(split)  # warm: the file is in the page cache
        rows: list[Row] = [("hash", *min((timed(lambda: hash_all(split))[1:] for _ in range(3)), key=sum))]
        found, *seconds = timed(lambda: scan(name, ["train"]))
        assert isinstance(found, Scan)
        rows.append(("scan", *seconds))
        unique = duplicates.representatives(found)
        rows.append(("copies", *timed(lambda: (duplicates.exact(found), duplicates.symmetric(found)))[1:]))
        close, *seconds = timed(lambda: near.find(found.facts.spectrum, unique)[0])
        rows.append(("near", *seconds))
        shared, *seconds = timed(lambda: overlap.find(found.anchors.take(unique[found.anchors.patch]), n).pairs)
        rows.append(("overlap", *seconds))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        listed = {tuple(p) for pairs in (close, shared) for p in np.asarray(pairs).tolist()}
        text = f"{len(planted & listed)} of {len(planted)} planted pairs found, {len(listed)} listed"
        if n <= brute:
            pairs, *seconds = timed(lambda: brute_force(found))
            rows.append(("all pairs", *seconds))
            close_pairs = {tuple(p) for p in np.asarray(close).tolist()}
            assert isinstance(pairs, set)
            text += f"; near pairs by comparing all: {len(pairs)}, of which the search found {len(pairs & close_pairs)}"
    return rows, text, peak


def main() -> None:
    """Measure, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8192, 16384, 32768, 65536])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--brute", type=int, default=8192)
    args = parser.parse_args()
    parts: dict[str, list[tuple[int, float, float]]] = {}
    print(f"{'patches':>9} {'part':<10}{'CPU s':>9}{'wall s':>9}{'ms/patch':>10}")
    for n in args.sizes:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows, text, peak = pool.apply(measure, (args.dir, n, args.seed, args.brute))
        for part, cpu, wall in rows:
            parts.setdefault(part, []).append((n, cpu, wall))
            print(f"{n:>9,} {part:<10}{cpu:>9.2f}{wall:>9.2f}{1e3 * cpu / n:>10.3f}")
        print(f"{n:>9,} {text}; peak memory {peak:.2f} GB", flush=True)
    if len(args.sizes) > 1:
        print(f"\nextrapolated from the largest size to {FULL:,} patches, by the fitted exponent:")
        for part, measured in parts.items():
            if len(measured) < 2:
                continue
            n, cpu, wall = np.array(measured).T
            exponent = float(np.polyfit(np.log(n), np.log(cpu), 1)[0])
            factor = (FULL / n[-1]) ** exponent
            print(
                f"{part:<10} exponent {exponent:.2f}, {cpu[-1] * factor:>7.1f} CPU s, {wall[-1] * factor:>7.1f} wall s"
            )


if __name__ == "__main__":
    main()
