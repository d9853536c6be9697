"""PCam journal: read and audit PatchCamelyon, train and evaluate on it, and publish what came out.

Importing the package is cheap: the parts below are loaded when they are first named.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_PARTS = ("audit", "benchmark", "config", "data", "errors", "evaluation", "journal", "models", "storage", "training")

__all__ = ["__version__"]


def __getattr__(name: str) -> ModuleType:
    if name in _PARTS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PARTS])
