"""The notebooks as they are stored: executed, without errors, paired, and compared wherever that is possible."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from pcam.journal.notebooks import declared_parameters, read_notebook, require_paired, write_notebook
from pcam.journal.questions import QUESTIONS

ROOT = Path(__file__).resolve().parent.parent
UNCOMPARED = ROOT / "tests" / "uncompared_cells.txt"
IGNORED = "nbval-ignore-output"


def chapter(name: str) -> Path:
    return ROOT / "notebooks" / f"{name}.ipynb"


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def never_executed(notebook: NotebookNode) -> list[str]:
    """Return the code cells without a stored execution: nbval passes them, whatever they do."""
    return [cell.source.splitlines()[0] for cell in code_cells(notebook) if cell.execution_count is None]


def test_there_is_one_notebook_for_each_question() -> None:
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(QUESTIONS)
    assert {path.stem for path in (ROOT / "notebooks").glob("*.py")} == set(QUESTIONS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_code_cell_has_a_stored_execution(name: str) -> None:
    assert never_executed(read_notebook(chapter(name))) == []


def test_a_cell_without_a_stored_execution_is_found() -> None:
    cells = [new_code_cell("1 + 1", execution_count=1), new_code_cell("2 + 2"), new_code_cell("")]
    assert never_executed(new_notebook(cells=cells)) == ["2 + 2"]


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_error_or_warning_is_stored(name: str) -> None:
    outputs = [output for cell in code_cells(read_notebook(chapter(name))) for output in cell.outputs]
    assert [o.ename for o in outputs if o.output_type == "error"] == []
    assert [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"] == []


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_bare_number_is_shown(name: str) -> None:
    results = [o for c in read_notebook(chapter(name)).cells for o in c.get("outputs", []) if "execution_count" in o]
    bare = [o.data["text/plain"] for o in results if re.fullmatch(r"[-\d.e]+|True|False|None", o.data["text/plain"])]
    assert not bare, "a cell ends in a value that no sentence names; begin its last line with '_ ='"


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_path_of_one_machine_is_stored(name: str) -> None:
    text = chapter(name).read_text(encoding="utf-8")
    assert str(ROOT) not in text and str(Path.home()) + "/" not in text


@pytest.mark.parametrize("name", QUESTIONS)
def test_notebook_and_text_are_in_step(name: str) -> None:
    require_paired(chapter(name))


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_chapter_takes_the_two_folders(name: str) -> None:
    declared = declared_parameters(read_notebook(chapter(name)), name)
    assert (declared["data_dir"].default, declared["work_dir"].default) == ("", "")


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_cell_is_short(name: str) -> None:
    # A longer one belongs in pcam. Prose, which `answer` and `headline` hold, is not counted.
    for cell in code_cells(read_notebook(chapter(name))):
        lines = [
            line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith(('"', 'f"', "#"))
        ]
        assert len(lines) <= 20, lines[0]


def test_the_list_of_uncompared_cells_is_complete() -> None:
    """The list is short and visible: whoever excuses one more cell from comparison edits it."""
    tagged = []
    for name in QUESTIONS:
        for number, cell in enumerate(code_cells(read_notebook(chapter(name))), 1):
            if IGNORED in cell.metadata.get("tags", []):
                tagged.append(f"{name} [{number}] {cell.source.splitlines()[0][:60]}")
    listed = [line for line in UNCOMPARED.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert listed == tagged, "bring tests/uncompared_cells.txt in step:\n" + "\n".join(tagged)


def stored(folder: Path, name: str, source: str, text: str) -> None:
    """Write a notebook of one cell that shows `text` as it is stored."""
    cell = new_code_cell(source, execution_count=1)
    cell["id"] = "only"
    cell["outputs"] = [new_output("stream", name="stdout", text=text)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    write_notebook(folder / name, nbformat.from_dict(new_notebook(cells=[cell], metadata={"kernelspec": kernel})))


def test_nbval_fails_on_a_changed_number_or_verdict_and_only_there(tmp_path: Path) -> None:
    pytest.importorskip("nbval")
    stored(tmp_path, "same.ipynb", "print(0.953)", "0.953\n")
    stored(tmp_path, "changed.ipynb", "print(0.953)", "0.954\n")
    stored(tmp_path, "slower.ipynb", "print('took 2.5 s')", "took 3.25 s\n")
    says = '<span class="pcam-value varies" title="auc">{}</span> is above chance: <span class="pcam-value">{}</span>'
    stored(tmp_path, "varies.ipynb", f"print({says.format(0.953, 'yes')!r})", says.format(0.951, "yes") + "\n")
    stored(tmp_path, "verdict.ipynb", f"print({says.format(0.953, 'yes')!r})", says.format(0.953, "no") + "\n")
    options = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", str(ROOT / "tests" / "nbval_sanitize.cfg")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "."],
        cwd=tmp_path,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert "changed.ipynb::Cell 0" in done.stdout and "verdict.ipynb::Cell 0" in done.stdout
    assert "2 failed, 3 passed" in done.stdout
