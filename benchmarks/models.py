"""Processor time of each network: a training step in bfloat16 and in float32, and scoring, as it is and folded.

    python benchmarks/models.py [--presets NAME …] [--batch 64] [--repeats 5]

One core, random patches, channels-last. The measurements take turns and the best of each counts, so that other work
on the machine disturbs all of them alike; what to read are the ratios within one table. The last column is the largest
change of a score that folding makes, on weights that have learned nothing but statistics.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from pcam.config import load_config
from pcam.models import PatchClassifier, build, fold


def step(model: PatchClassifier, inputs: torch.Tensor, bfloat16: bool) -> None:
    """Go forward and backward once."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = model(inputs).float()
    logits.square().mean().backward()


def cpu_seconds(action: Callable[[], object]) -> float:
    """Return the processor time that an action takes."""
    start = time.process_time()
    action()
    return time.process_time() - start


def main() -> None:
    """Measure in turns and print milliseconds a patch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["mlp", "cnn", "p4m", "resnet18"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    patches = torch.randint(0, 256, (args.batch, 96, 96, 3), dtype=torch.uint8)
    actions: dict[tuple[str, str], Callable[[], object]] = {}
    weights, change = {}, {}
    for name in args.presets:
        trained = build(load_config(name).model)
        trained.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        inputs = trained.normalise(patches.permute(0, 3, 1, 2).float())
        step(trained, inputs, False)  # statistics of these patches; and the first step is slower
        scoring = build(load_config(name).model)  # as a completed run's weights are loaded
        scoring.load_state_dict(trained.state_dict())
        folded = fold(scoring)
        actions[name, "bfloat16"] = lambda m=trained, x=inputs: step(m, x, True)
        actions[name, "float32"] = lambda m=trained, x=inputs: step(m, x, False)
        actions[name, "scoring"] = lambda m=scoring: m.predict_logits(patches)
        actions[name, "folded"] = lambda m=folded: m.predict_logits(patches)
        scores = [m.predict_logits(patches).double().sigmoid() for m in (scoring, folded)]
        change[name] = float((scores[0] - scores[1]).abs().max())
        weights[name] = sum(p.numel() for p in trained.parameters())
    best = {key: float("inf") for key in actions}
    for _ in range(args.repeats):
        for key, action in actions.items():
            best[key] = min(best[key], 1e3 * cpu_seconds(action) / args.batch)
    print(f"torch {torch.__version__}, one core, batch {args.batch}, best of {args.repeats}; CPU ms a patch")
    print(f"{'preset':<10}{'weights':>12}{'bfloat16':>10}{'float32':>10}{'ratio':>7}", end="")
    print(f"{'scoring':>10}{'folded':>10}{'ratio':>7}{'change':>10}")
    for name in args.presets:
        low, high, plain, fast = (best[name, kind] for kind in ("bfloat16", "float32", "scoring", "folded"))
        print(f"{name:<10}{weights[name]:>12,}{low:>10.2f}{high:>10.2f}{high / low:>7.2f}", end="")
        print(f"{plain:>10.2f}{fast:>10.2f}{plain / fast:>7.2f}{change[name]:>10.1e}")


if __name__ == "__main__":
    main()
