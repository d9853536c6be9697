"""How often the 95 % intervals hold the truth: simulated studies of clustered patches.

    python benchmarks/coverage.py [--studies 1000] [--slides 54] [--per-slide 20] [--unequal] [--seed 2]

In each study every slide has its own share of tumours and its own shift of the scores. The truth of a metric is its
mean over large studies (2,000 slides). The interval over slides should hold it in 93 to 97 % of the
studies; beside it, the same over patches, as if they were independent. The error of a coverage of 95 % over 1,000
studies is 0.7 points.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from pcam.evaluation import Predictions, fixed_threshold, score_metrics

METRICS = ("roc_auc", "pr_auc", "brier", "f_beta", "accuracy", "sensitivity", "specificity", "precision")


def study(
    rng: np.random.Generator, slides: int, per_slide: int, separation: float, unequal: bool
) -> tuple[Predictions, np.ndarray]:
    """Scores of patches with a prevalence and a shift of each slide's own, and their slides; unequal: log-normal."""
    spread = np.exp(rng.normal(-0.5, 1, slides)) if unequal else np.ones(slides)
    slide = np.repeat(np.arange(slides), np.maximum(2, per_slide * spread).astype(int))
    label = (rng.random(len(slide)) < rng.beta(2, 2, slides)[slide]).astype(int)
    logit = separation * (label - 0.5) + rng.normal(0, 1, slides)[slide] + rng.normal(0, 1, len(slide))
    return Predictions("test", np.arange(len(slide)), label, 1 / (1 + np.exp(-logit))), slide


def main() -> int:
    """Simulate, count and print; 1 where a coverage by slides lies outside 93 to 97 %."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--slides", type=int, default=54)
    parser.add_argument("--per-slide", type=int, default=20)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--separation", type=float, default=3.0, help="of the classes, in logits")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--unequal", action="store_true", help="slides of unequal size")
    args = parser.parse_args()
    like = args.per_slide, args.separation, args.unequal
    rng, cut = np.random.default_rng(args.seed), fixed_threshold(0.5)
    large = [score_metrics(study(rng, 2000, *like)[0], cut, bootstrap=0) for _ in range(20)]
    truth = {name: float(np.mean([found[name].value for found in large])) for name in METRICS}
    held = {(name, unit): 0 for name in METRICS for unit in ("slides", "patches")}
    started = time.process_time()
    for number in range(args.studies):
        predictions, slide = study(rng, args.slides, *like)
        for unit, groups in (("slides", slide), ("patches", None)):
            found = score_metrics(predictions, cut, groups, bootstrap=args.resamples, seed=number)
            for name in METRICS:
                metric = found[name]
                if metric.low is not None and metric.high is not None:
                    held[name, unit] += metric.low <= truth[name] <= metric.high
    print(f"{args.studies} studies of {args.slides} slides with {args.per_slide} patches, {args.resamples} resamples")
    print(f"{'metric':<14}{'truth':>8}{'over slides':>13}{'over patches':>14}")
    for name in METRICS:
        over_slides, over_patches = (held[name, unit] / args.studies for unit in ("slides", "patches"))
        print(f"{name:<14}{truth[name]:>8.3f}{over_slides:>13.1%}{over_patches:>14.1%}")
    print(f"CPU s: {time.process_time() - started:.0f}")
    return int(any(not 0.93 <= held[name, "slides"] / args.studies <= 0.97 for name in METRICS))


if __name__ == "__main__":
    sys.exit(main())
