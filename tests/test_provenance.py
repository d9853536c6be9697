"""Provenance: what it says is true of this checkout and this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pcam import provenance
from pcam.storage import sha256_file


def test_git_state_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "project_root", lambda: tmp_path)
    assert provenance.git_state() == provenance.GitState(None, None)

    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        done = subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "first")
    assert provenance.git_state() == provenance.GitState(git("rev-parse", "HEAD"), False)
    (tmp_path / "a").write_text("2")
    assert provenance.git_state() == provenance.GitState(git("rev-parse", "HEAD"), True)
    index = tmp_path / ".git" / "index"
    index.write_bytes(index.read_bytes()[:20])  # the commit can still be read, but not what is compared with it
    assert provenance.git_state() == provenance.GitState(git("rev-parse", "HEAD"), None)
    inside = tmp_path / "archive"
    inside.mkdir()
    monkeypatch.setattr(provenance, "project_root", lambda: inside)
    assert provenance.git_state() == provenance.GitState(None, None), "the commit is another project's"


def test_lock_hash(root: Path) -> None:
    assert provenance.lock_hash() == sha256_file(root / "constraints.txt")


def test_hardware_names_processor_cores_and_memory() -> None:
    assert provenance.cpu_name()
    assert provenance.hardware().startswith(provenance.cpu_name()) and "GiB memory" in provenance.hardware()


def test_slurm_job_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_JOB_PARTITION", "SLURM_JOB_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    assert provenance.slurm_job() == {}
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    assert provenance.slurm_job() == {"job_id": "42"}
