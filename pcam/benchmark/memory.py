"""Memory as a result: the peak of a measurement, and a batch that does not fit."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from pcam.models.memory import give_back_freed_memory

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # see proc(5)
_CPU_ALLOCATOR = "DefaultCPUAllocator"  # its error has no class of its own, only this name in the text

Result = TypeVar("Result")


def unless_out_of_memory(action: Callable[[], Result]) -> Result | None:
    """Return what the action returns, or None when memory ran out in it; every other error is raised."""
    try:
        return action()
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except RuntimeError as error:
        if _CPU_ALLOCATOR not in str(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # what the failed attempt had reserved
    return None


def peak_of(device: torch.device) -> Callable[[], int]:
    """Forget the peak so far and return a function that returns the peak since, in bytes.

    Of a GPU, what tensors took; of the CPU, the resident memory of this process, libraries included.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: torch.cuda.max_memory_allocated(device)
    reset_peak_memory()
    return peak_resident_bytes


def reset_peak_memory() -> bool:
    """Forget the process's highest resident memory, where the system allows it; return whether it did."""
    give_back_freed_memory()
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def peak_resident_bytes() -> int:
    """Return the highest resident memory of this process since `reset_peak_memory` (or since it began)."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux: the figure below cannot be reset, but it is never too low
    scale = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
