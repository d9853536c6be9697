"""Staging: what the book's copy of a notebook has that the notebook has not."""

from __future__ import annotations

import copy

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from pcam.journal.stage import book_page, published_form


@pytest.fixture
def notebook() -> NotebookNode:
    picture = new_output("display_data", {"image/png": "aGVsbG8="}, metadata={"image/png": {"alt": "Loss falls."}})
    code = new_output(
        "execute_result", {"text/html": "<b>x</b>", "text/latex": "$x$", "text/plain": "x"}, execution_count=2
    )
    cells = [
        new_markdown_cell("# Q4 A title"),
        new_code_cell('data_dir: str = ""', metadata={"tags": ["parameters"]}),
        new_code_cell('data_dir = "/home/somebody"', metadata={"tags": ["injected-parameters"]}),
        new_code_cell("chapter.figure(f)", outputs=[new_output("stream", text="hello"), picture]),
        new_code_cell("Code('x')", metadata={"tags": ["nbval-ignore-output"]}, outputs=[code]),
    ]
    kernel = {"name": "python3", "display_name": "Python 3"}
    return new_notebook(cells=cells, metadata={"pcam": {"source": "abc"}, "kernelspec": kernel})


def test_a_page_names_no_folder_of_this_machine(notebook: NotebookNode) -> None:
    page = published_form(notebook)
    assert not [cell for cell in page.cells if "somebody" in cell.source]
    assert set(page.metadata) == {"kernelspec"}


def test_code_is_folded_and_parameters_are_left_out(notebook: NotebookNode) -> None:
    tags = [cell.metadata.get("tags") for cell in book_page(notebook).cells]
    assert tags == [None, ["parameters", "remove-cell"], ["hide-input"], ["nbval-ignore-output", "hide-input"]]


def test_a_figure_has_its_text_where_the_book_reads_it(notebook: NotebookNode) -> None:
    metadata = [cell.metadata.get("mystnb") for cell in book_page(notebook).cells]
    assert metadata == [None, None, {"image": {"alt": "Loss falls."}}, None]


def test_a_page_has_no_output_that_would_need_a_network(notebook: NotebookNode) -> None:
    forms = [set(output.data) for cell in book_page(notebook).cells[2:] for output in cell.outputs if "data" in output]
    assert forms == [{"image/png"}, {"text/html", "text/plain"}]


def test_the_notebook_itself_is_left_as_it_was(notebook: NotebookNode) -> None:
    before = copy.deepcopy(notebook)
    book_page(notebook)
    assert notebook == before
