"""Training: from a configuration and a data folder to a run.

Names are loaded when they are first used, so that reading a run needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcam.training.launch import load_model, train
    from pcam.training.loop import TrainingFailed
    from pcam.training.mirror import mirror_run
    from pcam.training.model_file import load_model_file
    from pcam.training.runs import Run, list_runs, open_run, run_id
    from pcam.training.stop import Interrupted

_HOME = {
    "Interrupted": "stop",
    "Run": "runs",
    "TrainingFailed": "loop",
    "list_runs": "runs",
    "load_model": "launch",
    "load_model_file": "model_file",
    "mirror_run": "mirror",
    "open_run": "runs",
    "run_id": "runs",
    "train": "launch",
}

__all__ = [
    "Interrupted",
    "Run",
    "TrainingFailed",
    "list_runs",
    "load_model",
    "load_model_file",
    "mirror_run",
    "open_run",
    "run_id",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
