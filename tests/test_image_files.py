"""Odd files: every one gets a verdict, none stops the others, none costs much."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from pcam.evaluation.image_files import find_files, printable, read_image, read_items


@pytest.fixture
def patch() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)


def png(path: Path, width: int, height: int, bits: int, colour: int, rows: bytes) -> Path:
    """Write a PNG by hand: what Pillow cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


def tiff_of_16_bits(path: Path) -> Path:
    """Write an uncompressed TIFF of 96×96 RGB with 16 bits a channel."""
    pixels = bytes(96 * 96 * 6)
    entries = [(256, 3, 1, 96), (257, 3, 1, 96), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 14), (277, 3, 1, 3), (278, 3, 1, 96), (279, 4, 1, len(pixels))]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    header = b"II*\0" + struct.pack("<I", 14 + len(pixels)) + struct.pack("<HHH", 16, 16, 16)
    path.write_bytes(header + pixels + directory + bytes(4))
    return path


@pytest.mark.parametrize("colour", [2, 6])
def test_sixteen_bits_are_refused_though_pillow_would_drop_eight(tmp_path: Path, colour: int) -> None:
    row = b"\0" + b"\x12\x34" * 96 * (3 if colour == 2 else 4)
    path = png(tmp_path / "deep.png", 96, 96, 16, colour, row * 96)
    assert Image.open(path).mode in ("RGB", "RGBA")  # without a word
    assert read_image(path) == (None, "refused: 16 bits a channel, not 8")


def test_sixteen_bits_of_tiff_are_refused(tmp_path: Path) -> None:
    patch, verdict = read_image(tiff_of_16_bits(tmp_path / "deep.tif"))
    assert patch is None and verdict.startswith("refused: ") and "truncated" not in verdict


def test_a_palette_is_expanded_and_a_transparent_one_refused(patch: np.ndarray, tmp_path: Path) -> None:
    few = Image.fromarray(patch).quantize(16)
    few.save(tmp_path / "palette.png")
    pixels, verdict = read_image(tmp_path / "palette.png")
    assert np.array_equal(pixels, np.asarray(few.convert("RGB"))) and verdict == "ok: palette expanded"
    few.save(tmp_path / "holes.png", transparency=0)
    assert read_image(tmp_path / "holes.png") == (None, "refused: transparent pixels have no colour")


def test_a_colour_that_is_declared_transparent_is_refused_where_a_pixel_has_it(
    patch: np.ndarray, tmp_path: Path
) -> None:
    path, image = tmp_path / "key.png", Image.fromarray(patch // 2)
    image.save(path, transparency=tuple((patch[0, 0] // 2).tolist()))
    assert read_image(path) == (None, "refused: transparent pixels have no colour")
    image.save(path, transparency=(255, 255, 255))
    pixels, verdict = read_image(path)
    assert np.array_equal(pixels, patch // 2) and verdict == "ok: opaque alpha channel dropped"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("tag", "turn"), [(1, 0), (6, -1), (3, 2), (8, 1), (9, 0)])
def test_a_picture_is_turned_as_its_orientation_tag_says(
    patch: np.ndarray, tmp_path: Path, suffix: str, tag: int, turn: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(patch).save(tmp_path / f"photograph{suffix}", exif=exif)
    pixels, verdict = read_image(tmp_path / f"photograph{suffix}")
    assert np.array_equal(pixels, np.rot90(patch, turn))
    assert verdict == ("ok: turned as its orientation tag says" if turn else "ok")


def test_a_jpeg_is_turned_as_well(patch: np.ndarray, tmp_path: Path) -> None:
    exif, image = Image.Exif(), Image.fromarray(patch)
    exif[0x0112] = 6
    image.save(tmp_path / "plain.jpg")
    image.save(tmp_path / "turned.jpg", exif=exif)
    plain, _ = read_image(tmp_path / "plain.jpg")
    turned, verdict = read_image(tmp_path / "turned.jpg")
    assert plain is not None and np.array_equal(turned, np.rot90(plain, -1))
    assert verdict == "ok: turned as its orientation tag says"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_decompression_bomb_costs_neither_time_nor_memory(tmp_path: Path, suffix: str) -> None:
    """20,000×20,000 pixels of RGB: 1.2 GB if anything were unpacked."""
    path = tmp_path / f"bomb{suffix}"
    if suffix == ".png":
        png(path, 20_000, 20_000, 8, 2, bytes(60_001) * 20)
    else:
        Image.new("RGB", (96, 96)).save(path)
        content = bytearray(path.read_bytes())
        if suffix == ".tif":
            where = int.from_bytes(content[4:8], "little")
            for entry in range(int.from_bytes(content[where : where + 2], "little")):
                at = where + 2 + 12 * entry
                if int.from_bytes(content[at : at + 2], "little") in (256, 257):
                    content[at + 2 : at + 12] = struct.pack("<HII", 4, 1, 20_000)
        else:
            at = content.index(b"\xff\xc0") + 5
            content[at : at + 4] = struct.pack(">HH", 20_000, 20_000)
        path.write_bytes(content)
    script = (
        "import resource, sys; from pathlib import Path; from pcam.evaluation.image_files import read_image; "
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); resource.setrlimit(resource.RLIMIT_CPU, (5, 5)); "
        "print(read_image(Path(sys.argv[1]))[1])"
    )
    command, one_thread = [sys.executable, "-c", script, str(path)], os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=one_thread, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("refused: far more pixels than 96×96", "refused: 20000×20000 pixels, not 96×96")


def test_other_formats_are_not_even_tried(tmp_path: Path) -> None:
    """PostScript would start another program, GIF and BMP are not promised."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 96\nshowpage\n")
    Image.new("RGB", (96, 96)).save(tmp_path / "b.gif")
    (tmp_path / "b.gif").rename(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert read_image(tmp_path / name) == (None, "refused: not a PNG, TIFF or JPEG file that can be read")


def test_the_content_counts_and_not_the_suffix(patch: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(patch).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    pixels, verdict = read_image(tmp_path / "a.jpg")
    assert np.array_equal(pixels, patch) and verdict == "ok"


def test_pipes_links_and_folders_get_a_verdict(patch: np.ndarray, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "gone.h5").symlink_to("nowhere.h5")
    Image.fromarray(patch).save(tmp_path / "whole.png")
    (tmp_path / "link.png").symlink_to("whole.png")
    (tmp_path / "folder.png").mkdir()
    verdicts = {Path(item.path).name: item.verdict for item in read_items(find_files([tmp_path]))}
    assert verdicts == {
        "gone.h5": "refused: cannot be read (No such file or directory)",
        "gone.png": "refused: cannot be read (No such file or directory)",
        "link.png": "ok",
        "loop.png": "refused: cannot be read (Too many levels of symbolic links)",
        "pipe.png": "refused: not a regular file",
        "whole.png": "ok",
    }
    assert [item.verdict for item in read_items([Path(os.devnull)])] == ["refused: not a regular file"]


def test_linked_folders_are_searched_once_and_loops_end(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_text("")
    (tmp_path / "here").mkdir()
    for name in ("one", "two"):
        (tmp_path / "here" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "here" / "up").symlink_to(tmp_path / "here")
    assert find_files([tmp_path / "here"]) == [tmp_path / "here" / "one" / "a.png"]


def test_a_file_named_twice_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    assert find_files(["b.png", tmp_path, "./b.png", "b.png"]) == [Path("b.png"), tmp_path / "a.png"]


def test_unreadable_files_and_folders_get_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by permissions, which do not bind the administrator who may run this."""
    (tmp_path / "shut").mkdir()
    (tmp_path / "a.png").write_text("x")
    scandir, read_bytes = os.scandir, Path.read_bytes

    def refuse_folder(path: str) -> object:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    def refuse_file(path: Path) -> bytes:
        if path.name == "a.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(os, "scandir", refuse_folder)
    monkeypatch.setattr(Path, "read_bytes", refuse_file)
    assert [(Path(item.path).name, item.verdict) for item in read_items(find_files([tmp_path]))] == [
        ("a.png", "refused: cannot be read (Permission denied)"),
        ("shut", "refused: a folder that cannot be listed"),
    ]


def test_damaged_hdf5_names_the_patch_where_it_ends(patch: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as handle:
        handle.create_dataset("x", data=np.stack([patch] * 300), chunks=(50, 96, 96, 3), compression="gzip")
        at = handle["x"].id.get_chunk_info(4).byte_offset  # patches 200 to 249
    with path.open("r+b") as raw:
        raw.seek(at)
        raw.write(bytes(1000))
    items = list(read_items([path]))
    assert [item.verdict for item in items[:128]] == ["ok"] * 128
    assert items[128:] == [type(items[0])(str(path), 128, None, "refused: damaged from patch 128 on")]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (np.zeros((2, 96, 96, 3), "S1"), "dtype |S1 is not uint8"),
        (np.zeros((2, 96, 96, 3), bool), "dtype bool is not uint8"),
        (np.zeros((0, 96, 96, 3)), "the split is empty"),
        (np.zeros(3), "shape (3,) is not (N, 96, 96, 3)"),
        (h5py.SoftLink("/y"), "a soft link, which may read another file"),
        (h5py.ExternalLink("other.h5", "/x"), "an external link, which may read another file"),
    ],
)
def test_hdf5_of_other_things_is_refused(tmp_path: Path, values: Any, problem: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as handle:
        handle["x"] = values
    (item,) = read_items([tmp_path / "x.h5"])
    assert item.patch is None and item.verdict == f"refused: x: {problem}"


def test_a_tiff_whose_pages_go_in_a_circle_ends(patch: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "circle.tif"
    Image.fromarray(patch).save(path)
    content = bytearray(path.read_bytes())
    where = int.from_bytes(content[4:8], "little")
    end = where + 2 + 12 * int.from_bytes(content[where : where + 2], "little")
    content[end : end + 4] = content[4:8]  # the next page is this one
    path.write_bytes(content)
    pixels, verdict = read_image(path)
    assert verdict == "ok" and np.array_equal(pixels, patch)


def test_names_become_text_that_utf8_holds() -> None:
    assert printable(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"
    assert printable("café, \n\r.png") == "café, \\n\\r.png"


def test_stopping_to_read_items_ends_the_threads(tmp_path: Path) -> None:
    for number in range(600):
        (tmp_path / f"{number}.png").write_text("x")
    items = read_items(find_files([tmp_path]))
    assert next(items).verdict.startswith("refused")
    items.close()
