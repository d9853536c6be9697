"""The book as it is published, built from `book/`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pcam.journal.stage import run_jupyter_book

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built book's folder: that named in `PCAM_BOOK`, else `book/` built with warnings as errors."""
    if named := os.environ.get("PCAM_BOOK"):
        return Path(named).resolve()
    out = tmp_path_factory.mktemp("published")
    return run_jupyter_book(ROOT / "book", out, out / "build.log")


@pytest.fixture(scope="session")
def pages(html: Path) -> list[Path]:
    """Every page of the book that a reader can reach; the index of terms is empty and linked from nowhere."""
    found = sorted(p for p in html.rglob("*.html") if "_static" not in p.parts and p.name != "genindex.html")
    assert found, f"{html} holds no page"
    return found
