"""Prediction on image files: a verdict for each, and the very scores that evaluation gives."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from pcam.config import load_config
from pcam.data import open_split
from pcam.errors import DataError, RunError, StorageError
from pcam.evaluation import predict_images, predict_split
from pcam.evaluation.image_files import find_files, read_image
from pcam.evaluation.images import read_scores
from pcam.training import Run, train


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = load_config("mlp", ["train.epochs=1", "model.hidden=8"])
    return train(config, tiny, tmp_path_factory.mktemp("runs"), progress=False)


@pytest.fixture
def patch(tiny: Path) -> np.ndarray:
    return open_split(tiny, "test").read([0])[0]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
def test_scores_equal_those_of_evaluation_exactly(run: Run, tiny: Path, tmp_path: Path, suffix: str) -> None:
    split = open_split(tiny, "test")
    for index, pixels in enumerate(split.read(slice(None))):
        Image.fromarray(pixels).save(tmp_path / f"{index:03}{suffix}")
    report = predict_images(run.path, [tmp_path], tmp_path / "out" / "scores.csv")
    rows = rows_of(tmp_path / "out" / "scores.csv")
    assert [float(row["score"]) for row in rows] == predict_split(run, split).score.tolist()
    assert [row["path"] for row in rows] == [str(tmp_path / f"{index:03}{suffix}") for index in range(24)]
    assert (report.n_scored, report.n_refused) == (24, 0)


def test_hdf5_is_scored_patch_by_patch(run: Run, tiny: Path, tmp_path: Path) -> None:
    report = predict_images(run.path, [tiny / "camelyonpatch_level_2_split_test_x.h5"], tmp_path / "scores.csv", 0.5)
    rows = rows_of(tmp_path / "scores.csv")
    expected = predict_split(run, open_split(tiny, "test")).score
    assert [int(row["index"]) for row in rows] == list(range(24))
    assert [float(row["score"]) for row in rows] == expected.tolist()
    assert [row["label"] for row in rows] == [str(int(score >= 0.5)) for score in expected]
    assert report.threshold == 0.5


def test_float_hdf5_of_whole_numbers_is_scored_and_others_are_refused(run: Run, tiny: Path, tmp_path: Path) -> None:
    patches = open_split(tiny, "test").read(slice(0, 3)).astype(np.float32)
    patches[1, 0, 0, 0] = 1e5
    patches[2, 0, 0, 0] = np.nan
    with h5py.File(tmp_path / "x.h5", "w") as handle:
        handle["x"] = patches
    report = predict_images(run.path, [tmp_path / "x.h5"], tmp_path / "scores.csv")
    assert [row["verdict"][:7] for row in rows_of(tmp_path / "scores.csv")] == ["ok", "refused", "refused"]
    assert report.refused == {"refused: values that are not integers in 0..255": 2}


@pytest.mark.parametrize(
    ("mode", "size", "verdict"),
    [
        ("L", (96, 96), "refused: greyscale (L)"),
        ("I;16", (96, 96), "refused: greyscale (I;16)"),
        ("LA", (96, 96), "refused: greyscale (LA)"),
        ("RGB", (97, 97), "refused: 97×97 pixels, not 96×96"),
        ("RGB", (1, 96), "refused: 1×96 pixels"),
    ],
)
def test_wrong_images_get_a_verdict(tmp_path: Path, mode: str, size: tuple[int, int], verdict: str) -> None:
    Image.new(mode, size).save(tmp_path / "image.png")
    pixels, found = read_image(tmp_path / "image.png")
    assert pixels is None and found.startswith(verdict)


def test_opaque_alpha_is_dropped_and_transparency_refused(patch: np.ndarray, tmp_path: Path) -> None:
    opaque = np.dstack([patch, np.full((96, 96), 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    opaque[0, 0, 3] = 254
    Image.fromarray(opaque).save(tmp_path / "clear.png")
    pixels, verdict = read_image(tmp_path / "opaque.png")
    assert np.array_equal(pixels, patch) and verdict == "ok: opaque alpha channel dropped"
    assert read_image(tmp_path / "clear.png") == (None, "refused: transparent pixels have no colour")


def test_cmyk_and_many_pages_are_refused(patch: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(patch).convert("CMYK").save(tmp_path / "print.jpg")
    assert read_image(tmp_path / "print.jpg")[1] == "refused: colour mode CMYK, not RGB with 8 bits"
    page = Image.fromarray(patch)
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page, page])
    assert read_image(tmp_path / "pages.tif")[1] == "refused: holds 3 pages, not one"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.5, 0.9])
def test_cut_files_are_refused(patch: np.ndarray, tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(patch).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    pixels, verdict = read_image(path)
    assert pixels is None and verdict.startswith("refused: ")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_file_that_lacks_its_last_byte_is_refused(patch: np.ndarray, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(patch).save(path)
    assert read_image(path)[1] == "ok"
    path.write_bytes(path.read_bytes()[:-1])
    assert read_image(path)[1].startswith("refused: ")


def test_a_huge_image_is_refused_without_unpacking_it(tmp_path: Path) -> None:
    # A PNG header of 20,000 × 20,000 pixels, 1.2 GB unpacked; only the header is ever read.
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    pixels, verdict = read_image(tmp_path / "huge.png")
    assert pixels is None and verdict in (
        "refused: 20000×20000 pixels, not 96×96", "refused: far more pixels than 96×96"
    )  # fmt: skip


@pytest.mark.parametrize("name", ["text.png", "notes.txt", "folder.h5"])
def test_what_is_no_image_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("hello")
    report = predict_images(run.path, [tmp_path / name], tmp_path / "out.csv")
    row = rows_of(tmp_path / "out.csv")[0]
    assert report.n_refused == 1 and row["verdict"].startswith("refused: not a") and row["score"] == row["label"] == ""
    assert "0 scored, 1 refused" in str(report)


def test_order_is_kept_between_scored_and_refused(run: Run, patch: np.ndarray, tmp_path: Path) -> None:
    for number in range(300):
        image = Image.fromarray(patch) if number % 3 else Image.new("L", (96, 96))
        image.save(tmp_path / f"{number:03}.png")
    predict_images(run.path, [tmp_path], tmp_path / "o.csv")
    rows = rows_of(tmp_path / "o.csv")
    assert [row["verdict"] == "ok" for row in rows] == [bool(number % 3) for number in range(300)]
    assert len({row["score"] for row in rows if row["score"]}) == 1


ODD_NAMES = [
    b"a,b.png",
    b'quote".png',
    b"line\nbreak.png",
    b"return\r.png",
    "häma ☃.png".encode(),
    b"bytes\xff.png",
    b"NA.png",
]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_order_is_kept_in_batches_that_hold_only_refused_files(
    run: Run, patch: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("pcam.evaluation.images.READ_SIZE", size)
    expected = [".", ".", ".", "x", "x", ".", ".", ".", ".", "x", ".", "."]
    for number, kind in enumerate(expected):
        Image.fromarray(patch if kind == "x" else patch[1:]).save(tmp_path / f"{number:02}.png")
    predict_images(run.path, [tmp_path], tmp_path / "scores.csv")
    rows = rows_of(tmp_path / "scores.csv")
    assert [Path(row["path"]).name for row in rows] == [f"{number:02}.png" for number in range(len(expected))]
    assert ["x" if row["score"] else "." for row in rows] == expected


def test_odd_names_come_back_from_the_csv(run: Run, patch: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(patch).save(tmp_path / "patch.png")
    for name in ODD_NAMES:
        shutil.copy(tmp_path / "patch.png", os.fsencode(folder) + b"/" + name)
    report = predict_images(run.path, [folder], tmp_path / "o.csv")
    assert report.n_scored == len(ODD_NAMES)
    expected = {"a,b.png", 'quote".png', "line\\nbreak.png", "return\\r.png", "häma ☃.png", "bytes\\xff.png", "NA.png"}
    assert {Path(row["path"]).name for row in rows_of(tmp_path / "o.csv")} == expected
    assert set(read_scores(tmp_path / "o.csv")["file"]) == expected
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 1 + len(ODD_NAMES)  # a row is a line


def test_files_called_like_numbers_and_missing_values_keep_their_names(run: Run, tmp_path: Path) -> None:
    for name in ("7", "NA"):
        (tmp_path / name).write_text("x")
    predict_images(run.path, [tmp_path / "7", tmp_path / "NA"], tmp_path / "o.csv")
    table = read_scores(tmp_path / "o.csv")
    assert table["file"].tolist() == ["7", "NA"] and table["score"].isna().all()


def test_png_files_get_the_text_that_evaluate_writes(run: Run, tiny: Path, tmp_path: Path) -> None:
    """Through the two verbs, to the last digit of the text, though the files come between others."""
    for index, pixels in enumerate(open_split(tiny, "test").read(slice(None))):
        Image.fromarray(pixels).save(tmp_path / f"{index:03}.png")
        (tmp_path / f"{index:03}.tif").write_text("no image")
    call = [sys.executable, "-m", "pcam"]
    evaluate = [*call, "evaluate", str(run.path), "--data", str(tiny), "--split", "test", "--out", str(tmp_path / "e")]
    predict = [*call, "predict", str(run.path), str(tmp_path), "--out", str(tmp_path / "p.csv")]
    assert subprocess.run(evaluate, capture_output=True, check=False).returncode == 0
    assert subprocess.run(predict, capture_output=True, check=False).returncode == 1  # some were refused
    scores = [row["score"] for row in rows_of(tmp_path / "p.csv") if row["score"]]
    assert scores == [row["score"] for row in rows_of(tmp_path / "e" / "predictions.csv")]


def test_a_model_file_alone_scores_the_same(run: Run, tiny: Path, tmp_path: Path) -> None:
    x = tiny / "camelyonpatch_level_2_split_test_x.h5"
    predict_images(run.path, [x], tmp_path / "run.csv")
    predict_images(run.path / "model.safetensors", [x], tmp_path / "inside.csv")
    shutil.copy(run.path / "model.safetensors", tmp_path / "alone.safetensors")
    predict_images(tmp_path / "alone.safetensors", [x], tmp_path / "alone.csv")
    assert (tmp_path / "run.csv").read_text() == (tmp_path / "inside.csv").read_text()
    assert (tmp_path / "run.csv").read_text() == (tmp_path / "alone.csv").read_text()


def damage(path: Path, how: str) -> None:
    """Spoil a model file."""
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "empty":
        content = bytearray()
    elif how == "flipped bit":
        path.with_name(f"{path.name}.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  {path.name}\n")
        content[-5] ^= 1
    elif how == "pickle":
        content = bytearray(b"\x80\x04K\x01.")
    elif how == "no header":
        content = bytearray(save_tensors({"a": torch.zeros(2)}))
    elif how == "brackets":
        content = bytearray(save_tensors({"a": torch.zeros(2)}, metadata={"pcam": "[" * 100_000 + "]" * 100_000}))
    elif how == "a list":
        content = bytearray(save_tensors({"a": torch.zeros(2)}, metadata={"pcam": "[1]"}))
    elif how == "other shape":
        about = json.dumps({"format": 1, "model": {"name": "mlp", "hidden": 9}})
        content = bytearray(save_tensors(load_tensors(bytes(content)), metadata={"pcam": about}))
    elif how == "newer":
        content = bytearray(save_tensors({"a": torch.zeros(2)}, metadata={"pcam": '{"format": 99}'}))
    elif how == "not a number":
        with safe_open(path, "pt") as file:
            about = file.metadata()
        tensors = {name: torch.full_like(value, torch.nan) for name, value in load_tensors(bytes(content)).items()}
        content = bytearray(save_tensors(tensors, metadata=about))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", "not a readable safetensors file"),
        ("empty", "not a readable safetensors file"),
        ("pickle", "not a readable safetensors file"),
        ("flipped bit", "is damaged: its SHA-256 is not"),
        ("no header", "its header names no model of pcam"),
        ("brackets", "its header names no model of pcam"),
        ("a list", "its header names no model of pcam"),
        ("other shape", "its weights do not fit the model that it names"),
        ("newer", "has format 99, this version reads 1; update pcam"),
        ("not a number", "it gives no number for .*a.png: its training diverged"),
    ],
)
def test_damaged_model_files_are_one_line(run: Run, patch: np.ndarray, tmp_path: Path, how: str, message: str) -> None:
    path = tmp_path / "model.safetensors"
    shutil.copy(run.path / "model.safetensors", path)
    damage(path, how)
    Image.fromarray(patch).save(tmp_path / "a.png")
    with pytest.raises(RunError, match=message) as error:
        predict_images(path, [tmp_path / "a.png"], tmp_path / "o.csv")
    assert "\n" not in str(error.value) and not (tmp_path / "o.csv").exists()


def test_ctrl_c_leaves_no_output(run: Run, patch: np.ndarray, tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    out.mkdir()
    Image.fromarray(patch).save(images / "0.png")
    for number in range(1, 10_000):  # one file on the disk under ten thousand names
        os.link(images / "0.png", images / f"{number}.png")
    command = [sys.executable, "-m", "pcam", "predict", str(run.path), str(images), "--out", str(out / "o.csv")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while not list(out.iterdir()) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and stderr == b"pcam: interrupted\n"
    assert list(out.iterdir()) == []


def test_the_output_is_looked_at_before_the_work(run: Run, patch: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(patch).save(tmp_path / "a.png")
    for out in (tmp_path, Path(os.devnull)):
        with pytest.raises(StorageError, match="is there and no regular file"):
            predict_images(run.path, [tmp_path / "a.png"], out)
    assert Path(os.devnull).is_char_device()
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "way").symlink_to(tmp_path)
    for out in (tmp_path / "a.png", tmp_path / "way" / "a.png"):
        with pytest.raises(StorageError, match="is one of the files to score; choose another path"):
            predict_images(run.path, [tmp_path], out)
    assert (tmp_path / "a.png").read_bytes() == content


def test_missing_paths_and_empty_folders_are_refused_before_anything_is_written(run: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        predict_images(run.path, [tmp_path / "none.png"], tmp_path / "o.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no PNG, TIFF, JPEG or HDF5 file"):
        predict_images(run.path, [tmp_path / "empty"], tmp_path / "o.csv")
    (tmp_path / "a.png").write_text("x")
    with pytest.raises(RunError, match="not a run folder"):
        predict_images(tmp_path / "norun", [tmp_path / "a.png"], tmp_path / "o.csv")
    assert not (tmp_path / "o.csv").exists()


def test_an_unwritable_output_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("x")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        predict_images(run.path, [tmp_path / "a.png"], tmp_path / "file" / "o.csv")


def test_folders_are_searched_in_order_and_other_files_left_alone(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", "sub/c.h5", "readme.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    found = [str(p.relative_to(tmp_path)) for p in find_files([tmp_path])]
    assert found == ["a.jpeg", "b.PNG", "sub/c.h5"]
