"""Prediction on image files: a verdict for each, and the very scores that evaluation gives."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from pcam.config import load_config
from pcam.data import open_split
from pcam.errors import DataError, RunError, StorageError
from pcam.evaluation import predict_images, predict_split
from pcam.evaluation.images import find_files, read_image
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
