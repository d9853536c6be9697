"""PCam journal: read and audit PatchCamelyon, train and evaluate on it, and publish what came out.

Importing the package is cheap: the parts below are loaded when they are first named.
"""

from __future__ import annotations

import lazy_loader

__version__ = "0.1.0"

__all__ = ["__version__"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    ("audit", "benchmark", "config", "data", "errors", "evaluation", "journal", "models", "storage", "training"),
)
