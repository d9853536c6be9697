"""The journal: evidence, strict notebooks, staging, publishing and checking.

`open_chapter` is what a notebook needs; it is loaded when it is first named, because checks and the book's
build need neither IPython nor plots.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
