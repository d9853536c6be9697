"""What the audit's searches find, beside imagehash and a search that compares every pair.

    pip install imagehash==4.3.2     (only for this comparison; it brings PyWavelets)
    python benchmarks/audit_quality.py DIR [--pairs 60] [--limit 1500] [--brute 48] [--seed 0]

DIR holds PCam-format files with a train split, best real patches. Each kind of copy is planted `--pairs` times among
the first `--limit` patches, and all kinds together are searched at once. A listed pair that was not planted counts
against precision, unless the source holds it itself. imagehash: pHash of 64 bits, pairs that differ in at most 8.
Overlaps are searched by brute force among `--brute` patches: every pair at every shift up to 64 px.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from pcam.audit import anchors, near, overlap
from pcam.audit.appearance import luminance, planes
from pcam.audit.scan import pack
from pcam.audit.symmetry import apply
from pcam.data.format import open_split

_PHASH_BITS = 8
_FARTHEST = 64
_PROBES = 16

Pairs = set[tuple[int, int]]


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _jpeg(patch: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(patch)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def _resized(patch: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(patch).resize((90, 90)).resize((96, 96)))


def kinds(rng: np.random.Generator) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """How each kind of copy is made."""

    def bright(patch: np.ndarray, sd: float) -> np.ndarray:
        return _bytes(patch * rng.choice([0.92, 1.08]) + rng.normal(0, sd, patch.shape))

    def turned(patch: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(apply(patch, int(rng.integers(1, 8))))

    return {
        "JPEG 50": lambda p: _jpeg(p, 50),
        "JPEG 70": lambda p: _jpeg(p, 70),
        "brightness ±8 %, noise 3": lambda p: bright(p, 3),
        "brightness ±8 %, noise 6": lambda p: bright(p, 6),
        "blurred, radius 1": lambda p: np.asarray(Image.fromarray(p).filter(ImageFilter.GaussianBlur(1))),
        "96 to 90 to 96 pixels": _resized,
        "one pixel down, JPEG 85": lambda p: _jpeg(np.concatenate([p[:1], p[:-1]]), 85),
        "turned, brightness, noise 3": lambda p: bright(turned(p), 3),
        "turned, stain ±10 %, JPEG 60": lambda p: _jpeg(_bytes(turned(p) * rng.uniform(0.9, 1.1, 3)), 60),
    }


def phash_pairs(patches: np.ndarray) -> Pairs:
    """Pairs whose perceptual hashes differ in few bits, every pair compared."""
    import imagehash

    bits = np.stack([imagehash.phash(Image.fromarray(patch)).hash.reshape(-1) for patch in patches]).astype(np.float32)
    differing = bits @ (1 - bits).T
    first, second = np.nonzero(differing + differing.T <= _PHASH_BITS)
    return {(int(a), int(b)) for a, b in zip(first, second, strict=True) if a < b}


def near_pairs(patches: np.ndarray) -> Pairs:
    """Pairs that the audit's search lists."""
    spectra = np.concatenate(
        [near.spectrum(luminance(planes(patches[k : k + 128]))) for k in range(0, len(patches), 128)]
    )
    return {(int(a), int(b)) for a, b in near.find(spectra, np.ones(len(patches), bool))[0]}


def overlap_pairs(patches: np.ndarray) -> Pairs:
    """Pairs that share pixels, by the audit's search."""
    parts = [anchors.find(pack(patches[k : k + 128])).shifted(k) for k in range(0, len(patches), 128)]
    return {(int(a), int(b)) for a, b in overlap.find(anchors.concatenate(parts), len(patches)).pairs}


def brute_overlaps(patches: np.ndarray) -> Pairs:
    """Pairs that share pixels, each compared at every shift: some probes first, then the whole common region."""
    pixels = pack(patches)
    found = set()
    for dy in range(-_FARTHEST, _FARTHEST + 1):
        for dx in range(-_FARTHEST, _FARTHEST + 1):
            y, x, height, width = max(0, dy), max(0, dx), 96 - abs(dy), 96 - abs(dx)
            one = pixels[:, y : y + height, x : x + width]
            two = pixels[:, y - dy : y - dy + height, x - dx : x - dx + width]
            rows, columns = (np.linspace(0, size - 1, _PROBES).astype(int) for size in (height, width))
            a, b = one[:, rows, columns], two[:, rows, columns]
            for i, j in np.argwhere((a[:, None] == b[None]).all(axis=2)):
                if i < j and np.array_equal(one[i], two[j]):
                    found.add((int(i), int(j)))
    return found


def timed(action: Callable[[], Pairs]) -> tuple[Pairs, float]:
    """Run a search and return its pairs and its processor seconds."""
    start = time.process_time()
    return action(), time.process_time() - start


def overlapping(source: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Patches of which every second one holds pixels of the one before, at any shift."""
    patches = source[rng.permutation(len(source))[: 2 * count]].copy()
    for k in range(0, 2 * count, 2):
        dy, dx = rng.integers(-_FARTHEST, _FARTHEST + 1, 2).tolist()
        y, x, height, width = max(0, dy), max(0, dx), 96 - abs(dy), 96 - abs(dx)
        # The rest is new tissue: a blend of two patches holds no pixels of either.
        moved = _bytes(0.5 * patches[k + 1][::-1] + 0.5 * source[rng.integers(len(source))])
        moved[y - dy : y - dy + height, x - dx : x - dx + width] = patches[k][y : y + height, x : x + width]
        patches[k + 1] = moved
    return patches


def report(name: str, listed: Pairs, planted: Pairs, native: Pairs, seconds: float) -> None:
    """Print one line."""
    right = len(listed & (planted | native))
    precision = f"{right / len(listed):.3f}" if listed else "none listed"
    recall = len(listed & planted) / len(planted)
    print(f"{name:<34} recall {recall:.3f}  precision {precision}  {seconds:>7.2f} CPU s", flush=True)


def main() -> None:
    """Plant, search and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--limit", type=int, default=1500)
    parser.add_argument("--brute", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    split = open_split(args.dir, "train")
    source = split.read(slice(0, min(args.limit, len(split))))
    order = rng.permutation(len(source))
    copies: list[np.ndarray] = []
    planted: dict[str, Pairs] = {}
    for number, (kind, change) in enumerate(kinds(rng).items()):
        for k in order[number * args.pairs : (number + 1) * args.pairs]:
            planted.setdefault(kind, set()).add((int(k), len(source) + len(copies)))
            copies.append(change(source[k]))
    patches = np.concatenate([source, np.stack(copies)])
    everything = set().union(*planted.values())
    searches: dict[str, Callable[[np.ndarray], Pairs]] = {"audit": near_pairs}
    try:
        import imagehash  # noqa: F401

        searches["imagehash"] = phash_pairs
    except ImportError:
        print("imagehash is left out: pip install imagehash==4.3.2")
    for name, search in searches.items():
        native = search(source)  # what the source itself holds in its eyes is not held against it
        listed, seconds = timed(lambda search=search: search(patches))
        report(f"{name}, all kinds", listed, everything, native, seconds)
        for kind, pairs in planted.items():
            print(f"    {kind:<30} recall {len(listed & pairs) / len(pairs):.3f}")
    for count in (len(source) // 4, args.brute // 2):
        mixed = overlapping(source, count, rng)
        pairs = {(k, k + 1) for k in range(0, 2 * count, 2)}
        native = {p for p in overlap_pairs(mixed) if p[0] % 2 == 0 and p[1] % 2 == 0}  # untouched patches
        listed, seconds = timed(lambda mixed=mixed: overlap_pairs(mixed))
        report(f"audit, overlaps in {2 * count}", listed, pairs, native, seconds)
    listed, seconds = timed(lambda: brute_overlaps(mixed))
    report(f"every pair, overlaps in {len(mixed)}", listed, pairs, native, seconds)


if __name__ == "__main__":
    main()
