"""Training: from a configuration and a data folder to a run.

Names (see __init__.pyi) are loaded when they are first used, so that reading a run needs no torch.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
