"""`pcam doctor`: what this machine has and lacks for the journal, each line with its mend.

Nothing is imported to be probed: versions come from package metadata, GPUs and Slurm from their own tools, so
that the answer is there within a second even where torch is broken.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pcam.config import project_root
from pcam.errors import DataError
from pcam.journal.plan import work_root
from pcam.provenance import git_state

PYTHON = (3, 11)
_NEEDED_GB, _COMFORTABLE_GB = 2.0, 20.0  # the sample's journal; one on the full public record
_TOOL_SECONDS = 10


@dataclass(frozen=True)
class Line:
    """One finding: `level` PASS, WARN or FAIL, the `subject`, what was found, and the `fix` ("" for PASS)."""

    level: str
    subject: str
    found: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.level}  {self.subject:8} {self.found}{f'; {self.fix}' if self.fix else ''}"


def diagnose(data_dir: Path | str | None = None) -> list[Line]:
    """Look at Python, torch, packages, GPU, data, disk, git and Slurm.

    Args:
        data_dir: a data folder to look at too.
    """
    return [_python(), _torch(), _packages(), _gpu(), *_data(data_dir), _disk(), _git(), _slurm()]


def _python() -> Line:
    found = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    if sys.version_info < PYTHON:
        return Line("FAIL", "Python", found, "make .venv anew with 'make PYTHON=python3.11 journal'")
    return Line("PASS", "Python", found)


def _torch() -> Line:
    try:
        found = version("torch")
    except PackageNotFoundError:
        return Line("FAIL", "torch", "not installed", "run 'make journal', which installs it")
    return Line("PASS", "torch", found)


def _packages() -> Line:
    """Compare what is installed with constraints.txt, which pins what was tested."""
    lock = project_root() / "constraints.txt"
    if not lock.exists():
        return Line("WARN", "packages", "no constraints.txt", "restore it with 'git checkout constraints.txt'")
    pinned = dict(line.split("==") for line in lock.read_text(encoding="utf-8").split() if "==" in line)
    other = []
    for name, wanted in pinned.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            continue  # an optional one
        if found.partition("+")[0] != wanted.partition("+")[0]:
            other.append(f"{name} {found} (tested with {wanted})")
    if other:
        fix = f"'{sys.executable} -m pip install -c constraints.txt -e .' brings the tested ones"
        return Line("WARN", "packages", f"{len(other)} other than tested, such as {other[0]}", fix)
    return Line("PASS", "packages", f"all as in constraints.txt ({len(pinned)})")


def _tool(*command: str) -> str | None:
    """Return what a tool prints; None where it is missing, fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TOOL_SECONDS, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.strip()


def _gpu() -> Line:
    names = _tool("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    if not names:
        return Line("WARN", "GPU", "none found", "not needed for the sample; train the full data where there is one")
    if _cpu_build():
        return Line(
            "WARN", "GPU", f"{names.splitlines()[0]}, but torch is a CPU build", "install a CUDA build of torch"
        )
    return Line("PASS", "GPU", ", ".join(names.splitlines()))


def _cpu_build() -> bool:
    """Return whether the installed torch says in its version that it has no GPU support."""
    try:
        return version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return True


def _data(data_dir: Path | str | None) -> Iterator[Line]:
    if data_dir is None:
        yield Line("PASS", "data", "the synthetic sample, which is made when it is needed")
        return
    from pcam.data.format import available_splits, open_split, validate

    try:
        splits = available_splits(data_dir)
    except DataError as error:
        found, _, fix = str(error).partition("; ")
        yield Line("FAIL", "data", found, fix)
        return
    for split in splits:
        faults = validate(data_dir, split, values=False)
        for fault in faults:
            yield Line("FAIL", "data", f"{fault.file}: {fault.field}: {fault.problem}", fault.mend)
        if not faults:
            opened = open_split(data_dir, split)
            labelled = "" if opened.labels is not None else ", no labels"
            yield Line("PASS", "data", f"{split}: {len(opened):,} patches{labelled}")


def _disk() -> Line:
    folder = work_root()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        return Line("FAIL", "disk", f"{folder}: a file, not a folder", "name another folder in PCAM_WORK")
    free = shutil.disk_usage(folder).free / 1e9
    found = f"{free:.0f} GB free for {work_root()}"
    if free < _NEEDED_GB:
        return Line("FAIL", "disk", found, f"free at least {_NEEDED_GB:.0f} GB, or name another folder in PCAM_WORK")
    if free < _COMFORTABLE_GB:
        return Line("WARN", "disk", found, f"enough for the sample; the full data want {_COMFORTABLE_GB:.0f} GB")
    return Line("PASS", "disk", found)


def _git() -> Line:
    state = git_state()
    if state.commit is None:
        return Line(
            "WARN", "git", "no repository or no git", "clone the project with git, so that runs know their commit"
        )
    if state.dirty:
        return Line("WARN", "git", f"{state.commit[:12]} with changes", "commit them before results that you will cite")
    return Line("PASS", "git", state.commit[:12])


def _slurm() -> Line:
    partitions = _tool("sinfo", "--noheader", "--format=%R")
    if partitions is None:
        return Line("PASS", "Slurm", "none here; only the profile workflow/profiles/slurm needs it")
    names = sorted(set(partitions.split()))
    if not names:
        return Line("WARN", "Slurm", "it lists no partition", "ask its administrators, or work without the profile")
    return Line("PASS", "Slurm", f"partitions {', '.join(names)}")
