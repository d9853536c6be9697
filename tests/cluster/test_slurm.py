"""The journal on a cluster: a real Slurm gets its jobs through the profile, and the chapters name their job."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pcam.journal.plan import open_plan
from pcam.storage import read_json

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("snakemake_executor_plugin_slurm") is None,
    reason="the Slurm plugin is an extra: pip install -e '.[slurm]'",
)


def submit(work: Path, data: Path, *targets: str) -> subprocess.CompletedProcess[str]:
    """Run a part of the journal with the cluster's profile."""
    start = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile"]
    options = ["--profile", "workflow/profiles/slurm", "--seconds-between-status-checks", "2"]
    options += ["--latency-wait", "5", "--config", f"data={data}", "--"]
    environment = {**os.environ, "PCAM_WORK": str(work)}
    return subprocess.run(
        [*start, *options, *targets],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
        timeout=900,
        check=False,
    )


def known_jobs() -> dict[str, tuple[str, str]]:
    """Return partition and state, by id, of the jobs that Slurm still knows: those of the last minutes."""
    listed = subprocess.run(["scontrol", "-o", "show", "job"], text=True, capture_output=True, check=True)
    jobs = [dict(re.findall(r"(\w+)=(\S+)", line)) for line in listed.stdout.splitlines() if "JobId=" in line]
    return {job["JobId"]: (job["Partition"], job["JobState"]) for job in jobs}


def test_a_run_and_a_chapter_are_jobs(slurm: None, tiny: Path, tmp_path: Path) -> None:
    work, before = open_plan(tiny, root=tmp_path, make=False).work, known_jobs()
    done = submit(tmp_path, tiny, f"{work}/plan/mlp-0.json", f"{work}/executed/q7_collaboration.ipynb")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (work / "executed" / "q7_collaboration.ipynb").exists()
    ended = {job: state for job, state in known_jobs().items() if job not in before}
    assert sorted(ended.values()) == [("gpu_course", "COMPLETED"), ("thin_course", "COMPLETED")]
    [environment] = (work / "runs").glob("*/environment.json")
    told = read_json(environment, "environment")["slurm"]
    assert ended[told["job_id"]] == ("gpu_course", "COMPLETED") and told["partition"] == "gpu_course"


def test_a_job_that_fails_fails_the_journal(slurm: None, tiny: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(tiny, tmp_path / "data"))
    work, before = open_plan(data, root=tmp_path, make=False).work, known_jobs()
    damaged = data / "camelyonpatch_level_2_split_train_x.h5"
    damaged.write_bytes(damaged.read_bytes()[:-20_000])
    done = submit(tmp_path, data, f"{work}/plan/mlp-0.json")
    assert done.returncode != 0
    assert [state for job, state in known_jobs().items() if job not in before] == [("gpu_course", "FAILED")]
    assert not list(work.glob("plan/*"))
