"""The command line as a person meets it: help, exit codes, one line for a mistake, JSON for a program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pcam.cli import build_parser, main
from pcam.data import open_split


def pcam(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pcam", *words], capture_output=True, text=True, cwd=cwd)


VERBS = [
    ("doctor",),
    *(("data", verb) for verb in ("sample", "fetch", "verify", "pack")),
    *((verb,) for verb in ("audit", "train", "evaluate", "slices", "tune", "predict", "export", "bench", "check")),
    *(("journal", verb) for verb in ("run", "train", "build", "status", "publish")),
    *(("bundle", verb) for verb in ("make", "verify")),
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_has_an_example(verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args([*verb, "--help"])
    assert end.value.code == 0
    assert f"example: pcam {' '.join(verb)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dta"], "unknown verb 'dta'; did you mean 'data'?"),
        (["data", "smaple", "x"], "unknown verb 'smaple'; did you mean 'sample'?"),
        (["it's"], "unknown verb 'it's'; known: audit"),
        (["train"], "the following arguments are required: PRESET|FILE, --data;"),
        (["train", "cnn"], "the following arguments are required: --data"),
        (["train", "cn", "--data", "x"], "unknown preset 'cn'; did you mean 'cnn'?"),
        (["train", "cnn", "--data", "x", "train.lrr=1"], "unknown key 'train.lrr'; did you mean 'lr'?"),
        (["train", "cnn", "train.lr=abc", "--data", "x"], "'train.lr' is 'abc'"),
        (["train", "cnn", "--data", "x", "--bogus"], "unrecognized arguments: --bogus"),
        (["train", "cnn", "--data", "no_such_folder"], "no_such_folder: no such data folder"),
        (["data", "verify", "no_such_folder"], "no_such_folder: no such data folder"),
        (["data", "sample", "x", "--train", "0"], "0 is not a positive count"),
        (["data", "sample", "x", "--train", "ten"], "ten is not a positive count"),
        (["data", "sample", "x", "--train", "9" * 5000], "... is not a positive count of at most nine digits"),
        (["data", "sample", ""], "dir is empty: name a file or folder"),
        (["data", "sample", "a" * 300, "--train", "1"], ": File name too long; "),
        (["data", "verify", "x\ny"], r"x\ny: no such data folder"),
        (["data", "fetch", "new", "--base-url", "http://127.0.0.1:1"], "check the address"),
        (["audit", "x", "--out", ""], "out is empty: name a file or folder"),
        (["bundle", "verify", ""], "tar is empty: name a file or folder"),
        (["predict", "run", "a.png", "", "--out", "o.csv"], "paths is empty: name a file or folder"),
        (["track", ""], "runs is empty: name a file or folder"),
        (["data", "fetch", "new", "--base-url", ""], "base_url is empty: name a file or folder"),
        (["data", "sample", "x", "--defect", "blck"], "did you mean 'black'?"),
        (["evaluate", "no_run", "--data", "x", "--split", "test", "--out", "o"], "no_run"),
        (["slices", "none.csv", "--data", "x", "--out", "o"], "none.csv"),
        (["audit", "no_such_folder", "--out", "o"], "no_such_folder: no such data folder"),
        (["tune", "cn", "--data", "x", "--trials", "1"], "unknown preset 'cn'"),
        (["predict", "no_run", "x.png", "--out", "o.csv"], "x.png: no such file or folder"),
        (["export", "no_run", "--out", ""], "out is empty: name a file or folder"),
        (["bench", "loader", "--data", "no_such_folder", "--out", "o"], "no_such_folder: no such data folder"),
        (["journal", "run", "q10"], "unknown question 'q10'"),
        (["journal", "train", "cn-0"], "plans no run 'cn-0'; did you mean 'cnn-0'?"),
        (["journal", "run", "q1", "--data", "no_such_folder"], "no_such_folder: no such data folder"),
        (["journal", "run", "q1", "--data", ""], "data is empty: name a file or folder"),
        (["bundle", "verify", "none.tar"], "none.tar"),
        (["bundle", "make", "README.md"], "README.md: a bundle is a tar; name it README.tar"),
    ],
    ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else None,
)
def test_a_mistake_is_one_line_and_exit_2(words: list[str], message: str, tmp_path: Path) -> None:
    done = pcam(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "x.h5"), "x.h5: Permission denied"),
        (OSError("Can't synchronously read data"), "a file that was read or written: Can't synchronously read data"),
    ],
)
def test_an_error_of_the_system_is_one_line(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(directory: str) -> None:
        raise error

    monkeypatch.setattr("pcam.data.manifest.verify", fail)
    with pytest.raises(SystemExit) as end:
        main(["data", "verify", "x"])
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert said in shown and len(shown.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [["train", "cnn", "--data", "x", "model.name=mpl"], ["tune", "cn", "--data", "x", "--trials", "1"]],
    ids=["train", "tune"],
)
def test_a_mistake_in_the_config_does_not_wait_for_torch(words: list[str]) -> None:
    code = f"""
import sys
from pcam.cli import main
try:
    main({words!r})
except SystemExit as end:
    assert end.code == 2 and "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out.startswith("pcam 0.")


def test_sample_verify_and_json(tmp_path: Path) -> None:
    made = pcam("data", "sample", str(tmp_path / "s"), "--train", "8", "--valid", "4", "--test", "4")
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == str(tmp_path / "s")
    verified = pcam("data", "verify", str(tmp_path / "s"), "--json")
    assert (verified.returncode, json.loads(verified.stdout)) == (0, [])
    (tmp_path / "s" / "camelyonpatch_level_2_split_test_y.h5").write_bytes(b"not HDF5")
    broken = pcam("data", "verify", str(tmp_path / "s"))
    assert broken.returncode == 1 and "not an HDF5 file" in broken.stdout


def test_overrides_may_stand_before_and_behind_options() -> None:
    args, rest = build_parser().parse_known_args(["train", "mlp", "seed=1", "--data", "d", "train.epochs=2"])
    assert args.overrides == ["seed=1"] and rest == ["train.epochs=2"]


def test_closed_pipe_is_no_error(tmp_path: Path) -> None:
    line = f"{sys.executable} -m pcam doctor | head -n 1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path)
    assert "Traceback" not in done.stderr


def test_slices_too_small_to_be_tried_are_told(tiny: Path, tmp_path: Path) -> None:
    table = tmp_path / "predictions.csv"
    labels = open_split(tiny, "test").labels
    rows = [f"test,{index},{label},{index / 24}" for index, label in enumerate(labels)]
    table.write_text("\n".join(["split,index,label,score", *rows]) + "\n")
    done = pcam("slices", str(table), "--data", str(tiny), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "tried none: no slice is large enough"
