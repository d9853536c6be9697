"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean synthetic sample of 48 + 24 + 24 patches; read only."""
    from pcam.data.synthetic import write_sample

    return write_sample(tmp_path_factory.mktemp("tiny") / "data", train=48, valid=24, test=24, seed=3)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real patches beside the project."""
    folder = Path(os.environ.get("PCAM_REAL", ROOT.parent / "shared" / "data" / "pcam_real"))
    if not folder.is_dir():
        pytest.skip(f"no real patches at {folder}; name their folder in PCAM_REAL")
    return folder
