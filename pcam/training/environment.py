"""What environment.json keeps of the machine and the software that a run was trained with, in each of its parts."""

from __future__ import annotations

import json
import logging
import platform
import sys
from typing import Any

import torch

import pcam
from pcam.provenance import cpu_name, git_state, hardware, lock_hash, slurm_job
from pcam.storage import write_json
from pcam.training.compare import changed_libraries, library_versions
from pcam.training.runs import Run, code_version

_LOG = logging.getLogger(__name__)
_OF_EACH_START = ("command", "resumed", "earlier")  # they differ between parts that are alike


def environment(device: torch.device, controls: dict[str, Any], processes: int = 1) -> dict[str, Any]:
    """Return versions, hardware, controls, commit, lock and cluster job, as they are now.

    Args:
        device: where the run computes.
        controls: what `reproducible` has set.
        processes: how many train together.
    """
    git = git_state()
    return {
        "versions": {
            "python": platform.python_version(),
            "pcam": pcam.__version__,
            **library_versions(),
        },
        "platform": platform.platform(),
        "hardware": hardware(),
        "cpu": cpu_name(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "controls": controls,
        "processes": processes,
        "commit": git.commit,
        "dirty": git.dirty,
        "code_version": code_version(),
        "lock_sha256": lock_hash(),
        "slurm": slurm_job(),
        "command": sys.argv,
    }


def record_environment(run: Run, now: dict[str, Any], resumed: bool) -> None:
    """Write environment.json; `earlier` in it are the environments of the parts before that were not as it is now.

    Args:
        run: that begins or goes on.
        now: see `environment`.
        resumed: whether it goes on from a checkpoint.
    """
    earlier: list[dict[str, Any]] = []
    if resumed and (run.path / "environment.json").exists():
        before = run.environment
        earlier = before.get("earlier", [])
        note_other_libraries(run, "was begun")
        if _of_all_parts(before) != _of_all_parts(now):
            earlier = [*earlier, {key: value for key, value in before.items() if key != "earlier"}]
    write_json(run.path / "environment.json", {**now, "resumed": resumed, "earlier": earlier})


def note_other_libraries(run: Run, what: str) -> None:
    """Warn where a package that can move bits is not the one that the run records; `what` it "was trained" with it."""
    for package in changed_libraries(run.environment["versions"]):
        _LOG.warning(
            "%s %s with %s %s and here it is %s: training again may give other bits",
            *(run.path, what, package.key, package.first, package.second),
        )


def _of_all_parts(environment: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in environment.items() if key not in _OF_EACH_START}, sort_keys=True)
