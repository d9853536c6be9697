"""Where the time of a training step goes: loading, transfer, augmentation, forward, backward, optimiser."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from pcam.benchmark.limits import synchronize
from pcam.benchmark.steps import training_parts
from pcam.config import Config
from pcam.data.format import Split
from pcam.models import build


@dataclass(frozen=True)
class Stage:
    """One part of the training step.

    Attributes:
        name: "loading", "transfer" (GPU only), "augmentation", "forward", "backward" or "optimiser".
        milliseconds: median over the batches.
        low: 10th percentile.
        high: 90th percentile.
        share: of the sum of all parts' medians.
        batches: how many were timed.
    """

    name: str
    milliseconds: float
    low: float
    high: float
    share: float
    batches: int


def time_stages(
    config: Config, split: Split, device: torch.device, *, batches: int = 20, warmup: int = 3
) -> list[Stage]:
    """Time each part of a training step apart, with the device synchronised after each.

    Synchronising costs the overlap of copy and computation that a GPU would allow, so the parts add up to at least
    the time of a whole step.

    Args:
        config: model, batch size, precision and augmentation.
        split: the patches.
        device: where to train.
        batches: batches timed.
        warmup: batches before that.

    Raises:
        DataError: the split has no labels.
    """
    torch.manual_seed(config.seed)
    model = build(config.model).to(device)
    parts = training_parts(model, config, split, device, config.train.precision, config.train.batch_size)
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(warmup + batches):
        for name, part in parts.items():
            start = time.perf_counter()
            part()
            synchronize(device)
            if number >= warmup:
                seconds[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    total = sum(medians.values())
    stages = []
    for name, values in seconds.items():
        low, high = np.percentile(values, (10, 90)) * 1e3
        stages.append(Stage(name, medians[name] * 1e3, float(low), float(high), medians[name] / total, batches))
    return stages
