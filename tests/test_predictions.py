"""The predictions file: read back bit for bit, and refused at the first row that breaks the contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pcam.errors import DataError
from pcam.evaluation import Predictions, read_predictions, write_predictions

HEADER = "split,index,label,score"


def example(n: int = 50, labelled: bool = True) -> Predictions:
    rng = np.random.default_rng(3)
    return Predictions("valid", np.arange(n), rng.integers(0, 2, n) if labelled else None, rng.random(n))


@pytest.mark.parametrize("labelled", [True, False])
def test_round_trip_is_exact(tmp_path: Path, labelled: bool) -> None:
    p = example(labelled=labelled)
    back = read_predictions(write_predictions(tmp_path / "predictions.csv", p))
    assert back.split == "valid"
    assert np.array_equal(back.index, p.index)
    assert back.score.tobytes() == p.score.tobytes()
    if labelled:
        assert np.array_equal(back.labels, p.labels)
        assert back.n_positive == p.labels.sum()
    else:
        assert back.label is None and back.n_positive is None


def test_file_has_the_documented_columns(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", Predictions("test", np.arange(2), np.array([0, 1]), np.array([0.25, 1.0])))
    assert (tmp_path / "p.csv").read_text() == f"{HEADER}\ntest,0,0,0.25\ntest,1,1,1.0\n"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no rows"),
        (["test,0,1,0.5,9"], "line 2: 5 fields where 4 are due"),
        (["test,0,1,0.5", ""], "line 3: 0 fields where 4 are due"),
        (["test,0,1,0.5", "valid,1,1,0.5"], "line 3: split is 'valid' where the file began with 'test'"),
        ([",0,1,0.5"], "line 2: split is ''"),
        (["test,1,1,0.5"], "line 2: index is '1' where 0 is due"),
        (["test,0,1,0.5", "test,0,1,0.5"], "line 3: index is '0' where 1 is due"),
        (["test,0,1,0.5", "test,2,1,0.5"], "line 3: index is '2' where 1 is due"),
        (["test,0.0,1,0.5"], "line 2: index is '0.0'"),
        (["test,0,1,0.5", "test,1,,0.5"], "line 3: labels must be given in every row or in none"),
        (["test,0,2,0.5"], "line 2: label is '2'; it must be 0, 1 or empty"),
        (["test,0,1.0,0.5"], "line 2: label is '1.0'"),
        (["test,0,1,nan"], "line 2: score is nan; it must be finite"),
        (["test,0,1,inf"], "line 2: score is inf"),
        (["test,0,1,1.01"], "line 2: score is 1.01; it must be finite and in"),
        (["test,0,1,-0.1"], "line 2: score is -0.1"),
        (["test,0,1,high"], "line 2: score is 'high', not a number"),
        (["test,0,1,"], "line 2: score is '', not a number"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[str], message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "index,score\n0,0.5\n", "split,index,score,label\ntest,0,0.5,1\n"])
def test_wrong_header_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match="line 1: the header must be split,index,label,score"):
        read_predictions(path)


def test_a_long_line_is_not_repeated_whole(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    for text in ("x," * 100_000, f"{HEADER}\ntest,{'9' * 10_000},1,0.5\n"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"line [12]: .*\.\.\.") as caught:
            read_predictions(path)
        assert len(str(caught.value)) < 400


def test_a_byte_order_mark_and_line_ends_of_a_spreadsheet(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\ntest,0,1,0.5\r\n".encode())
    assert read_predictions(tmp_path / "p.csv").score.tolist() == [0.5]


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such predictions file"):
        read_predictions(tmp_path / "none.csv")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="not a readable CSV file"):
        read_predictions(tmp_path / "x.csv")
    with pytest.raises(DataError, match="not a readable CSV file"):
        read_predictions(tmp_path)


@pytest.mark.parametrize(
    ("index", "label", "score", "message"),
    [
        ([0, 1], [0, 1], [0.5], "2 indices but 1 scores"),
        ([0, 1], [0], [0.5, 0.5], "2 indices but 1 labels"),
        ([1, 0], [0, 1], [0.5, 0.5], "indices must increase"),
        ([-1, 0], [0, 1], [0.5, 0.5], "indices must increase"),
        ([0, 1], [0, 3], [0.5, 0.5], "labels must be 0 or 1"),
        ([0, 1], [0, 1], [0.5, np.nan], "scores must be finite"),
        ([0, 1], [0, 1], [0.5, 1.5], "scores must be finite"),
    ],
)
def test_predictions_check_themselves(index: list[int], label: list[int], score: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Predictions("test", np.array(index), np.array(label), np.array(score))


def test_unlabelled_predictions_say_so() -> None:
    with pytest.raises(DataError, match="predictions of 'valid' have no labels"):
        _ = example(labelled=False).labels


def test_take_keeps_rows_together() -> None:
    p = example()
    part = p.take(p.score > 0.5)
    assert np.array_equal(part.score, p.score[p.score > 0.5])
    assert np.array_equal(part.index, np.flatnonzero(p.score > 0.5))
