"""The doctor: every subject has a line, and whatever is wrong comes with its fix."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import namedtuple
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from pcam.journal import doctor
from pcam.journal.doctor import Line, diagnose

Usage = namedtuple("Usage", "total used free")


def line(subject: str, data: Path | None = None) -> Line:
    return next(found for found in diagnose(data) if found.subject == subject)


def test_every_subject_has_a_line_and_every_fault_its_fix() -> None:
    lines = diagnose()
    assert [found.subject for found in lines] == ["Python", "torch", "packages", "GPU", "data", "disk", "git", "Slurm"]
    assert all(found.fix for found in lines if found.level != "PASS")
    assert str(lines[0]).startswith("PASS  Python   3.")


def test_torch_is_not_imported() -> None:
    code = "import sys; from pcam.journal.doctor import diagnose; diagnose(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torch_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", missing)
    assert str(line("torch")) == "FAIL  torch    not installed; run 'make journal', which installs it"


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PYTHON", (99, 0))
    assert line("Python").level == "FAIL" and "make PYTHON=" in line("Python").fix


def test_packages_other_than_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda _: "0.0.1")
    assert line("packages").level == "WARN" and "0.0.1 (tested with " in line("packages").found


@pytest.mark.parametrize(("free_gb", "level"), [(500, "PASS"), (10, "WARN"), (1, "FAIL")])
def test_disk(monkeypatch: pytest.MonkeyPatch, free_gb: int, level: str) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(0, 0, free_gb * 10**9))
    assert line("disk").level == level


def test_a_work_folder_that_is_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PCAM_WORK", str(tmp_path / "file" / "work"))
    found = line("disk")
    assert found.level == "FAIL" and found.found == f"{tmp_path / 'file'}: a file, not a folder"


def test_data(tmp_path: Path, tiny: Path) -> None:
    assert [found.found for found in diagnose(tiny) if found.subject == "data"] == [
        "train: 48 patches",
        "valid: 24 patches",
        "test: 24 patches",
    ]
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    (copy / "camelyonpatch_level_2_split_valid_x.h5").write_bytes(b"not HDF5")
    faults = [found for found in diagnose(copy) if found.level == "FAIL"]
    assert len(faults) == 1 and "not an HDF5 file" in faults[0].found and faults[0].fix
    assert line("data", tmp_path / "gone").level == "FAIL"
    assert "pcam data sample" in line("data", tmp_path / "gone").fix


@pytest.mark.parametrize(
    ("answer", "level", "found"),
    [(None, "WARN", "none found"), ("NVIDIA A100\nNVIDIA A100", "PASS", "NVIDIA A100, NVIDIA A100")],
)
def test_gpu(monkeypatch: pytest.MonkeyPatch, answer: str | None, level: str, found: str) -> None:
    monkeypatch.setattr(doctor, "_tool", lambda *command: answer if command[0] == "nvidia-smi" else None)
    monkeypatch.setattr(doctor, "_cpu_build", lambda: False)
    assert (line("GPU").level, line("GPU").found) == (level, found)


def test_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_tool", lambda *_: "NVIDIA A100")
    monkeypatch.setattr(doctor, "_cpu_build", lambda: True)
    assert str(line("GPU")).startswith("WARN  GPU      NVIDIA A100, but torch is a CPU build; install ")


def test_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_tool", lambda *command: "thin_course\ngpu_course" if command[0] == "sinfo" else None)
    assert line("Slurm").found == "partitions gpu_course, thin_course"


def test_a_tool_that_is_missing_or_fails() -> None:
    assert doctor._tool("no-such-tool-here") is None
    assert doctor._tool("false") is None
    assert doctor._tool("echo", "yes") == "yes"
