"""A chapter: bound answers, complete parts, tables and figures that anyone can read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import pandas as pd
import pytest

from pcam.errors import JournalError
from pcam.journal import Chapter, chapter, open_chapter
from pcam.journal.evidence import load_evidence

matplotlib.use("Agg")


class FakeRun:
    """Stands for a run whose training is not the matter here."""

    def __init__(self, state: str) -> None:
        self.id, self.state = "abc", state


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All that a chapter displays."""
    outputs: list[Any] = []
    monkeypatch.setattr(chapter, "display", lambda value, **_: outputs.append(getattr(value, "data", value)))
    return outputs


@pytest.fixture
def q4(tiny: Path, tmp_path: Path, shown: list[Any]) -> Chapter:
    return open_chapter("q4_gradients", str(tiny), str(tmp_path))


def test_banner_says_which_data(q4: Chapter, shown: list[Any]) -> None:
    assert "Synthetic sample" in shown[0]["text/html"]
    assert "train 48, valid 24, test 24" in shown[0]["text/plain"]
    assert q4.split("train").fingerprint()[:12] in shown[0]["text/plain"]


def test_banner_of_real_patches(real_data: Path, tmp_path: Path, shown: list[Any]) -> None:
    open_chapter("q4_gradients", str(real_data), str(tmp_path))
    assert "Real data" in shown[0]["text/plain"] and "Synthetic" not in shown[0]["text/plain"]
    assert str(real_data.parent) not in shown[0]["text/html"]


LOGGED = """
import logging, sys
from pcam.journal.chapter import open_chapter

log = logging.getLogger("pcam.training.launch")
log.warning("for a terminal")
open_chapter("q4_gradients", *sys.argv[1:])
log.warning("not for a page")
"""


def test_what_training_logs_is_not_for_a_page(tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOGGED, str(tiny), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert done.stderr == "for a terminal\n"


def test_a_whole_chapter(q4: Chapter, shown: list[Any]) -> None:
    q4.record("norm", 1.5, n=12, runs=[FakeRun("completed")])
    q4.answer("1", "The norm is {norm:ci}.")
    q4.no_evidence("2", "no schedule was compared.")
    q4.headline("Norms stay at {norm}.")
    q4.close()
    tag = '<span class="pcam-value varies" title="norm · n = 12 · run abc">'
    assert shown[1:] == [
        f"**Answer 1.** The norm is {tag}1.500 (n = 12)</span>.",
        "**Answer 2.** No evidence yet: no schedule was compared.",
        f"**In one line.** Norms stay at {tag}1.500</span>.",
    ]
    saved = load_evidence(q4.work / "evidence" / "q4_gradients.json")
    assert saved.answers == {"1": "The norm is 1.500 (n = 12)."} and saved.runs == ["abc"]
    assert saved.open_parts.keys() == {"2"} and saved.data_kind == "synthetic"


def test_a_note_is_bound_like_an_answer(q4: Chapter, shown: list[Any]) -> None:
    q4.record("norm", 1.5, n=12)
    q4.note("The norm is {norm}.")
    assert shown[-1] == 'The norm is <span class="pcam-value" title="norm · n = 12">1.500</span>.'
    with pytest.raises(JournalError, match=r"'1\.5' is typed into"):
        q4.note("The norm is 1.5.")


@pytest.mark.parametrize("state", ["running", "failed", "interrupted"])
def test_only_completed_runs_are_cited(q4: Chapter, state: str) -> None:
    with pytest.raises(JournalError, match=f"which is {state}: only completed runs"):
        q4.record("norm", 1.5, n=12, runs=[FakeRun(state)])


def test_silent_part_is_refused(q4: Chapter) -> None:
    q4.no_evidence("1", "nothing")
    with pytest.raises(JournalError, match=r"part 2 \(learning-rate schedules\) is not answered"):
        q4.close()


def test_missing_headline_is_refused(q4: Chapter) -> None:
    for part in ("1", "2"):
        q4.no_evidence(part, "nothing")
    with pytest.raises(JournalError, match="one-line answer is missing"):
        q4.close()


def test_part_is_answered_once(q4: Chapter) -> None:
    q4.answer("1", "Yes.")
    with pytest.raises(JournalError, match="part 1 is answered twice"):
        q4.no_evidence("1", "nothing")


def test_unknown_part_is_refused(q4: Chapter) -> None:
    with pytest.raises(JournalError, match="q4_gradients has no part '3'"):
        q4.answer("3", "Yes.")


def test_unknown_chapter_suggests_one(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="did you mean 'q4_gradients'"):
        open_chapter("q4_gradient", str(tiny), str(tmp_path))
    with pytest.raises(JournalError, match=r"^data_dir is 3, not a path; give a folder's name, with -r"):
        open_chapter("q4_gradients", 3, str(tmp_path))  # type: ignore[arg-type]


def typed_in(monkeypatch: pytest.MonkeyPatch, *cells: str) -> None:
    """Let the kernel have run these cells."""
    monkeypatch.setattr(chapter, "get_ipython", lambda: SimpleNamespace(user_ns={"In": ["", *cells]}))


def test_a_mistyped_parameter_is_refused(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = 'data_dir: str = ""\nwork_dir: str = ""\n'
    typed_in(monkeypatch, declared, f'# Parameters\ndata_dri = "{tiny}"\n')
    with pytest.raises(JournalError, match=r"^unknown parameter 'data_dri'; did you mean 'data_dir'\?$"):
        open_chapter("q4_gradients", "", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_parameters_that_are_declared(
    tiny: Path, tmp_path: Path, shown: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed_in(monkeypatch, 'data_dir: str = ""\nwork_dir = ""\n', f'# Parameters\ndata_dir = "{tiny}"\n', "a = b = 1")
    assert open_chapter("q4_gradients", str(tiny), str(tmp_path)).data_dir == tiny.resolve()


def test_papermill_cannot_run_a_chapter_on_the_sample_by_a_slip(tmp_path: Path, root: Path) -> None:
    arguments = [str(root / "notebooks" / "q7_collaboration.ipynb"), str(tmp_path / "out.ipynb"), "-p", "data_dri", "x"]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", *arguments, "--no-progress-bar"],
        capture_output=True,
        text=True,
        env=os.environ | {"PCAM_WORK": str(tmp_path / "work")},
    )
    assert done.returncode and "unknown parameter 'data_dri'; did you mean 'data_dir'?" in done.stderr
    assert not (tmp_path / "work").exists()


def test_table_escapes_and_rounds(q4: Chapter, shown: list[Any]) -> None:
    q4.table(pd.DataFrame({"run": ["<script>"], "auc": [0.123456], "gap": [None]}), "A <b>table</b>")
    table = shown[-1]["text/html"]
    assert "<script>" not in table and "&lt;script&gt;" in table
    assert "0.123" in table and "0.1235" not in table
    assert "<caption>A &lt;b&gt;table&lt;/b&gt;</caption>" in table


def test_source_is_the_package_s_own(q4: Chapter, shown: list[Any]) -> None:
    q4.source(chapter.open_chapter)
    assert "def open_chapter(" in shown[-1]["text/plain"] and "text-indent" in shown[-1]["text/html"]


def test_figure_carries_its_text(q4: Chapter, shown: list[Any]) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()  # another test of this process may have left one open
    figure, axes = plt.subplots()
    axes.plot([0, 1])
    q4.figure(figure, alt="A rising line")
    assert shown[-1]["image/png"].startswith(b"\x89PNG") and shown[-1]["text/plain"] == "A rising line"
    assert plt.get_fignums() == before
    with pytest.raises(JournalError, match="text alternative"):
        q4.figure(plt.figure(), alt=" ")
