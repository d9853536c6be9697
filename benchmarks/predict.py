"""How much faster `pcam predict` is than scoring one patch at a time.

    python benchmarks/predict.py [--models mlp cnn p4m resnet18] [--images 1024] [--repeats 3] [--data DIR]

The loop that it is compared with is what one writes first, with all that torch does for it by itself: the trained
model in float32 and evaluation mode, as it is (nothing folded), in inference mode and on torch's default threads; for
each PNG file, open it with Pillow, or for each patch of an HDF5 file (uint8, not compressed), index the open data set;
then an array, normalised and sent through the model alone. The loop is given its model; `pcam predict` reads, checks
and folds it within its time, and writes its table. Both run in this process on the same patches, in turns, and the best
of the repeats counts. Files are read once before, so no disk is measured.

What the parts cost by themselves says how far a batch can help: decoding gains from threads only, and on a processor
core a convolution is bound by arithmetic, in a batch or not. The ceiling is the ratio if reading and scoring filled all
cores and nothing else took any time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image

from pcam.config import load_config
from pcam.data import open_split
from pcam.data.synthetic import write_sample
from pcam.evaluation import predict_images
from pcam.evaluation.predict import for_scoring, score_patches
from pcam.models import PatchClassifier, build
from pcam.training.checkpoint import weights_bytes


def png_patches(folder: Path) -> Iterator[np.ndarray]:
    """Yield the patches of a folder of PNG files."""
    for file in sorted(folder.iterdir()):
        with Image.open(file) as image:
            yield np.asarray(image)


def hdf5_patches(path: Path) -> Iterator[np.ndarray]:
    """Yield the patches of an HDF5 file."""
    with h5py.File(path) as file:
        for index in range(len(file["x"])):
            yield file["x"][index]


def one_at_a_time(model: PatchClassifier, patches: Iterable[np.ndarray]) -> list[float]:
    """Score patches as a first script does."""
    return [float(torch.sigmoid(model.predict_logits(torch.from_numpy(p[None].copy())))[0]) for p in patches]


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time of one call."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - used


def main() -> int:
    """Print the ratio and its parts of each model and kind of file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=["mlp", "cnn", "p4m", "resnet18"], help="presets; random weights"
    )
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path, help="take the patches from this folder's test split, not from a sample")
    args = parser.parse_args()
    cores = os.cpu_count() or 1
    print(f"{args.images} patches, {cores} cores, {torch.get_num_threads()} torch threads; milliseconds a patch")
    head = f"{'model':<10}{'input':<7}{'loop':>8}{'predict':>9}{'ratio':>7}{'ceiling':>9}"
    print(f"{head}   reading, scoring: processor time")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = args.data or write_sample(folder / "data", train=8, valid=8, test=min(args.images, 256), seed=0)
        patches = open_split(data, "test").read(slice(0, args.images))
        patches = patches[np.arange(args.images) % len(patches)]
        (folder / "images").mkdir()
        for number, patch in enumerate(patches):
            Image.fromarray(patch).save(folder / "images" / f"{number:05}.png")
        with h5py.File(folder / "x.h5", "w") as file:
            file["x"] = patches
        inputs = {"PNG": (folder / "images", png_patches), "HDF5": (folder / "x.h5", hdf5_patches)}
        for name in args.models:
            config = load_config(name).model
            torch.manual_seed(0)
            model = build(config).eval()
            (folder / "model.safetensors").write_bytes(weights_bytes(model.state_dict(), config))
            scoring = for_scoring(model)
            for kind, (path, read) in inputs.items():
                work: dict[str, Callable[[], object]] = {
                    "loop": lambda read=read, path=path, model=model: one_at_a_time(model, read(path)),
                    "predict": lambda path=path: predict_images(
                        folder / "model.safetensors", [path], folder / "scores.csv"
                    ),
                    "reading": lambda read=read, path=path: sum(1 for _ in read(path)),
                    "scoring": lambda scoring=scoring: list(score_patches(scoring, [patches])),
                }
                times: dict[str, list[tuple[float, float]]] = {part: [] for part in work}
                for _ in range(args.repeats):
                    for part, call in work.items():
                        times[part].append(seconds(call))
                wall = {part: min(t[0] for t in both) / args.images * 1e3 for part, both in times.items()}
                cpu = {part: min(t[1] for t in both) / args.images * 1e3 for part, both in times.items()}
                ceiling = wall["loop"] * cores / (cpu["reading"] + cpu["scoring"])
                print(
                    f"{name:<10}{kind:<7}{wall['loop']:>8.3f}{wall['predict']:>9.3f}"
                    f"{wall['loop'] / wall['predict']:>7.2f}{ceiling:>9.2f}"
                    f"{cpu['reading']:>10.3f}, {cpu['scoring']:.3f}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
