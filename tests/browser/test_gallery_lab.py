"""The gallery in a real JupyterLab: what the reader does reaches the kernel, what the kernel sets reaches the reader.

The server, its settings, its kernel and the notebook live in a temporary folder and on loopback only; whatever else
the page asks for is cut off and fails the test.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
import pytest

pytestmark = pytest.mark.browser
pytest.importorskip("jupyterlab", reason="JupyterLab is not installed; pip install -e '.[dev]', and this test runs")

PATIENCE = 120  # seconds; a loaded machine takes long to start a kernel that imports torch's neighbours
MAKE = """
import numpy as np
from pcam.data import open_split
from pcam.evaluation import ErrorGallery, Predictions
split = open_split({data!r}, "test")
score = np.round(np.clip(0.3 * split.labels + 0.7 * np.random.default_rng(1).random(len(split)), 0, 1), 2)
predictions = Predictions("test", np.arange(len(split)), split.labels, score)
gallery = ErrorGallery(predictions, split)
gallery
"""
SAY = """
called, label = score >= gallery.threshold, split.labels == 1
print(f"threshold={gallery.threshold} selected={gallery.selected} TP={int((called & label).sum())}")
"""
CELLS = [MAKE, "gallery.threshold = 0.25", SAY, "gallery.selected = 3", "gallery.selected = None"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(ready: Any, what: str) -> Any:
    """Return the first true answer of `ready`, asked twice a second."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := ready():
            return found
        time.sleep(0.5)
    pytest.fail(f"{what}: not after {PATIENCE} s")


@pytest.fixture(scope="module")
def lab(tiny: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a notebook in a JupyterLab of its own."""
    home = tmp_path_factory.mktemp("lab")
    (home / "work").mkdir()
    nbformat.write(
        nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(text.format(data=str(tiny)).strip()) for text in CELLS[:1]]
            + [nbformat.v4.new_code_cell(text.strip()) for text in CELLS[1:]],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        ),
        home / "work" / "gallery.ipynb",
    )
    for name, setting in (
        ("@jupyterlab/apputils-extension/notification", {"fetchNews": "false"}),
        ("@jupyter-widgets/jupyterlab-manager/plugin", {"saveState": True}),
    ):
        path = home / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(setting))
    port = free_port()
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *("--IdentityProvider.token=", "--ServerApp.password=", f"--ServerApp.root_dir={home / 'work'}"),
        *(f"--LabApp.user_settings_dir={home / 'settings'}", f"--LabApp.workspaces_dir={home / 'workspaces'}"),
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    ]
    folders = {name: str(home / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    environment = {**os.environ, **folders, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    with (home / "lab.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=home, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        if server.poll() is not None:
            pytest.fail(f"JupyterLab ended with {server.returncode}: {(home / 'lab.log').read_text()[-2000:]}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/api", timeout=5) as reply:
            return bool(reply.status == 200)
        return False

    try:
        wait_for(answers, "JupyterLab answers")
        yield f"{address}/lab/tree/gallery.ipynb?reset"
    finally:
        # The kernels are in the server's session: one signal for all, and a second for who does not hear it.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(15)


@pytest.fixture(scope="module")
def notebook(lab: str, browser: Any) -> Iterator[Any]:
    """The notebook's page with its first cell run; everything but loopback is cut off."""
    outside: list[str] = []
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(PATIENCE * 1000)

    def gate(route: Any) -> None:
        url = route.request.url
        if urlsplit(url).hostname in ("127.0.0.1", None):
            route.continue_()
        else:
            outside.append(url)
            route.abort()

    page.route("**/*", gate)
    page.goto(lab)
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    )
    run_cell(page, 0)
    page.wait_for_selector(".jp-OutputArea .pcam-gallery .pg-tile")
    yield page
    page.close()
    assert outside == []


def run_cell(page: Any, place: int) -> str:
    """Run one cell to its end and return what it printed."""
    page.evaluate(
        """async (place) => {
            const { content, sessionContext } = window.jupyterapp.shell.currentWidget;
            content.activeCellIndex = place;
            content.deselectAll();
            await window.jupyterapp.commands.execute("notebook:run-cell");
        }""",
        place,
    )
    return str(
        page.evaluate(
            """(place) => window.jupyterapp.shell.currentWidget.content.widgets[place].model.outputs.toJSON()
                .map((output) => [output.text].flat().join("")).join("")""",
            place,
        )
    )


def said(page: Any, pattern: str) -> re.Match[str]:
    """Ask the kernel what it holds until the answer fits: the page's message to it takes its time."""
    return wait_for(lambda: re.search(pattern, run_cell(page, 2)), f"the kernel says {pattern}")


def true_positives(page: Any) -> int:
    return int(page.locator(".pg-cell.TP strong").inner_text().replace(",", ""))


def test_the_slider_moves_the_kernel(notebook: Any) -> None:
    slider = notebook.locator(".pcam-gallery input[type=range]")
    slider.evaluate("(node) => { node.value = 0.75; node.dispatchEvent(new Event('input', { bubbles: true })); }")
    found = said(notebook, r"threshold=0\.75 selected=None TP=(\d+)")
    assert true_positives(notebook) == int(found[1])


def test_the_kernel_moves_the_slider(notebook: Any) -> None:
    run_cell(notebook, 1)
    wait_for(
        lambda: notebook.locator(".pcam-gallery input[type=range]").input_value() == "0.25", "the slider stands at 0.25"
    )
    found = said(notebook, r"threshold=0\.25 .*TP=(\d+)")
    assert true_positives(notebook) == int(found[1])


def test_the_patch_on_show_is_the_same_on_both_sides(notebook: Any) -> None:
    tile = notebook.locator(".pcam-gallery .pg-tile").first
    index = tile.get_attribute("title").split(",")[0][1:]
    tile.click()
    said(notebook, rf"selected={index} ")
    notebook.keyboard.press("Escape")
    said(notebook, r"selected=None ")
    run_cell(notebook, 3)
    notebook.wait_for_selector(".pcam-gallery dialog[open]")
    assert "#3" in notebook.locator(".pcam-gallery dialog h2").inner_text()
    run_cell(notebook, 4)
    notebook.wait_for_selector(".pcam-gallery dialog", state="hidden")


def cells_of(page: Any) -> tuple[int, int]:
    """How many cells the notebook has, and which is active."""
    return tuple(
        page.evaluate(
            "(({ widgets, activeCellIndex }) => [widgets.length, activeCellIndex])"
            "(window.jupyterapp.shell.currentWidget.content)"
        )
    )


def test_keys_in_the_gallery_are_no_commands_to_the_notebook(notebook: Any) -> None:
    """JupyterLab's arrows go to another cell, and its b adds one: not while the reader looks at patches."""
    tiles = notebook.locator(".pcam-gallery .pg-tile")
    tiles.first.focus()
    before = cells_of(notebook)
    for key in ("ArrowRight", "ArrowDown", "b", "Home"):
        notebook.keyboard.press(key)
    assert notebook.evaluate(
        "document.activeElement.title || document.activeElement.outerHTML.slice(0, 80)"
    ) == tiles.first.get_attribute("title")
    slider = notebook.locator(".pcam-gallery input[type=range]")
    start = float(slider.input_value())
    slider.focus()
    notebook.keyboard.press("ArrowDown")
    assert float(slider.input_value()) == pytest.approx(start - 0.001)
    box = notebook.locator(".pcam-gallery").get_by_label("Threshold, exact value")
    box.click()
    notebook.keyboard.press("Control+a")
    notebook.keyboard.type("0.6")
    notebook.keyboard.press("Enter")
    said(notebook, r"threshold=0\.6 ")
    tiles.first.click()
    for key in ("b", "ArrowRight", "Escape"):
        notebook.keyboard.press(key)
    notebook.wait_for_selector(".pcam-gallery dialog", state="hidden")
    assert cells_of(notebook)[0] == before[0]


def test_a_saved_state_shows_the_gallery_again(notebook: Any) -> None:
    """Opened again, before any cell is run: the page is there, and its slider works."""
    notebook.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    notebook.reload()
    notebook.wait_for_selector(".pcam-gallery .pg-tile")
    slider = notebook.locator(".pcam-gallery input[type=range]")
    for value, called in (("0", 11), ("1", 0)):
        slider.evaluate("(node, value) => { node.value = value; node.dispatchEvent(new Event('input')); }", value)
        wait_for(lambda called=called: true_positives(notebook) == called, f"{called} true positives")


def test_the_page_goes_on_without_its_kernel(notebook: Any) -> None:
    notebook.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    slider = notebook.locator(".pcam-gallery input[type=range]")
    slider.evaluate("(node) => { node.value = 0; node.dispatchEvent(new Event('input', { bubbles: true })); }")
    wait_for(lambda: true_positives(notebook) == 11, "the counts follow the slider")
