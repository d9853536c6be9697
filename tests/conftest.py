"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Nothing that a browser does by itself may look like a request of the page.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# A shell starts what it puts into the background deaf to Ctrl-C, and processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium as the system has it; these tests install nothing."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium on this machine; apt-get install chromium, and these tests run")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; make test installs it")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()
