"""How large a gallery is, and how fast it answers in Chromium.

    python benchmarks/gallery.py DIR [--limits 0 1 200 5000] [--moves 100]

DIR holds PCam-format files (real patches, or a sample). All its patches together become one split, so that 5,500 real
ones make a gallery of 5,000. Each is opened from disk with every outcome on show; a move of the slider is timed from
its event to the end of the frame that shows the answer, layout and paint included. Bounds: 200 patches in 3 MB, 5,000
in 25 MB, an answer within 50 ms. The row "+ neighbours, maps" carries three training patches beside each patch and a
map of what moved its score, by an mlp with random weights: neither's size depends on the model.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pcam.config import load_config
from pcam.data.format import available_splits, open_split, split_path
from pcam.evaluation import ErrorGallery, Predictions
from pcam.models import build

MEGABYTES = {200: 3.0, 5000: 25.0}
MILLISECONDS = 50.0
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
MOVES = """async (moves) => {
    const slider = document.querySelector("input[type=range]"), times = [];
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    const painted = () => new Promise((done) => {  // a message posted in a frame comes after its layout and paint
        const channel = new MessageChannel();
        channel.port1.onmessage = done;
        channel.port2.postMessage(0);
    });
    for (let move = 0; move < moves; move++) {
        await frame();
        const start = performance.now();
        slider.value = 0.1 + 0.8 * ((move * 0.618) % 1);
        slider.dispatchEvent(new Event("input"));
        await frame();
        await painted();
        times.push(performance.now() - start);
    }
    return times;
}"""


def write_whole(source: Path, folder: Path) -> None:
    """Write all patches of a folder as one test split."""
    splits = [open_split(source, name) for name in available_splits(source)]
    with h5py.File(split_path(folder, "test", "x"), "w") as file:
        x = file.create_dataset("x", (sum(map(len, splits)), 96, 96, 3), np.uint8)
        start = 0
        for split in splits:
            x[start : start + len(split)] = split.read(slice(None))
            start += len(split)
    labels = np.concatenate([np.zeros(len(s), np.uint8) if s.labels is None else s.labels for s in splits])
    with h5py.File(split_path(folder, "test", "y"), "w") as file:
        file["y"] = labels.reshape(-1, 1, 1, 1)


def answer_times(browser: Any, page: Path, moves: int) -> np.ndarray:
    """Return the milliseconds of each move of the slider, every outcome being on show."""
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    tab.goto(page.as_uri())
    tab.wait_for_selector(".pcam-gallery")
    for outcome in ("TP", "TN"):
        tab.locator(f".pg-cell.{outcome}").click()
    times = np.array(tab.evaluate(MOVES, moves))
    tab.close()
    return times


def main() -> int:
    """Measure each size and print a row for it; 1 where a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--limits", type=int, nargs="+", default=[0, 1, 200, 5000])
    parser.add_argument("--moves", type=int, default=100)
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        parser.exit(2, "no Chromium on this machine; apt-get install chromium\n")
    train, model = open_split(args.dir, "train"), build(load_config("mlp").model)
    broken = 0
    print(f"{'gallery':<33}{'MB':>7}{'CPU s':>8}{'median ms':>11}{'p90 ms':>8}{'worst ms':>10}")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = Path(name)
        write_whole(args.dir, folder)
        split = open_split(folder, "test")
        rng = np.random.default_rng(0)
        score = 1 / (1 + np.exp(-(3.0 * split.labels - 1.5 + 1.5 * rng.normal(size=len(split)))))
        predictions = Predictions("test", np.arange(len(split)), split.labels, score)
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        for limit in args.limits:
            for behind in ({}, {"neighbours": train, "model": model, "attribution": True})[: 1 + (limit >= 200)]:
                started = time.process_time()
                page = ErrorGallery(predictions, split, limit=limit, **behind).to_page()
                seconds = time.process_time() - started
                (folder / "gallery.html").write_text(page, encoding="utf-8")
                times = answer_times(browser, folder / "gallery.html", args.moves)
                size, median = len(page.encode()) / 1e6, float(np.median(times))
                broken += size > MEGABYTES.get(limit, np.inf) or median > MILLISECONDS
                label = f"{min(limit, len(split)):,} patches" + (" + neighbours, maps" if behind else "")
                rest = f"{median:>11.1f}{np.quantile(times, 0.9):>8.1f}{times.max():>10.1f}"
                print(f"{label:<33}{size:>7.2f}{seconds:>8.1f}{rest}")
        browser.close()
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
