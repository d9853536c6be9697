"""The machine's Slurm, for the tests of this folder; `.ci/slurm` starts one on a machine that has none."""

from __future__ import annotations

import shutil
import subprocess

import pytest

PARTITIONS = {"thin_course", "gpu_course"}  # those that the profile names


@pytest.fixture(scope="session")
def slurm() -> None:
    """Skip where no Slurm with the profile's partitions answers."""
    if shutil.which("sinfo") is None:
        pytest.skip("no Slurm on this machine: install slurm-wlm and munge, then run .ci/slurm as root")
    listed = subprocess.run(["sinfo", "-h", "-o", "%R"], text=True, capture_output=True, check=False)
    if not set(listed.stdout.split()) >= PARTITIONS:
        pytest.skip(f"no Slurm with the partitions {', '.join(sorted(PARTITIONS))} answers; run .ci/slurm as root")
