"""Evaluation: predictions and everything that is computed from them.

Names (see __init__.pyi) are loaded when they are first used: importing the package costs nothing and needs no torch.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
