"""The journal: evidence, strict notebooks, staging, publishing and checking.

`open_chapter` is what a notebook needs; it is loaded when it is first named, because checks and the book's
build need neither IPython nor plots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcam.journal.chapter import Chapter, open_chapter

__all__ = ["Chapter", "open_chapter"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from pcam.journal import chapter

        return getattr(chapter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
