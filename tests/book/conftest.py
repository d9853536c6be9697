"""The book as it is published, built from `book/`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built book's folder: that named in `PCAM_BOOK`, else `book/` built with warnings as errors."""
    if named := os.environ.get("PCAM_BOOK"):
        return Path(named).resolve()
    out = tmp_path_factory.mktemp("published")
    command = [sys.executable, "-m", "jupyter_book", "build", str(ROOT / "book"), "--path-output", str(out)]
    done = subprocess.run([*command, "-W", "--keep-going"], capture_output=True, text=True, check=False)
    warnings = [line for line in (done.stdout + done.stderr).splitlines() if "WARNING" in line or "ERROR" in line]
    assert done.returncode == 0, "\n".join(warnings) or done.stderr[-2000:]
    return out / "_build" / "html"


@pytest.fixture(scope="session")
def pages(html: Path) -> list[Path]:
    """Every page of the book that a reader can reach; the index of terms is empty and linked from nowhere."""
    found = sorted(p for p in html.rglob("*.html") if "_static" not in p.parts and p.name != "genindex.html")
    assert found, f"{html} holds no page"
    return found
