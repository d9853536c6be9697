"""Make the project's two pictures again: the strip of patches on the book's cover, and the README's view of the book.

    python docs/make_pictures.py strip               → book/_static/patches.webp
    python docs/make_pictures.py view [BUILT_BOOK]   → docs/book.png, by default from _build/html

Both show synthetic data only: pictures of real patches are not committed.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
COLUMNS, GAP, SIZE, CENTRE = 8, 6, 96, 32


def strip(target: Path) -> None:
    """Write two rows of sample patches: negative above, positive below, with the centre that decides framed."""
    from pcam.data.format import open_split
    from pcam.data.synthetic import write_sample

    with tempfile.TemporaryDirectory() as folder:
        split = open_split(write_sample(Path(folder) / "data", train=256, valid=8, test=8), "train")
        patches, labels = split.read(slice(None)), split.labels
    assert labels is not None  # the sample always has labels
    tissue = patches.mean(axis=(1, 2, 3)) < 190  # blank glass and fat make a dull cover
    rows = [np.flatnonzero((labels == label) & tissue)[:COLUMNS] for label in (0, 1)]
    step = SIZE + GAP
    sheet = Image.new("RGBA", (COLUMNS * step - GAP, 2 * step - GAP))
    draw = ImageDraw.Draw(sheet)
    low, high = (SIZE - CENTRE) // 2 - 1, (SIZE + CENTRE) // 2
    for y, row in enumerate(rows):
        for x, index in enumerate(row):
            sheet.paste(Image.fromarray(patches[index]), (x * step, y * step))
            box = (x * step + low, y * step + low, x * step + high, y * step + high)
            draw.rectangle(box, outline="white")
    sheet.save(target, "WEBP", quality=82, method=6)


def view(book: Path, target: Path) -> None:
    """Write a screenshot of a built book's first page, in as few colours as keep it below 300 KB."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1360, "height": 1500}, color_scheme="light")
        page.goto((book / "index.html").resolve().as_uri())
        picture = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    picture.convert("RGB").quantize(160, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["strip"]:
        strip(ROOT / "book" / "_static" / "patches.webp")
    elif sys.argv[1:2] == ["view"]:
        view(Path((sys.argv[2:] or [ROOT / "_build" / "html"])[0]), ROOT / "docs" / "book.png")
    else:
        sys.exit(__doc__)
