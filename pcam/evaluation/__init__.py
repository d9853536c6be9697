"""Evaluation: predictions and everything that is computed from them.

Names are loaded when they are first used, so that importing the package costs nothing and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "Predictions": "predictions",
    "read_predictions": "predictions",
    "write_predictions": "predictions",
    "Metric": "metrics",
    "baselines": "constant",
    "is_constant": "constant",
    "score_metrics": "metrics",
    "Threshold": "thresholds",
    "choose_for_sensitivity": "thresholds",
    "choose_threshold": "thresholds",
    "confusion_matrix": "thresholds",
    "fixed_threshold": "thresholds",
    "implied_threshold": "thresholds",
    "t_interval": "intervals",
    "wilson": "intervals",
    "evaluate": "predict",
    "predict_split": "predict",
    "predict_images": "images",
    "Scored": "slices",
    "find_slices": "slices",
    "slice_masks": "slices",
    "weak_slices": "slices",
    "feature_edges": "candidates",
    "input_features": "features",
    "ErrorGallery": "gallery",
    "error_figure": "gallery_patches",
    "find_neighbours": "explain",
    "integrated_gradients": "explain",
    "label_suspects": "suspects",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
