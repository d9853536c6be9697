"""What the training step costs, piece by piece and against the plain way, in one run.

    python benchmarks/train.py [--repeats 7] [--threads 0] [--compile]

Every variant is timed in turn in each repeat, after one untimed round, so that a machine that slows down slows all of
them; a ratio is the median over repeats of the ratio within a repeat. Random patches stand for data: their values do
not matter to the time. `cnn` and `mlp` are the presets; with more hidden units the mlp's products, not the augmentation
and pooling of 27,648 values a patch, decide.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from pcam.benchmark.limits import flops_per_image, measure_limits, synchronize
from pcam.config import Config, load_config
from pcam.data.augment import augment
from pcam.data.loader import augment_generator
from pcam.models import build
from pcam.provenance import hardware
from pcam.training.loop import clip_gradients, make_optimiser, trained_form

_LEAST_SECONDS = 0.15  # behind one figure
Timed = Callable[[], object]


def training_step(
    config: Config,
    device: torch.device,
    *,
    precision: str,
    layout: torch.memory_format,
    model_only: bool = False,
) -> Timed:
    """Return one step of the loop: augment, normalise, forward, backward, clip, update; or the model's part of it."""
    torch.manual_seed(0)
    model = build(config.model).to(device).to(memory_format=layout)  # type: ignore[call-overload]
    optimiser, settings = make_optimiser(model, config.train), config.train
    network = trained_form(model, settings)
    patches = torch.randint(0, 256, (settings.batch_size, 96, 96, 3), dtype=torch.uint8).to(device)
    targets = torch.randint(0, 2, (settings.batch_size,)).float().to(device)
    ready = model.normalise(augment(patches, settings.augment, augment_generator(0, 0, 0))).to(memory_format=layout)

    def step() -> None:
        inputs = ready
        if not model_only:
            changed = augment(patches, settings.augment, augment_generator(0, 0, 0))
            inputs = model.normalise(changed, in_place=True)
            inputs = inputs.to(memory_format=layout)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(inputs).float()
        loss = nn.functional.binary_cross_entropy_with_logits(logits, targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        clip_gradients(model, settings.grad_clip)
        optimiser.step()

    return step


def products(config: Config, device: torch.device) -> Timed:
    """Return only the matrix products that a step of the mlp cannot do without: one forward, one for the weights."""
    n, inputs, hidden = config.train.batch_size, 1728, config.model.hidden
    x, w, g = (torch.randn(shape, device=device) for shape in ((n, inputs), (hidden, inputs), (n, hidden)))
    return lambda: (x @ w.T, g.T @ x)


def timed(variants: dict[str, Timed], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Return seconds a call of each variant, one figure a repeat, all variants in turn within a repeat."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    calls = {}
    for name, call in variants.items():  # untimed: memory is taken, kernels are chosen, the compiler runs
        call()
        began = time.perf_counter()
        call()
        synchronize(device)
        calls[name] = max(1, int(_LEAST_SECONDS / (time.perf_counter() - began)))
    for _ in range(repeats):
        for name, call in variants.items():
            began = time.perf_counter()
            for _ in range(calls[name]):
                call()
            synchronize(device)
            seconds[name].append((time.perf_counter() - began) / calls[name])
    return seconds


def report(title: str, seconds: dict[str, list[float]], reference: str) -> None:
    """Print the median time of each variant, and how many times faster than the reference it is."""
    print(f"\n{title:<46}{'ms':>9}{'times ' + reference:>28}")
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[reference], values, strict=True))
        print(f"{name:<46}{statistics.median(values) * 1e3:>9.2f}{ratio:>28.2f}")


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile; starting it takes a minute")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = False  # as the loop has it
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{hardware()}, torch {torch.__version__}, {device}, {torch.get_num_threads()} threads")

    plain, last = torch.contiguous_format, torch.channels_last
    cnn = load_config("cnn")
    variants = {
        "float32, channels first": training_step(cnn, device, precision="float32", layout=plain),
        "float32, channels last": training_step(cnn, device, precision="float32", layout=last),
        "bfloat16, channels first": training_step(cnn, device, precision="bfloat16", layout=plain),
        "bfloat16, channels last (the preset)": training_step(cnn, device, precision="bfloat16", layout=last),
        "  of which the model alone": training_step(cnn, device, precision="bfloat16", layout=last, model_only=True),
    }
    if options.compile:
        compiled = load_config("cnn", ["train.compile=true"])
        variants["bfloat16, channels last, compiled"] = training_step(
            compiled, device, precision="bfloat16", layout=last
        )
    seconds = timed(variants, options.repeats, device)
    report(f"cnn, batch {cnn.train.batch_size}", seconds, "float32, channels first")
    flops = cnn.train.batch_size * flops_per_image(build(cnn.model).to(device), device, training=True)
    limits = measure_limits(device, ("float32", "bfloat16")).flops_per_second
    print(f"\n{'model FLOPs utilisation':<46}of {limits['bfloat16'] / 1e9:,.0f} GFLOP/s measured in bfloat16")
    for name in list(variants)[3:]:
        print(f"{name:<46}{flops / statistics.median(seconds[name]) / limits['bfloat16']:>9.2f}")

    for overrides in (
        [],
        ["model.hidden=4096", "train.batch_size=512"],
        ["model.hidden=8192", "train.batch_size=1024"],
    ):
        config = load_config("mlp", overrides)
        variants = {
            "the two products": products(config, device),
            "the model's step": training_step(config, device, precision="float32", layout=last, model_only=True),
            "the whole step": training_step(config, device, precision="float32", layout=last),
        }
        title = f"mlp, {config.model.hidden} hidden, batch {config.train.batch_size}"
        report(title, timed(variants, options.repeats, device), "the two products")


if __name__ == "__main__":
    main()
