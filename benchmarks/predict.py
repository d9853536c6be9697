"""How much faster `pcam predict` is than scoring one image file at a time.

    python benchmarks/predict.py [--model cnn] [--images 1024] [--repeats 3] [--data DIR]

The loop it is compared with is what one writes first: for each file, open it with Pillow, decode it to an array,
normalise it and send it through the model alone; the model is loaded once for both. Both run in this process on the
same files, in turns, and the best of the repeats counts. Files are read once before, so no disk is measured. What
each part costs by itself says how far a batch can help: decoding gains from threads only, and on a processor core
the forward pass of a convolution is bound by arithmetic, in a batch or not. The last line, by processor time, is
the ratio that could be reached if decoding and scoring filled all cores and nothing else took any time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pcam.config import load_config
from pcam.data import open_split
from pcam.data.synthetic import write_sample
from pcam.evaluation import predict_images
from pcam.evaluation.predict import score_patches
from pcam.models import PatchClassifier, build, fold
from pcam.training.checkpoint import weights_bytes


def one_at_a_time(model: PatchClassifier, files: list[Path]) -> list[float]:
    """Score files as a first script does."""
    scores = []
    for file in files:
        with Image.open(file) as image:
            patch = np.asarray(image)
        scores.append(float(torch.sigmoid(model.predict_logits(torch.from_numpy(patch[None].copy())))[0]))
    return scores


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time of one call."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - used


def main() -> int:
    """Print images per second of both ways, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cnn", help="preset whose network is used, with random weights")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path, help="take the patches from this folder's test split, not from a sample")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = args.data or write_sample(folder / "data", train=8, valid=8, test=min(args.images, 256), seed=0)
        patches = open_split(data, "test").read(slice(0, args.images))
        config = load_config(args.model).model
        torch.manual_seed(0)
        model = build(config).eval()
        (folder / "model.safetensors").write_bytes(weights_bytes(model.state_dict(), config))
        (folder / "images").mkdir()
        files = [folder / "images" / f"{number:05}.png" for number in range(args.images)]
        for number, file in enumerate(files):
            Image.fromarray(patches[number % len(patches)]).save(file)

        def batched() -> None:
            predict_images(folder / "model.safetensors", [folder / "images"], folder / "scores.csv")

        def forward() -> None:
            for start in range(len(patches)):
                model.predict_logits(torch.from_numpy(patches[start : start + 1]))

        folded = fold(model)

        def scored() -> None:
            list(score_patches(folded, [patches]))

        def decode() -> None:
            for file in files:
                with Image.open(file) as image:
                    np.asarray(image)

        work = {
            "one at a time": (lambda: one_at_a_time(model, files), len(files)),
            "pcam predict": (batched, len(files)),
            "decoding alone": (decode, len(files)),
            "forward, one patch": (forward, len(patches)),
            "forward, as scored": (scored, len(patches)),
        }
        best = dict.fromkeys(work, float("inf"))
        cpu = best.copy()
        for _ in range(args.repeats):
            for name, (call, count) in work.items():
                wall, used = seconds(call)
                best[name], cpu[name] = min(best[name], wall / count), min(cpu[name], used / count)
    print(f"{args.model}, {args.images} PNG files, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    for name, cost in best.items():
        print(f"{name:<20}{1 / cost:>10.0f} images/s{1e3 * cost:>9.3f} ms{1e3 * cpu[name]:>9.3f} CPU ms")
    print(f"ratio, pcam predict to one at a time: {best['one at a time'] / best['pcam predict']:.2f}")
    floor = (cpu["decoding alone"] + cpu["forward, as scored"]) / (os.cpu_count() or 1)
    print(f"ratio, if decoding and scoring filled all cores: {cpu['one at a time'] / floor:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
