"""Publishing: the deliberate act that copies verified chapters to where they are committed.

`book/` gets the executed pages, their evidence and the generated fragments, so that `jupyter-book build book/`
works on a fresh clone. The sources in `notebooks/` get the outputs of the synthetic sample, which nbval compares.
Either every chapter is verified and all is copied, or nothing is touched.
"""

from __future__ import annotations

from pathlib import Path

from pcam.config import project_root
from pcam.journal.notebooks import chapter_source, write_notebook
from pcam.journal.plan import open_plan
from pcam.journal.stage import book_page, published_form, verified_chapters, write_generated
from pcam.storage import write_bytes


def publish(data_dir: Path | str | None = None) -> list[Path]:
    """Copy every chapter of a journal into `book/`, and a sample's outputs into `notebooks/` too.

    Args:
        data_dir: the data folder whose journal is published; None: the synthetic sample.

    Returns:
        The files written; they are meant to be looked at and committed.

    Raises:
        JournalError: a chapter is not executed, is out of date, has an unbound number, an unanswered part or
            cites a run that is not completed; nothing has been written then.
    """
    plan = open_plan(data_dir, make=False)
    chapters = verified_chapters(plan)
    book = project_root() / "book"
    written = []
    for name, chapter in chapters.items():
        assert chapter.notebook is not None  # verified_chapters() read it
        written.append(write_notebook(book / "questions" / f"{name}.ipynb", book_page(chapter.notebook)))
        record = chapter.path.with_suffix(".json")
        written.append(write_bytes(book / "evidence" / record.name, record.read_bytes()))
        if plan.work.name == "sample":
            written.append(write_notebook(chapter_source(chapter.question), published_form(chapter.notebook)))
    return written + write_generated(chapters, plan.work, book / "_generated")
