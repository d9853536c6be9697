"""The learning rate of every step as a pure function: nothing to save, nothing to get out of step on resume.

Only `plateau` looks at results; what it has seen is one factor, which the loop keeps in its checkpoint.
"""

from __future__ import annotations

import math

from pcam.config import TrainConfig

PLATEAU_PATIENCE = 1  # epochs without a better valid loss before the rate falls
PLATEAU_FACTOR = 0.3
_STEP_AT = (0.5, 0.8)  # shares of all steps after which the rate falls to a tenth
_ONE_CYCLE_RISE = 0.3  # share of all steps in which the rate rises, unless `warmup` says otherwise
_ONE_CYCLE_START, _ONE_CYCLE_END = 1 / 25, 1e-4


def learning_rate(config: TrainConfig, step: int, total_steps: int, plateau: float = 1.0) -> float:
    """Return the learning rate of a step.

    * constant: `lr`; step: a tenth of it after half, a hundredth after four fifths of all steps;
    * cosine: half a cosine from `lr` to 0 (Loshchilov and Hutter 2017, arXiv 1608.03983);
    * one_cycle: half a cosine up to `lr`, then one down (Smith and Topin 2018, arXiv 1708.07120);
    * plateau: `lr` times a factor that falls when the valid loss has stopped falling.

    `warmup` (share of all steps) adds a linear rise to every schedule but one_cycle, where it is the
    length of the rise.

    Args:
        config: schedule, `lr` and `warmup`.
        step: from 0 to total_steps - 1.
        total_steps: of the whole run.
        plateau: the factor reached so far (plateau only).
    """
    progress = step / total_steps
    if config.schedule == "one_cycle":
        rise = config.warmup or _ONE_CYCLE_RISE
        if progress < rise:
            return config.lr * _cosine(_ONE_CYCLE_START, 1.0, progress / rise)
        return config.lr * _cosine(1.0, _ONE_CYCLE_END, (progress - rise) / (1 - rise))
    warm = min(1.0, (step + 1) / (config.warmup * total_steps)) if config.warmup else 1.0
    if config.schedule == "cosine":
        progress = max(0.0, progress - config.warmup) / (1 - config.warmup)
        return config.lr * warm * _cosine(1.0, 0.0, progress)
    if config.schedule == "step":
        return config.lr * warm * 0.1 ** sum(progress >= share for share in _STEP_AT)
    return config.lr * warm * (plateau if config.schedule == "plateau" else 1.0)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
