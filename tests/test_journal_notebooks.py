"""Strict papermill: what is refused before a kernel starts, what is left after a failure, what is taken out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from pcam.errors import JournalError
from pcam.journal import notebooks
from pcam.journal.citations import cited_run, keep_cited_runs
from pcam.journal.evidence import Evidence, Value
from pcam.journal.notebooks import (
    declared_parameters,
    execute,
    failed_path,
    make_deterministic,
    read_notebook,
    require_paired,
    source_digest,
    write_notebook,
)
from pcam.journal.plan import Plan, open_plan
from pcam.journal.questions import QUESTIONS
from pcam.storage import ClaimedError, claim, write_text
from pcam.training.runs import RECORD_FILES

PARAMETERS = """data_dir: str = ""
limit = 3
rate: float = 0.5
fast: bool = False
seed: int | None = None
names: list[str] = []"""


def notebook(*sources: str, parameters: str = PARAMETERS) -> nbformat.NotebookNode:
    cells = [new_markdown_cell("# A chapter"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [new_code_cell(source) for source in sources]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def write(folder: Path, *sources: str, name: str = "q.ipynb") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook(*sources), folder / name)
    return folder / name


def run_notebook(source: Path | str, out: Path, parameters: dict[str, object], timeout: float = 60) -> Path:
    return write_notebook(out, execute(source, failed_path(out), parameters, timeout=timeout))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"data_dri": "x"}, r"^q\.ipynb: unknown parameter 'data_dri'; did you mean 'data_dir'\?$"),
        ({"zzz": 1}, r"unknown parameter 'zzz'; known: data_dir, fast, limit, names, rate, seed$"),
        ({"data_dir": 3}, r"parameter 'data_dir' is 3, not str; give it as str$"),
        ({"limit": "3"}, r"parameter 'limit' is '3', not int"),
        ({"limit": True}, r"parameter 'limit' is True, not int"),
        ({"limit": 2.0}, r"parameter 'limit' is 2\.0, not int"),
        ({"rate": "fast"}, r"parameter 'rate' is 'fast', not float"),
        ({"fast": 1}, r"parameter 'fast' is 1, not bool"),
        ({"seed": 1.5}, r"parameter 'seed' is 1\.5, not int or None"),
        ({"names": "a"}, r"parameter 'names' is 'a', not list"),
    ],
)
def test_a_wrong_parameter_is_refused_before_a_kernel_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, object], message: str
) -> None:
    import papermill

    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))
    source = write(tmp_path, "1")
    with pytest.raises(JournalError, match=message):
        run_notebook(source, tmp_path / "out" / "q.ipynb", parameters)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q.ipynb"]


def test_types_that_fit_are_accepted() -> None:
    declared = declared_parameters(notebook(), "q")
    for name, value in {"rate": 1, "seed": None, "limit": -2, "names": ["a"], "fast": True}.items():
        declared[name].check(value, "q")
    assert {name: p.default for name, p in declared.items()} == {
        "data_dir": "",
        "limit": 3,
        "rate": 0.5,
        "fast": False,
        "seed": None,
        "names": [],
    }


@pytest.mark.parametrize("default", ["print()", "{[]: 1}"])
def test_a_default_must_be_a_literal(default: str) -> None:
    with pytest.raises(JournalError, match=r"^q: parameter 'a' has a default that is not a literal$"):
        declared_parameters(notebook(parameters=f"a = {default}"), "q")


def test_parameters_must_be_plain_python() -> None:
    with pytest.raises(JournalError, match=r"^q: its parameters cell is not plain Python: invalid syntax in '%time a"):
        declared_parameters(notebook(parameters="%time a = 1"), "q")


@pytest.mark.parametrize(
    "content", ["", "not json", "[]", '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 3}']
)
def test_what_is_not_a_notebook(tmp_path: Path, content: str) -> None:
    path = tmp_path / "q.ipynb"
    path.write_text(content)
    with pytest.raises(JournalError, match=r"q\.ipynb: not a notebook"):
        read_notebook(path)
    with pytest.raises(JournalError, match=r"gone\.ipynb: no such notebook"):
        read_notebook(tmp_path / "gone.ipynb")


def test_two_executions_are_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The folder's name holds what papermill would take for a format; the caller's folder plays no part.
    source = write(tmp_path / "{a}", "print(limit)\nprint(limit + 1)", "import os; os.path.basename(os.getcwd())")
    first = run_notebook(source, tmp_path / "{a}" / "new" / "1.ipynb", {"limit": 7})
    monkeypatch.chdir(tmp_path)
    second = run_notebook("{a}/q.ipynb", tmp_path / "2.ipynb", {"limit": 7})
    assert first.read_bytes() == second.read_bytes()
    done = read_notebook(first)
    assert [o.get("text") for o in done.cells[3].outputs] == ["7\n8\n"]
    assert done.cells[4].outputs[0].data["text/plain"] == "'{a}'"
    assert "papermill" not in json.dumps(done) and source_digest(done) == source_digest(read_notebook(source))
    assert not list(tmp_path.rglob("failed/*"))


def test_a_failing_cell_leaves_the_target_as_it_was(tmp_path: Path) -> None:
    source = write(tmp_path, "1 + 1", "raise ValueError('no tissue here')")
    out = tmp_path / "out" / "q.ipynb"
    out.parent.mkdir()
    out.write_text("the last good one")
    with pytest.raises(
        JournalError, match=r"^q\.ipynb, cell \[3\]: ValueError: no tissue here; see .*failed/q\.ipynb$"
    ):
        run_notebook(source, out, {})
    assert out.read_text() == "the last good one"
    marked = read_notebook(failed_path(out))
    assert any("papermill-error-cell" in cell.source for cell in marked.cells)


def test_a_cell_that_takes_too_long(tmp_path: Path) -> None:
    source = write(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(JournalError, match=r"^q\.ipynb: a cell ran longer than 1 s; see "):
        run_notebook(source, tmp_path / "out.ipynb", {}, timeout=1)


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import papermill

    def interrupted(_: object, target: str, *__: object, **___: object) -> None:
        Path(target).write_text("half a notebook")
        raise KeyboardInterrupt

    monkeypatch.setattr(papermill, "execute_notebook", interrupted)
    source = write(tmp_path, "1")
    with pytest.raises(KeyboardInterrupt):
        execute(source, tmp_path / "failed" / "q.ipynb", {})
    assert not list((tmp_path / "failed").iterdir())


def test_streams_are_joined_and_random_ids_dropped() -> None:
    done = notebook("x")
    page = {"text/html": "<p>", "application/vnd.jupyter.widget-view+json": {"model_id": "random"}}
    done.cells[2]["outputs"] = [
        nbformat.v4.new_output("stream", name="stdout", text="a"),
        nbformat.v4.new_output("stream", name="stdout", text="b"),
        nbformat.v4.new_output("display_data", data=page),
        nbformat.v4.new_output("stream", name="stdout", text="c"),
    ]
    done.metadata["widgets"] = {"state": {}}
    outputs = make_deterministic(done).cells[2].outputs
    assert [o.get("text") for o in outputs] == ["ab", None, "c"]
    assert list(outputs[1].data) == ["text/html"] and "widgets" not in done.metadata


def test_the_digest_follows_what_a_person_wrote() -> None:
    base, other = notebook("1"), notebook("2")
    ran = notebook("1")
    ran.cells[2]["execution_count"] = 5
    ran.cells.insert(2, new_code_cell("limit = 9", metadata={"tags": ["injected-parameters"]}))
    assert source_digest(base) == source_digest(ran) != source_digest(other)


def test_a_notebook_and_its_text_must_agree(tmp_path: Path) -> None:
    import jupytext

    path = write(tmp_path, "1 + 1")
    with pytest.raises(JournalError, match=r"q\.py: missing; write it with 'jupytext --sync "):
        require_paired(path)
    jupytext.write(read_notebook(path), path.with_suffix(".py"), fmt="py:percent")
    require_paired(path)
    write(tmp_path, "1 + 2")
    with pytest.raises(JournalError, match=r"^q\.ipynb and q\.py differ; bring them together with 'jupytext --sync "):
        require_paired(path)


def test_a_chapter_that_is_being_run_is_not_run_beside_it(tiny: Path, tmp_path: Path) -> None:
    plan, question = open_plan(tiny, tmp_path), QUESTIONS["q3_configuration"]
    with (
        claim(plan.work / "scratch" / question.name / "claim"),
        pytest.raises(ClaimedError, match=r"q3_configuration: process \d+ on .* is at work on it; wait for it"),
    ):
        notebooks.run_chapter(question, plan)


@pytest.fixture
def by_hand(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A journal of which one chapter was run, with a run that chance named in its scratch folder."""
    plan = open_plan(tiny, tmp_path)
    folder = plan.work / "scratch" / "q3_configuration" / "off" / "first" / "abc"
    for name in RECORD_FILES:
        write_text(folder / name, '{"state": "completed"}')
    said = Evidence(chapter="q3_configuration", data_kind="real", data={}, hardware="", commit=None, dirty=None)
    said.add(Value(name="a", value=1, runs=("abc",)))
    monkeypatch.setattr(notebooks, "require_paired", lambda path: None)

    def chapter(*_: object) -> nbformat.NotebookNode:
        said.save(plan.work / "evidence" / "q3_configuration.json")
        return notebook("1")

    monkeypatch.setattr(notebooks, "execute", chapter)
    notebooks.run_chapter(QUESTIONS["q3_configuration"], plan)
    return plan


def test_runs_that_a_chapter_cites_outlive_its_scratch_folder(by_hand: Plan) -> None:
    shutil.rmtree(by_hand.work / "scratch")  # as running the notebook by hand does
    assert cited_run(by_hand.work, "abc").state == "completed"
    keep_cited_runs(by_hand.work, "q3_configuration", [])  # executed again: it cites others now
    with pytest.raises(JournalError, match=r"run abc is cited but not in .*runs; run the chapter"):
        cited_run(by_hand.work, "abc")


def test_evidence_of_an_earlier_execution_is_not_taken_for_this_one(
    by_hand: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebooks, "execute", lambda *_: notebook("1"))
    with pytest.raises(JournalError, match=r"q3_configuration\.ipynb: it wrote no evidence; end it with"):
        notebooks.run_chapter(QUESTIONS["q3_configuration"], by_hand)


def test_an_unknown_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebooks, "open_plan", lambda *_: pytest.fail("data were opened"))
    with pytest.raises(JournalError, match=r"unknown question 'q6_slicin'; did you mean 'q6_slicing'\?"):
        list(notebooks.run_chapters(["q6_slicin"]))
