"""Staging, building and publishing: only chapters that hold get through, and a failure leaves everything as it was."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from pcam.errors import JournalError
from pcam.journal import check, notebooks, publish, stage, workflow
from pcam.journal.evidence import Evidence, Value
from pcam.journal.notebooks import read_notebook, source_digest, write_notebook
from pcam.journal.questions import QUESTIONS
from pcam.storage import ClaimedError, claim, sha256_file, write_json, write_text

CHAPTERS = {name: QUESTIONS[name] for name in ("q4_gradients", "q6_slicing")}
SETTINGS = "title: Book\nauthor: A\nexecute: {execute_notebooks: 'off'}\nonly_build_toc_files: true\n"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two chapters, executed on the sample, with one run and a small book."""
    root = tmp_path / "project"
    monkeypatch.setenv("PCAM_WORK", str(root / "_work"))
    for module in (check, notebooks, publish, stage, workflow):
        if hasattr(module, "project_root"):
            monkeypatch.setattr(module, "project_root", lambda: root)
    for module in (check, stage, workflow):
        monkeypatch.setattr(module, "QUESTIONS", CHAPTERS)
    monkeypatch.setattr(stage.fragments, "QUESTIONS", CHAPTERS)
    toc = "format: jb-book\nroot: index\nchapters:\n"
    write_text(root / "_toc.yml", toc + "".join(f"- file: questions/{name}\n" for name in CHAPTERS))
    write_text(root / "_config.yml", SETTINGS)
    write_text(root / "book" / "index.md", "# Book\n\nA page.\n")
    run = root / "_work" / "sample" / "runs" / "abc"
    write_json(run / "status.json", {"state": "completed", "final": {"valid_auc": 0.9}})
    write_text(run / "config.yaml", "model: {name: cnn}\n")
    for name in CHAPTERS:
        execute(root, name)
    return root


def source(name: str, prose: str = "Text.") -> list[object]:
    answers = "\n".join(f'chapter.answer("{part}", "It is {{a}}.")' for part in QUESTIONS[name].parts)
    cells = [new_markdown_cell(f"# {name}\n\n{prose}"), new_code_cell(answers)]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    return cells


def execute(root: Path, name: str, prose: str = "Text.", **changes: object) -> None:
    """Leave in the work folder what running a chapter leaves there."""
    written = new_notebook(cells=source(name, prose), metadata={"kernelspec": KERNEL})
    write_notebook(root / "notebooks" / f"{name}.ipynb", written)
    done = new_notebook(cells=source(name, prose), metadata={"kernelspec": KERNEL})
    done.cells[1]["execution_count"] = 1
    injected = new_code_cell("data_dir = '/home/somebody'", metadata={"tags": ["injected-parameters"]})
    injected["execution_count"], injected["id"] = 2, "injected-1"
    done.cells.insert(1, injected)
    question = CHAPTERS[name]
    evidence = Evidence(
        chapter=name, data_kind="synthetic", data={}, hardware="a machine", commit=None, dirty=None, headline="It is."
    )
    evidence.answers = dict.fromkeys(question.parts, "Yes.")
    evidence.add(Value(name="a", value=1, runs=("abc",)))
    record = root / "_work" / "sample" / "executed" / f"{name}.json"
    evidence.model_copy(update=changes).save(record)
    done.metadata["pcam"] = {"source": source_digest(done), "evidence": sha256_file(record)}
    write_notebook(record.with_suffix(".ipynb"), done)


def test_status_of_what_holds(project: Path) -> None:
    rows = [str(row) for row in stage.status()]
    assert rows == [
        "q4_gradients         ready; 2 of 2 parts answered, 1 run, synthetic data",
        "q6_slicing           ready; 3 of 3 parts answered, 1 run, synthetic data",
    ]


def missing(root: Path) -> None:
    (root / "_work/sample/executed/q6_slicing.ipynb").unlink()


def failed(root: Path) -> None:
    done = root / "_work/sample/executed/q6_slicing.ipynb"
    marked = read_notebook(done)
    marked.metadata["papermill"] = {"end_time": "2026-01-01T00:00:00"}
    write_notebook(done.parent / "failed" / done.name, marked)
    done.unlink()


def killed(root: Path) -> None:
    done = root / "_work/sample/executed/q6_slicing.ipynb"
    write_text(done.parent / "failed" / done.name, '{"cells": [')
    done.unlink()


def not_executed(root: Path) -> None:
    done = root / "_work/sample/executed/q6_slicing.ipynb"
    notebook = read_notebook(done)
    notebook.cells[2]["execution_count"] = None
    write_notebook(done, notebook)


def source_changed(root: Path) -> None:
    path = root / "notebooks/q6_slicing.ipynb"
    notebook = read_notebook(path)
    notebook.cells[1]["source"] = "1 + 2"
    write_notebook(path, notebook)


def evidence_changed(root: Path) -> None:
    record = root / "_work/sample/executed/q6_slicing.json"
    record.write_text(record.read_text().replace('"value": 1', '"value": 2'))


def unanswered(root: Path) -> None:
    execute(root, "q6_slicing", answers={"1": "Yes.", "3": "Yes."})


def unfinished(root: Path) -> None:
    write_json(root / "_work/sample/runs/abc/status.json", {"state": "interrupted"})


def run_missing(root: Path) -> None:
    (root / "_work/sample/runs/abc/status.json").unlink()


def notebook_damaged(root: Path) -> None:
    write_text(root / "_work/sample/executed/q6_slicing.ipynb", '{"cells": [')


def evidence_damaged(root: Path) -> None:
    write_text(root / "_work/sample/executed/q6_slicing.json", "{}")


FAULTS = [
    (missing, "q6_slicing: not executed; run 'pcam journal run q6_slicing'"),
    (failed, "q6_slicing: failed; see .*failed/q6_slicing.ipynb; run "),
    (killed, "q6_slicing: still running, or stopped before its end; see .*failed/q6_slicing.ipynb; run "),
    (not_executed, "q6_slicing: a cell was not executed; run "),
    (source_changed, "q6_slicing: out of date: its source changed; run "),
    (evidence_changed, "q6_slicing: its evidence was changed after it was executed; run "),
    (notebook_damaged, "q6_slicing: .*executed/q6_slicing.ipynb: not a notebook .*; run 'pcam journal run q6_slicing'"),
    (evidence_damaged, "q6_slicing: .*executed/q6_slicing.json: 'chapter': Field required; run "),
    (unanswered, "q6_slicing: part 2 is not answered; run "),
    (run_missing, "q4_gradients: run abc is cited but not in .*runs; run "),
    (unfinished, "q4_gradients: it cites run abc, which is interrupted; run "),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_nothing_is_published_or_staged_unless_all_holds(project: Path, fault: object, message: str) -> None:
    fault(project)  # type: ignore[operator]
    before = {path: path.read_bytes() for path in (project / "book").rglob("*") if path.is_file()}
    for act in (publish.publish, stage.build):
        with pytest.raises(JournalError, match=message):
            act()
    assert before == {path: path.read_bytes() for path in (project / "book").rglob("*") if path.is_file()}
    assert not (project / "_build").exists()


@pytest.mark.parametrize("damage", [notebook_damaged, evidence_damaged])
def test_a_damaged_chapter_hides_no_other(project: Path, damage: Callable[[Path], None]) -> None:
    damage(project)
    first, second = stage.status()
    assert (first.state, first.runs) == ("ready", 1)
    assert "executed/q6_slicing." in second.state
    if damage is evidence_damaged:
        found = [(f.place, f.mend) for f in check.check() if "Field required" in f.problem]
        assert found == [("q6_slicing", "run 'pcam journal run q6_slicing'")]


def test_the_mend_is_for_the_data_in_question(project: Path, tiny: Path) -> None:
    mend = f"'pcam journal run q4_gradients --data {tiny.resolve()}'"
    for act in (publish.publish, stage.build):
        with pytest.raises(JournalError, match=f"^q4_gradients: not executed; run {re.escape(mend)} "):
            act(tiny)
    assert [finding.mend for finding in check.check(tiny) if finding.place == "q4_gradients"] == [f"run {mend}"]


def test_a_typed_number_is_neither_built_nor_published(project: Path) -> None:
    execute(project, "q6_slicing", prose="It reaches 0.95.")
    message = r"q6_slicing\.ipynb, cell 1: the number 0\.95 is typed by hand \(record the value and name it"
    for act in (publish.publish, stage.build):
        with pytest.raises(JournalError, match=message):
            act()
    assert not (project / "book" / "questions").exists() and not (project / "_build").exists()


def test_publishing_copies_pages_evidence_and_outputs(project: Path) -> None:
    written = {path.relative_to(project).as_posix() for path in publish.publish()}
    assert {"book/questions/q6_slicing.ipynb", "book/evidence/q6_slicing.json", "notebooks/q6_slicing.ipynb"} <= written
    page = read_notebook(project / "book/questions/q6_slicing.ipynb")
    assert len(page.cells) == 2 and "/home/somebody" not in str(page) and "pcam" not in page.metadata
    assert read_notebook(project / "notebooks/q6_slicing.ipynb").cells[1].execution_count == 1
    assert "cnn" in (project / "book/_generated/runs.md").read_text()
    assert {row.state for row in stage.status()} == {"ready"}, "publishing must not make a chapter out of date"


def test_publishing_again_changes_nothing(project: Path) -> None:
    before = {path: path.read_bytes() for path in publish.publish()}
    assert before == {path: path.read_bytes() for path in publish.publish()}


def test_the_book_is_replaced_only_by_one_that_was_built_without_a_warning(project: Path) -> None:
    first = stage.build()
    assert first == project / "_build" / "html" / "index.html" and (first.parent / "edition-sample.json").exists()
    assert "Synthetic sample" in (project / "_work/sample/stage/_generated/banner.md").read_text()
    shown = first.read_bytes()
    with (project / "_toc.yml").open("a") as toc:
        toc.write("- file: nobody_wrote_this\n")
    with pytest.raises(JournalError, match=r"the book was not built: .*nobody_wrote_this.*; see .*build\.log"):
        stage.build()
    assert first.read_bytes() == shown
    assert [path.name for path in (project / "_build").iterdir()] == ["html"]


def test_two_books_are_not_mixed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_SWAP_SECONDS", 0.1)
    with claim(project / "_build" / "html.claim"), pytest.raises(ClaimedError, match=r"_build: process .* wait for it"):
        stage.build()
    assert [path.name for path in (project / "_build").iterdir()] == []


def test_a_swap_that_was_cut_short_is_mended_by_the_next(tmp_path: Path) -> None:
    for name in ("new", "_build/.html-new", "_build/.html-old"):
        write_text(tmp_path / name / "index.html", name)
    stage.swap(tmp_path / "new", tmp_path / "_build" / "html")
    assert [path.name for path in (tmp_path / "_build").iterdir()] == ["html"]
    assert (tmp_path / "_build/html/index.html").read_text() == "new"


def test_a_chapter_depends_on_the_runs_that_it_names(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'a = chapter.run("mlp-0")\nb = [chapter.run(f"cnn-{seed}") for seed in range(2)]\n'
    write_text(project / "notebooks/q6_slicing.py", text)
    plan = stage.open_plan(make=False)
    assert workflow.runs_of("q6_slicing", plan) == ["cnn-0", "cnn-1", "cnn-2", "mlp-0"]


def test_digests_follow_content_and_not_dates(project: Path) -> None:
    pages, cells = workflow.pages_digest(), workflow.chapter_digest("q6_slicing")
    (project / "book" / "index.md").touch()
    publish.publish()
    assert (workflow.pages_digest(), workflow.chapter_digest("q6_slicing")) == (pages, cells)
    write_text(project / "book" / "index.md", "# Another\n")
    source_changed(project)
    assert workflow.pages_digest() != pages and workflow.chapter_digest("q6_slicing") != cells
