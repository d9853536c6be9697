"""Freed memory that stays with the process, for the maps that every layer makes anew in every batch.

The C library of most Linux systems (glibc) asks the system for each block above 32 MiB and gives it back when it is
freed, so that the next layer waits for fresh, zeroed pages; from such sizes on, a larger batch was up to twice as slow
as a smaller one. Values do not depend on it. Elsewhere nothing is changed. See mallopt(3) and malloc_trim(3).
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of the settings, from malloc.h
_KEPT = 2**30  # bytes


@cache
def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GiB that it freed; return whether the system does so."""
    library = _glibc()
    if library is None:
        return False
    return bool(library.mallopt(_MMAP_THRESHOLD, _KEPT)) and bool(library.mallopt(_TRIM_THRESHOLD, _KEPT))


def give_back_freed_memory() -> None:
    """Give back what was freed, for a measurement of memory that must not see what others before it took."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
