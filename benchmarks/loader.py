"""How fast patches are read, beside a reader that opens the file for every patch, and beside the machine's limits.

    python benchmarks/loader.py [--quick] [--compile] [--scale] [--threads 2] [--dir FOLDER]

The same patches are stored in four ways: plain uint8, gzip with 1 and with 32 patches a chunk, float32. The reader
that is 1× does what torchvision's PCAM does with each patch: open its file, read it, make a PIL image of it, open the
labels' file, read one, make a float tensor of the image and normalise it. It is measured on each file, because a chunk
of 32 patches makes it slower too.

All ways take turns within one run, and each counts with its best turn, since other work on the machine can only slow a
turn down. A limit is what the machine does at best to the same bytes: copy them with two threads (the stored ones,
or those that are written, where that is more) or inflate them and nothing else. `--scale` reads up to 262,144 patches
of one file of 7.2 GB, which is removed afterwards, and fits how the time of an epoch grows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import deflate
import h5py
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from pcam.config import load_config
from pcam.data.augment import augment, normalise
from pcam.data.format import PATCH_SHAPE, Split, split_path
from pcam.data.loader import Batch, Loader, PatchDataset, augment_generator
from pcam.data.sampler import Sampler
from pcam.models import build
from pcam.training.loop import make_optimiser

BATCH = 128
N = 32_768
BYTES = int(np.prod(PATCH_SHAPE))
SIZES = (8_192, 32_768, 131_072, 262_144)
MEAN, STD = torch.tensor([178.6, 137.2, 176.4]), torch.tensor([59.9, 70.7, 54.3])  # of PCam's public train split
STORED = {
    "uint8": {},
    "gzip 1": {"chunks": (1, *PATCH_SHAPE), "compression": "gzip"},
    "gzip 32": {"chunks": (32, *PATCH_SHAPE), "compression": "gzip"},
    "float32": {"dtype": np.float32},
}
Turn = Callable[[], int]  # does some work and returns how many patches it was


@dataclass
class Way:
    """One way to read: `turn` does a part, `target` is in multiples of the reader per item on the same file."""

    name: str
    file: str
    turn: Turn
    limit: str = ""
    target: float | None = None
    least_of_limit: float | None = None
    why: str = ""
    best: float = 0.0  # patches a second

    def take(self) -> None:
        start = time.perf_counter()
        patches = self.turn()
        self.best = max(self.best, patches / (time.perf_counter() - start))


def tiles(n: int) -> Iterator[np.ndarray]:
    """Painted patches, turned and rolled, in blocks of up to 256."""
    sampler = Sampler(0)
    painted = np.stack([sampler.patch("train", k).pixels for k in range(min(n, 256))])
    rng = np.random.default_rng(0)
    for start in range(0, n, len(painted)):
        shifted = np.roll(painted, tuple(rng.integers(96, size=2)), (1, 2))
        turned = np.rot90(shifted, int(rng.integers(4)), (1, 2))[rng.permutation(len(painted))]
        yield turned[: n - start]


def write(folder: Path, n: int, how: dict) -> Split:
    folder.mkdir()
    with h5py.File(split_path(folder, "train", "x"), "w") as file:
        x = file.create_dataset("x", (n, *PATCH_SHAPE), **{"dtype": np.uint8, **how})
        for k, block in zip(count(0, 256), tiles(n), strict=False):
            x[k : k + len(block)] = block
    with h5py.File(split_path(folder, "train", "y"), "w") as file:
        file["y"] = (np.arange(n) % 2).astype(np.uint8).reshape(n, 1, 1, 1)
    return Split(folder, "train")


def endless(loader: Loader) -> Iterator[Batch]:
    for epoch in count():
        yield from loader.epoch(0, epoch)


def pull(batches: Iterator, some: int, then: Callable[[torch.Tensor], object] = lambda patches: None) -> Turn:
    def turn() -> int:
        done = 0
        for _ in range(some):
            patches = next(batches)[0]
            then(patches)
            done += len(patches)
        return done

    return turn


def per_item(split: Split, items: int) -> Turn:
    """The reader that is 1×: it opens the patch and the label file for each item; its order is random too."""
    path, rng = split_path(split.directory, split.name, "x"), np.random.default_rng(1)
    labels = split_path(split.directory, split.name, "y")
    mean, std = MEAN[:, None, None] / 255, STD[:, None, None] / 255

    def item(index: int) -> tuple[torch.Tensor, int]:
        with h5py.File(path, "r") as file:
            image = Image.fromarray(file["x"][index].astype(np.uint8)).convert("RGB")
        with h5py.File(labels, "r") as file:
            label = int(file["y"][index, 0, 0, 0])
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
        return values.sub_(mean).div_(std), label

    def turn() -> int:
        default_collate([item(int(index)) for index in rng.integers(len(split), size=items)])
        return items

    return turn


def copying(split: Split, patch_bytes: int, threads: int = 2) -> Turn:
    """Copy a file's patches in file order into reused memory of one batch; `patch_bytes` of 27,648 or more a patch."""
    x = split.x
    stored = np.memmap(x.file.filename, np.uint8, "r", x.id.get_offset()).reshape(-1)
    size = BATCH * patch_bytes
    targets, pool = [np.empty(size // threads, np.uint8) for _ in range(threads)], ThreadPoolExecutor(threads)
    batches = len(stored) // size

    def work(thread: int) -> None:
        part = size // threads
        for batch in range(batches):
            start = batch * size + thread * part
            np.copyto(targets[thread], stored[start : start + part])

    def turn() -> int:
        list(pool.map(work, range(threads)))
        return batches * BATCH

    return turn


def inflating(split: Split, chunks: int) -> Turn:
    """Inflate chunks in file order with two threads, and do nothing with them."""
    x, places = split.x, []
    x.id.chunk_iter(lambda chunk: places.append((chunk.byte_offset, chunk.size)))
    stored, pool = np.memmap(x.file.filename, np.uint8, "r"), ThreadPoolExecutor(2)
    size, some = x.chunks[0] * BYTES, places[:chunks]

    def work(thread: int) -> None:
        for start, length in some[thread::2]:
            deflate.zlib_decompress(stored[start : start + length], size)

    def turn() -> int:
        list(pool.map(work, range(2)))
        return len(some) * x.chunks[0]

    return turn


def whole_epoch(split: Split) -> Turn:
    """Open a split, hold it in memory, and read it once in full random order."""
    return lambda: sum(len(batch.labels) for batch in Loader(split, BATCH, resident=True).epoch(0, 0))


def training(batches: Iterator[Batch], steps: int) -> Turn:
    config = load_config("mlp")
    torch.manual_seed(0)
    model = build(config.model)
    model.set_normalisation(MEAN, STD)
    optimiser = make_optimiser(model, config.train)

    def turn() -> int:
        for _ in range(steps):
            batch = next(batches)
            changed = augment(batch.patches, config.train.augment, augment_generator(0, 0, 0))
            inputs = model.normalise(changed, in_place=True)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(inputs), batch.labels.float())
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        return steps * BATCH

    return turn


def one_batch(split: Split) -> Iterator[Batch]:
    batch = next(Loader(split, BATCH).epoch(0, 0))
    while True:
        yield batch


def compiled_normalise() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """`normalise` as one compiled loop: its constants are made outside, else they would be looked up value by value."""
    side, _, channels = PATCH_SHAPE
    scale, shift = (1 / STD).repeat(side), (-MEAN / STD).repeat(side)

    @torch.compile(dynamic=False)
    def rows(patches: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(torch.addcmul(shift, patches.float(), scale))

    def fused(patches: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        rows(patches.view(-1, side * channels), out.view(-1, side * channels))
        return out

    return fused


def ways(splits: dict[str, Split], some: int, compiled: bool) -> list[Way]:
    """All that is measured; `some` batches a turn."""
    u8, gz1, gz32, f32 = (splits[name] for name in STORED)
    few = min(4, some)
    out = torch.empty((BATCH, *PATCH_SHAPE))

    def loader(split: Split, block: int = 1) -> Iterator[Batch]:
        batches = Loader(split, BATCH, resident=False, block=block)
        batches.channel_statistics()  # so begins every training: all patches have been read, and their values checked
        return endless(batches)

    def user(split: Split) -> Iterator:
        while True:
            yield from DataLoader(PatchDataset(split), batch_size=BATCH, shuffle=True)

    def ready(patches: torch.Tensor) -> None:
        normalise(patches, MEAN, STD, out[: len(patches)])

    rows = [
        *(Way(f"per item, {name}", name, per_item(splits[name], 16 if name == "gzip 32" else 64)) for name in STORED),
        Way("copy", "uint8", copying(u8, BYTES)),
        Way("copy float32", "float32", copying(f32, 4 * BYTES)),
        Way("inflate 1", "gzip 1", inflating(gz1, 32 * some)),
        Way("inflate 32", "gzip 32", inflating(gz32, some)),
        Way("uint8 batches", "uint8", pull(loader(u8), 4 * some), "copy", 450, 0.65, "random rows; 30 µs of Python"),
        Way("normalised", "uint8", pull(loader(u8), some, ready), "copy float32", 90, None, "14 MB are written twice"),
        Way("DataLoader", "uint8", pull(user(u8), some), "copy", 80, None, "items are made, and stacked anew"),
        Way("gzip 1", "gzip 1", pull(loader(gz1), 2 * some), "inflate 1", 18, None, "inflating, nearly all of it"),
        Way("gzip 32, data.block=32", "gzip 32", pull(loader(gz32, 32), 2 * some), "inflate 32", 130, None, "as above"),
        Way("gzip 32, into memory", "gzip 32", whole_epoch(gz32), "inflate 32", 130, None, "inflated, then gathered"),
        Way(
            "float32 source",
            "float32",
            pull(loader(f32), 2 * some),
            "copy float32",
            70,
            None,
            "converted; checked before",
        ),
        Way("MLP, one batch", "uint8", training(one_batch(u8), few)),
        Way("MLP, loading", "uint8", training(loader(u8), few), "MLP, one batch", None, 0.85, "loading itself"),
    ]
    if compiled:
        fused, sample = compiled_normalise(), next(loader(u8)).patches
        ready(sample)
        torch.testing.assert_close(fused(sample, torch.empty_like(out)), out)
        turn = pull(loader(u8), some, lambda patches: fused(patches, out))
        rows.insert(10, Way("normalised, compiled", "uint8", turn, "copy float32", 200, None, "gathered before"))
    return rows


def table(rows: list[Way]) -> None:
    best = {way.name: way.best for way in rows}
    print(
        f"{'':24}{'patches/s':>10} {'× per item':>10} {'target':>7} {'of limit':>8} {'target':>7}  limit; what is left"
    )
    for way in rows:
        times = way.best / best[f"per item, {way.file}"]
        share = way.best / best[way.limit] if way.limit else None
        met = (way.target is None or times >= way.target) and (
            way.least_of_limit is None or share >= way.least_of_limit
        )
        cells = [f"{x:.2f}" if x else "" for x in (share, way.least_of_limit)]
        verdict = "" if way.target is None and way.least_of_limit is None else "reached" if met else "missed"
        print(
            f"{way.name:24}{way.best:10,.0f} {times:10.1f} {way.target or '':>7} {cells[0]:>8} {cells[1]:>7}  "
            + "; ".join(filter(None, (way.limit, way.why, verdict)))
        )


def scale(folder: Path, sizes: tuple[int, ...]) -> None:
    """Print how the time of an epoch and the anonymous memory grow with the number of patches."""
    split = write(folder, max(sizes), {})
    before, most, seconds = anonymous_bytes(), 0, []
    for n in sizes:
        loader, best = Loader(split, BATCH, indices=np.arange(n), resident=False), float("inf")
        for epoch in range(max(4, 4 * sizes[-1] // (8 * n))):
            start = time.perf_counter()
            for _ in loader.epoch(0, epoch):
                pass
            best = min(best, time.perf_counter() - start)
            most = max(most, anonymous_bytes())
        seconds.append(best)
        print(f"{n:8,} patches: {best:8.3f} s an epoch, {n / best:10,.0f} patches/s", flush=True)
    exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    print(
        f"exponent {exponent:.3f} (target 1.00 ± 0.05); anonymous memory + {(most - before) / 1e9:.3f} GB (target 0.3)"
    )


def anonymous_bytes() -> int:
    """Memory of this process that is not a file's, from proc(5)."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="256 patches and one turn: for a look, not for a claim")
    parser.add_argument("--compile", action="store_true", help="compile the normalisation too; needs a C++ compiler")
    parser.add_argument("--scale", action="store_true", help="time epochs of 8k to 262k patches as well")
    parser.add_argument("--threads", type=int, default=2, help="of torch, and of everything else")
    parser.add_argument("--turns", type=int, default=24, help="of each way")
    parser.add_argument("--dir", type=Path, help="where the files are made; needs 7 GB, 8 with --scale")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        n, turns = (256, 1) if args.quick else (N, args.turns)
        splits = {file: write(Path(name) / file.replace(" ", "_"), n, how) for file, how in STORED.items()}
        rows = ways(splits, 2 if args.quick else 32, args.compile)
        for number in range(turns):
            for way in rows:
                if number < 3 or way.name != "gzip 32, into memory":  # seconds each
                    way.take()
        print(
            f"{n:,} patches, batches of {BATCH}, full random order, {torch.get_num_threads()} threads, best of {turns}"
        )
        table(rows)
    if args.scale:  # when the other files are gone: what the system keeps of them would leave it less room for this one
        with tempfile.TemporaryDirectory(dir=args.dir) as name:
            scale(Path(name) / "big", (256, 512) if args.quick else SIZES)


if __name__ == "__main__":
    main()
