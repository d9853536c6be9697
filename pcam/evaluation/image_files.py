"""Files that may hold patches: found in folders, read, and given a verdict each.

A file is either exactly what the model was trained on, 96×96 RGB with 8 bits, or it is refused with the reason. A
resized, greyscale or half-read image would get a confident score too, and nobody would know. No file is skipped in
silence, and none can stop the others: broken links, pipes and damaged files get a verdict like any other.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pcam.data.format import PATCH_SHAPE
from pcam.data.hdf5 import Fault, check_array, open_h5
from pcam.errors import DataError

if TYPE_CHECKING:
    import PIL.Image

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
HDF5_SUFFIXES = (".h5", ".hdf5")
OK = "ok"
# Only these, whatever the name says: Pillow knows formats that start other programs, such as PostScript.
_FORMATS = ("PNG", "TIFF", "JPEG")
_ORIENTATION = 0x0112  # the tag of TIFF and EXIF: 1 is upright, 2 to 8 are the other symmetries of the square
# What Pillow raises on damaged files, by format.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, OverflowError, struct.error)
_PNG_END = b"IEND\xaeB`\x82"  # the last chunk's name and check sum
_WHOLE = 64 << 20  # bytes; a longer file is read piece by piece, since it is hardly a patch
_BLOCK = 128  # patches of an HDF5 file that are in memory at a time
_AHEAD = 256  # image files that are read ahead of the model


@dataclass(frozen=True)
class Item:
    """One patch to score, or the reason why there is none.

    Attributes:
        path: of the file, as text that UTF-8 can hold.
        index: of the patch in an HDF5 file; 0 in an image file.
        patch: uint8 (96, 96, 3), or None where the file is refused.
        verdict: "ok", with a remark where something was dropped, or "refused: " and the reason.
    """

    path: str
    index: int
    patch: np.ndarray | None
    verdict: str


def printable(path: Path | str) -> str:
    r"""Return a path as one line of text that UTF-8 can hold: line breaks become `\n`, foreign bytes `\xff`."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text.replace("\r", "\\r").replace("\n", "\\n")


def find_files(paths: Sequence[str | Path]) -> list[Path]:
    """Return the files that the paths name: files as given, folders searched for image and HDF5 files.

    Links to folders are followed, each folder once. A file that is named twice is listed once, in its first place; a
    folder that cannot be listed is in the list itself, so that it gets a verdict.

    Raises:
        DataError: a path does not exist, or no file is found at all.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += sorted(_search(path))
        elif os.path.lexists(path):
            found.append(path)
        else:
            raise DataError(
                f"{printable(path)}: no such file or folder; give image files, HDF5 files or folders of them"
            )
    if not found:
        raise DataError(f"{', '.join(map(printable, paths))}: no PNG, TIFF, JPEG or HDF5 file in there")
    once: dict[str, Path] = {}
    for path in found:
        once.setdefault(os.path.abspath(path), path)  # noqa: PTH100  (links keep their own names)
    return list(once.values())


def _search(folder: Path) -> Iterator[Path]:
    visited: set[tuple[int, int]] = set()
    closed: list[Path] = []
    for here, folders, names in os.walk(folder, onerror=lambda e: closed.append(Path(e.filename)), followlinks=True):
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in visited:  # a link back to a folder above, or a second way to it
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders.sort()  # which of two ways to a folder is taken must not depend on the file system
        yield from (Path(here, name) for name in names if name.lower().endswith(IMAGE_SUFFIXES + HDF5_SUFFIXES))
    yield from closed


def read_items(files: Sequence[Path]) -> Iterator[Item]:
    """Yield the patches of the files in order, or for each file that is none, why; images are read in threads."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        ahead: deque[Iterator[Item] | Future[Item]] = deque()
        try:
            for path in files:
                hdf5 = path.suffix.lower() in HDF5_SUFFIXES
                ahead.append(_read_hdf5(path) if hdf5 else pool.submit(_read_one, path))
                if len(ahead) > _AHEAD:
                    yield from _items(ahead.popleft())
            while ahead:
                yield from _items(ahead.popleft())
        finally:
            pool.shutdown(cancel_futures=True)  # the reader of these items may have been interrupted


def _items(source: Iterator[Item] | Future[Item]) -> Iterator[Item]:
    return iter([source.result()]) if isinstance(source, Future) else source


def _read_one(path: Path) -> Item:
    patch, verdict = read_image(path)
    return Item(printable(path), 0, patch, verdict)


def _refusal(path: Path) -> str | None:
    """Why a path cannot be opened as a file, or None; opening a pipe would wait for ever."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"refused: cannot be read ({error.strerror})"
    if stat.S_ISDIR(mode):
        return "refused: a folder that cannot be listed"
    return None if stat.S_ISREG(mode) else "refused: not a regular file"


def read_image(path: Path) -> tuple[np.ndarray | None, str]:
    """Read one image file as a patch.

    Returns:
        The patch, uint8 (96, 96, 3), and "ok" (with a remark where something was dropped); or None and the reason.
    """
    from PIL import Image, UnidentifiedImageError

    if refusal := _refusal(path):
        return None, refusal
    try:
        content = path.read_bytes() if path.stat().st_size < _WHOLE else None
    except OSError as error:
        return None, f"refused: cannot be read ({error.strerror})"
    if content == b"":
        return None, "refused: the file is empty"
    try:
        # The size is looked at before anything is unpacked, so a huge image costs nothing here.
        with Image.open(path if content is None else io.BytesIO(content), formats=_FORMATS) as image:
            if image.format == "PNG" and content is not None and _PNG_END not in content:
                return None, "refused: truncated or damaged"  # Pillow is content once it has all pixels
            return _as_patch(image)
    except Image.DecompressionBombError:
        return None, "refused: far more pixels than 96×96"
    except UnidentifiedImageError:
        return None, "refused: not a PNG, TIFF or JPEG file that can be read"
    except _DAMAGED:
        return None, "refused: truncated or damaged"


def _as_patch(image: PIL.Image.Image) -> tuple[np.ndarray | None, str]:
    height, width = PATCH_SHAPE[:2]
    if image.size != (width, height):
        return None, f"refused: {image.size[0]}×{image.size[1]} pixels, not {width}×{height}"
    if getattr(image, "n_frames", 1) > 1:
        return None, f"refused: holds {getattr(image, 'n_frames', 1)} pages, not one"
    if image.mode in ("RGB", "RGBA") and _sixteen_bits(image):
        return None, "refused: 16 bits a channel, not 8"
    if image.mode in ("RGB", "RGBA", "P"):
        return _in_colour(image)
    if image.mode.split(";")[0] in ("1", "L", "LA", "I", "F"):
        return None, f"refused: greyscale ({image.mode}), the stain's colours are missing"
    return None, f"refused: colour mode {image.mode}, not RGB with 8 bits"


def _in_colour(image: PIL.Image.Image) -> tuple[np.ndarray | None, str]:
    from PIL import ImageOps

    remarks = ["palette expanded"] if image.mode == "P" else []
    # Viewers turn a picture as its tag says; by itself Pillow does so in TIFF only.
    if image.getexif().get(_ORIENTATION) in range(2, 9):
        ImageOps.exif_transpose(image, in_place=True)
        remarks.append("turned as its orientation tag says")
    # One colour, or one entry of a palette, may be declared to be the transparent one.
    if image.mode == "RGBA" or "transparency" in image.info:
        image = image.convert("RGBA")
        if (np.asarray(image)[..., 3] != 255).any():
            return None, "refused: transparent pixels have no colour"
        remarks.append("opaque alpha channel dropped")
    return np.asarray(image.convert("RGB")), ": ".join([OK, ", ".join(remarks)] if remarks else [OK])


def _sixteen_bits(image: PIL.Image.Image) -> bool:
    # Pillow drops the lower byte of such channels without a word; how it will read them is in the tiles.
    return any(";16" in str(tile[3]) for tile in image.tile)  # type: ignore[attr-defined]


def _read_hdf5(path: Path) -> Iterator[Item]:
    name, done = printable(path), 0
    if refusal := _refusal(path):
        yield Item(name, 0, None, refusal)
        return
    faults: list[Fault] = []
    if (n := check_array(path, "x", PATCH_SHAPE, faults)) is None:
        where = "" if faults[0].field == "file" else f"{faults[0].field}: "
        yield Item(name, 0, None, f"refused: {where}{faults[0].problem}")
        return
    with open_h5(path, "x") as file:
        try:
            for start in range(0, n, _BLOCK):
                raw = file["x"][start : start + _BLOCK]
                with np.errstate(invalid="ignore"):
                    patches = raw.astype(np.uint8)
                for patch, values in zip(patches, raw, strict=True):
                    same = raw.dtype == np.uint8 or np.array_equal(patch, values)
                    verdict = OK if same else "refused: values that are not integers in 0..255"
                    yield Item(name, done, patch if same else None, verdict)
                    done += 1
        except OSError:
            yield Item(name, done, None, f"refused: damaged from patch {done} on")
