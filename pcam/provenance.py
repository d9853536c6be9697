"""Where a number comes from besides config and data: commit, machine, locked environment, cluster job.

Nothing here imports torch, so that evidence and checks can name their provenance at once.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from pcam.config import project_root
from pcam.storage import sha256_file


@dataclass(frozen=True)
class GitState:
    """The checkout: `commit` (40 hex digits) and whether tracked files differ from it; None where git cannot say."""

    commit: str | None
    dirty: bool | None


def git_state() -> GitState:
    """Return the state of the project's checkout; both None where there is no git, no commit or no checkout."""
    root = project_root()
    commit = _git(root, "rev-parse", "HEAD") if is_checkout(root) else None
    if commit is None:
        return GitState(None, None)
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return GitState(commit.strip(), None if changed is None else bool(changed))


def is_checkout(root: Path) -> bool:
    """Return whether a folder is the top of a git checkout: an archive unpacked inside another project is not."""
    top = _git(root, "rev-parse", "--show-toplevel")
    return top is not None and Path(top.rstrip("\n")).resolve() == root.resolve()


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout


def cpu_name() -> str:
    """Return the processor's model name as the operating system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the name below is coarser
    return platform.processor() or platform.machine()


def hardware() -> str:
    """Return one line about the machine's processor, cores and memory (GPUs are named by the run that used one)."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{cpu_name()}, {os.cpu_count()} cores, {memory:.0f} GiB memory"


def lock_hash() -> str | None:
    """Return the SHA-256 of constraints.txt, which pins every package; None where it is missing."""
    lock = project_root() / "constraints.txt"
    return sha256_file(lock) if lock.exists() else None


def slurm_job() -> dict[str, str]:
    """Return the cluster job's id, partition and node list from the environment; empty outside Slurm."""
    names = {"job_id": "SLURM_JOB_ID", "partition": "SLURM_JOB_PARTITION", "nodes": "SLURM_JOB_NODELIST"}
    return {key: os.environ[variable] for key, variable in names.items() if variable in os.environ}
