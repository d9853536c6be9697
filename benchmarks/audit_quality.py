"""What the audit's searches find, beside imagehash and a search that compares every pair.

    pip install imagehash==4.3.2     (only for this comparison; it brings PyWavelets)
    python benchmarks/audit_quality.py DIR [--pairs 60] [--limit 1500] [--brute 48] [--seed 0]

DIR holds PCam-format files with a train split, best real patches. Each kind of copy is planted `--pairs` times among
the first `--limit` patches, and all kinds together are searched at once. A listed pair that was not planted counts
against precision, unless the source holds it itself. imagehash: pHash of 64 bits, pairs that differ in at most 8.
Overlaps are planted among patches that share nothing, beside those that do and beside glass, white borders and smooth
gradients; the audit reads them from three splits. A listed pair is right only if all pixels of the region that the two
have in common at the listed shift are equal in the files, and a planted one is found only with its shift. Beside it,
overlaps are searched by brute force among `--brute` patches: every pair at every shift up to 64 px.
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from pcam.audit import anchors, audit, near, overlap
from pcam.audit.appearance import luminance, planes
from pcam.audit.scan import pack
from pcam.audit.symmetry import apply
from pcam.data.contiguous import write_array
from pcam.data.format import SPLITS, open_split, split_path

_PHASH_BITS = 8
_FARTHEST = 64
_PROBES = 16

Pairs = set[tuple[int, int]]
Shifts = dict[tuple[int, int], tuple[int, int]]


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


def overlapping(source: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Shifts]:
    """Patches of which every second one holds pixels of the one before, and by how much it is shifted."""
    patches, shifts = source[rng.permutation(len(source) // 2 * 2)].copy(), {}
    for k in range(0, len(patches), 2):
        dy, dx = shifts[k, k + 1] = tuple(rng.choice([*range(-_FARTHEST, 0), *range(1, _FARTHEST + 1)], 2).tolist())
        y, x, height, width = _shared(dy, dx)
        # The rest is new tissue: a blend of two patches holds no pixels of either.
        moved = _bytes(0.5 * patches[k + 1][::-1] + 0.5 * source[rng.integers(len(source))][:, ::-1])
        moved[y - dy : y - dy + height, x - dx : x - dx + width] = patches[k][y : y + height, x : x + width]
        patches[k + 1] = moved
    return patches, shifts


def _shared(dy: int, dx: int) -> tuple[int, int, int, int]:
    return max(0, dy), max(0, dx), 96 - abs(dy), 96 - abs(dx)


def nearly_blank(source: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Patches (4 B, 96, 96, 3) that look alike and share no tissue: glass, white, gradients, and tissue cut off."""
    white = np.full((96, 96, 3), 255, np.uint8)
    slope = np.linspace(200, 240, 96)[None, :, None] + np.zeros((96, 96, 3))
    made = []
    for k, patch in enumerate(source):
        glass = _bytes(np.array([243, 240, 244]) + rng.normal(0, 2, patch.shape))
        cut = patch.copy()
        cut[:, 48:] = 255 if k % 2 else 244
        made += [white if k % 2 else _jpeg(glass, 75), glass, _jpeg(_bytes(slope + k % 5), 80), _jpeg(cut, 80)]
    return np.stack(made)


def audited_overlaps(patches: np.ndarray, rng: np.random.Generator) -> tuple[Shifts, np.ndarray]:
    """What the audit lists when the patches are spread over three splits, and the split (N,) of each."""
    order, part = rng.permutation(len(patches)), rng.integers(0, 3, len(patches))
    places = {name: order[part[order] == number] for number, name in enumerate(SPLITS)}
    with tempfile.TemporaryDirectory() as folder:
        for name, members in places.items():
            write_array(split_path(folder, name, "x"), "x", patches[members])
            write_array(split_path(folder, name, "y"), "y", np.zeros((len(members), 1, 1, 1), np.uint8))
        audit(folder, Path(folder) / "out", suspects="none")
        with (Path(folder) / "out" / "overlaps.csv").open() as file:
            rows = list(csv.DictReader(file))
    found = {}
    for row in rows:
        one, two = places[row["split"]][int(row["index"])], places[row["partner_split"]][int(row["partner_index"])]
        sign = 1 if one < two else -1
        found[min(one, two), max(one, two)] = (sign * int(row["dy"]), sign * int(row["dx"]))
    return found, part


def judge_overlaps(source: np.ndarray, rng: np.random.Generator) -> None:
    """Plant, audit, compare the listed pairs pixel by pixel, and print."""
    tied = np.zeros(len(source), dtype=bool)
    tied[[patch for pair in overlap_pairs(source) for patch in pair]] = True
    alone = rng.permutation(np.flatnonzero(~tied))
    mixed, shifts = overlapping(source[alone[40:]], rng)
    patches = np.concatenate([mixed, source[tied], nearly_blank(source[alone[:40]], rng)])
    start = time.process_time()
    found, part = audited_overlaps(patches, rng)
    seconds = time.process_time() - start
    right = 0
    for (a, b), (dy, dx) in found.items():
        y, x, height, width = _shared(dy, dx)
        one, two = patches[a, y : y + height, x : x + width], patches[b, y - dy :, x - dx :][:height, :width]
        right += np.array_equal(one, two)
    name = f"audit, overlaps in {len(patches)}"
    print(f"{name:<34} precision {right / len(found):.4f} of {len(found)} listed  {seconds:>7.2f} CPU s, all checks")
    for where, across in (("within a split", False), ("across splits", True)):
        chosen = [pair for pair in shifts if (part[pair[0]] != part[pair[1]]) == across]
        hits = sum(found.get(pair) == shifts[pair] for pair in chosen)
        print(f"    {where:<30} recall {hits / len(chosen):.4f} of {len(chosen)}", flush=True)


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
    judge_overlaps(source, rng)
    mixed, shifts = overlapping(source[rng.permutation(len(source))[: args.brute]], rng)
    listed, seconds = timed(lambda: overlap_pairs(mixed))
    report(f"audit's search, overlaps in {len(mixed)}", listed, set(shifts), set(), seconds)
    listed, seconds = timed(lambda: brute_overlaps(mixed))
    report(f"every pair, overlaps in {len(mixed)}", listed, set(shifts), set(), seconds)


if __name__ == "__main__":
    main()
