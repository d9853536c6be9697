"""Staging and building: executed chapters and pages come together in an ignored folder, and the book is built there.

Nothing tracked is written. The build treats every warning as an error (a failing cell or a page that is missing
from the table of contents is only a warning to Jupyter Book), always starts clean (an incremental one would not
repeat the warnings of pages that did not change), and replaces the finished book only when it succeeded.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from pcam.config import project_root
from pcam.errors import JournalError, PcamError
from pcam.journal import fragments
from pcam.journal.check import check_evidence, check_notebook
from pcam.journal.evidence import Evidence, load_evidence
from pcam.journal.notebooks import chapter_source, failed_path, read_notebook, source_digest, write_notebook
from pcam.journal.plan import Plan, open_plan
from pcam.journal.questions import QUESTIONS, Question
from pcam.storage import claim, make_folder, sha256_file, write_json, write_text

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Of several forms of an output the book shows one of these. LaTeX, even unused, would call MathJax from the web, and
# the state of a live widget means nothing without a kernel.
_SHOWN = ("text/html", "text/markdown", "image/png", "image/svg+xml", "text/plain")
_SWAP_SECONDS = 60  # a book is copied in a second or two
_NOT_PAGES = ("_toc.yml", "_generated", "questions", "_build", "evidence")


@dataclass(frozen=True)
class Executed:
    """A chapter as it was executed: notebook and evidence, and what speaks against publishing it ("" if nothing)."""

    question: Question
    path: Path
    problem: str
    notebook: NotebookNode | None = None
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Status:
    """One line of `pcam journal status`: the chapter, its state, and what it stands on."""

    chapter: str
    state: str
    answered: str
    data_kind: str
    runs: int

    def __str__(self) -> str:
        runs = f"{self.runs} run{'' if self.runs == 1 else 's'}"
        stands_on = f"; {self.answered} parts answered, {runs}, {self.data_kind} data" if self.answered else ""
        return f"{self.chapter:20} {self.state}{stands_on}"


def executed(question: Question, work: Path) -> Executed:
    """Return a chapter's executed notebook and evidence, and the first thing that makes them unfit for the book.

    Args:
        question: the chapter.
        work: the journal's work folder.
    """
    path = work / "executed" / f"{question.name}.ipynb"
    if not path.exists():
        failed = failed_path(path)
        return Executed(question, path, f"{_end(failed)}; see {failed}" if failed.exists() else "not executed")
    record = path.with_suffix(".json")
    if not record.exists():
        return Executed(question, path, "no evidence")
    try:
        notebook, evidence = read_notebook(path), load_evidence(record)
    except PcamError as error:
        return Executed(question, path, str(error).partition("; ")[0])
    return Executed(question, path, _problem(question, notebook, evidence, record, work), notebook, evidence)


def _end(failed: Path) -> str:
    try:
        ended = read_notebook(failed).metadata.get("papermill", {}).get("end_time")
    except JournalError:
        ended = None  # it is being written just now
    return "failed" if ended else "still running, or stopped before its end"


def _problem(question: Question, notebook: NotebookNode, evidence: Evidence, record: Path, work: Path) -> str:
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    stamp = notebook.metadata.get("pcam", {})
    findings = check_evidence(question, evidence, work)
    source = chapter_source(question)
    written = read_notebook(source)
    typed = [f"{f.place}: {f.problem} ({f.mend})" for f in check_notebook(written, question, source.name)]
    checks = (
        (any(cell.execution_count is None for cell in code), "a cell was not executed"),
        (any(o.output_type == "error" for cell in code for o in cell.outputs), "a cell raised an error"),
        (stamp.get("evidence") != sha256_file(record), "its evidence was changed after it was executed"),
        (stamp.get("source") != source_digest(notebook), "its cells were changed after it was executed"),
        (stamp.get("source") != source_digest(written), "out of date: its source changed"),
        (bool(typed), typed[0] if typed else ""),
        (bool(findings), findings[0].problem if findings else ""),
    )
    return next((problem for bad, problem in checks if bad), "")


def status(data_dir: Path | str | None = None) -> list[Status]:
    """Say of each chapter what it stands on.

    Raises:
        DataError: no such data.
    """
    rows = []
    work = open_plan(data_dir, make=False).work
    for question in QUESTIONS.values():
        chapter = executed(question, work)
        evidence = chapter.evidence
        answered = f"{len(evidence.answers)} of {len(question.parts)}" if evidence else ""
        kind, runs = (evidence.data_kind, len(evidence.runs)) if evidence else ("", 0)
        rows.append(Status(question.name, chapter.problem or "ready", answered, kind, runs))
    return rows


def verified_chapters(plan: Plan) -> dict[str, Executed]:
    """Return every chapter by name, all of them fit for the book.

    Raises:
        JournalError: one is not; the line says why and how to mend it.
    """
    chapters = {name: executed(question, plan.work) for name, question in QUESTIONS.items()}
    bad = [chapter for chapter in chapters.values() if chapter.problem]
    if bad:
        mend = f"run 'pcam journal run {bad[0].question.name}{plan.option}'"
        more = f" (and {len(bad) - 1} more; see 'pcam journal status{plan.option}')" if len(bad) > 1 else ""
        raise JournalError(f"{bad[0].question.name}: {bad[0].problem}; {mend}{more}")
    return chapters


def published_form(notebook: NotebookNode) -> NotebookNode:
    """Return an executed notebook as a page: without the injected cell, which names a folder of this machine."""
    page = NotebookNode(notebook.copy())
    page["metadata"] = NotebookNode({key: value for key, value in notebook.metadata.items() if key != "pcam"})
    page["cells"] = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    return page


def book_page(notebook: NotebookNode) -> NotebookNode:
    """Return an executed notebook as a page of the book: code folded, and every figure with its text alternative.

    A figure carries its text in its output; MyST-NB reads it from the cell, where the source has no such thing.
    """
    page = published_form(notebook)
    page["cells"] = [_book_cell(cell) if cell.cell_type == "code" else cell for cell in page.cells]
    return page


def _book_cell(cell: NotebookNode) -> NotebookNode:
    pictures = [output.get("metadata", {}).get("image/png", {}) for output in cell.outputs]
    alt = next((picture["alt"] for picture in pictures if picture.get("alt")), None)
    tags = cell.metadata.get("tags", [])
    # The parameters are for those who run a chapter, not for those who read it.
    shown = "remove-cell" if "parameters" in tags else "hide-input"
    metadata = {**cell.metadata, "tags": [*tags, shown]}
    if alt:
        metadata["mystnb"] = {"image": {"alt": alt}}
    return NotebookNode({**cell, "metadata": metadata, "outputs": [_book_output(o) for o in cell.outputs]})


def _book_output(output: NotebookNode) -> NotebookNode:
    if "data" not in output:
        return output
    data = {kind: content for kind, content in output.data.items() if kind in _SHOWN}
    return NotebookNode({**output, "data": NotebookNode(data)})


def write_generated(chapters: dict[str, Executed], work: Path, folder: Path) -> list[Path]:
    """Write the generated fragments into a folder and return their paths."""
    evidence = {name: c.evidence for name, c in chapters.items() if c.evidence is not None}
    texts = {
        "answers.md": fragments.answers(evidence),
        "banner.md": fragments.banner(evidence),
        "evidence.md": fragments.values(evidence),
        "runs.md": fragments.runs(evidence, work),
    }
    return [write_text(folder / name, text) for name, text in texts.items()]


def stage(plan: Plan) -> Path:
    """Put pages, chapters and generated fragments together in `stage/` of the work folder and return it.

    Raises:
        JournalError: a chapter is not fit for the book.
    """
    chapters = verified_chapters(plan)
    root, folder = project_root(), plan.work / "stage"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "book", folder, ignore=shutil.ignore_patterns(*_NOT_PAGES))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, folder / name)
    for name, chapter in chapters.items():
        assert chapter.notebook is not None  # verified_chapters() read it
        write_notebook(folder / "questions" / f"{name}.ipynb", book_page(chapter.notebook))
    write_generated(chapters, plan.work, folder / "_generated")
    return folder


def build(data_dir: Path | str | None = None) -> Path:
    """Stage and build the book, and return its first page in `_build/html/`.

    Args:
        data_dir: the data folder whose journal is shown; None: the synthetic sample.

    Raises:
        JournalError: a chapter is not fit, or the build warned; the book that was there before is left as it was.
    """
    plan = open_plan(data_dir, make=False)
    folder = stage(plan)
    out = plan.work / "html"
    shutil.rmtree(out, ignore_errors=True)
    html = run_jupyter_book(folder, out, plan.work / "build.log")
    edition = {"journal": plan.work.name, "data_kind": plan.kind, "evidence": evidence_digests(plan.work)}
    # The workflow sees by this file whose book is on show, and that it is there; the bundle, which evidence it shows.
    write_json(html / edition_name(plan.work), edition)
    shown = project_root() / "_build" / "html"
    with claim(shown.parent / "html.claim", wait=_SWAP_SECONDS):  # two journals may end at the same time
        swap(html, shown)
    return shown / "index.html"


def edition_name(work: Path) -> str:
    """Return the name of the file in a finished book that says which journal it shows."""
    return f"edition-{work.name}.json"


def evidence_digests(work: Path) -> dict[str, str]:
    """Return the SHA-256 of each executed chapter's evidence by its file's name."""
    return {path.name: sha256_file(path) for path in sorted((work / "executed").glob("*.json"))}


def run_jupyter_book(folder: Path, out: Path, log: Path) -> Path:
    """Build the book in `folder` with warnings as errors and return the folder of its pages.

    Raises:
        JournalError: it warned or failed; the line gives the first warning and the log.
    """
    # The very interpreter that runs this, whatever `jupyter-book` comes first on the PATH.
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(folder)]
    command += ["--path-output", str(out), "--all", "-W", "--keep-going", "--quiet"]
    make_folder(out)
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        lines = _COLOUR.sub("", log.read_text(encoding="utf-8", errors="replace")).splitlines()
        worst = next((line for line in lines if "WARNING" in line or "ERROR" in line), (lines or ["no output"])[-1])
        raise JournalError(f"the book was not built: {worst.replace(f'{folder}/', '')}; see {log}")
    return out / "_build" / "html"


def swap(new: Path, shown: Path) -> None:
    """Put a finished folder in the place of the one on show, which is there, old or new, at any moment but one.

    A folder cannot be renamed over another; the copy is made beside it first, so that all that remains between
    old and new is two renames.
    """
    fresh, old = shown.with_name(f".{shown.name}-new"), shown.with_name(f".{shown.name}-old")
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    make_folder(shown.parent)
    shutil.copytree(new, fresh)
    if shown.exists():
        shown.rename(old)
    fresh.rename(shown)
    shutil.rmtree(old, ignore_errors=True)
