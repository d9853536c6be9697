"""`pcam check`: is every number bound, every question answered, every cited run completed.

Prose says a result only through a template whose numbers are recorded values, so a number typed into prose is
a finding wherever it stands: in a Markdown cell, in an answer's template, in a table of a text file. What is not
a result is left alone: headings, code, links and citations, the numbers of lists and questions, years.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from pcam.config import project_root
from pcam.errors import JournalError, PcamError, did_you_mean
from pcam.journal.citations import cited_run
from pcam.journal.evidence import Evidence, load_evidence, typed_numbers
from pcam.journal.notebooks import read_notebook
from pcam.journal.plan import open_plan
from pcam.journal.questions import QUESTIONS, Question

WHOLE_JOURNAL = "journal"
_BOUND_CALLS = {"answer": 1, "no_evidence": 1, "note": 0, "headline": 0}  # Chapter method → position of its text
_PART_CALLS = ("answer", "no_evidence")
_NOT_RESULTS = re.compile(
    r"""^\#+[ ][^\n]*$                   # a heading
      | ^\s*\d+[.)](?=\s)                # the number of a list item
      | ^```.*?^``` | ^:::+[^\n]*$       # a fenced block; a directive's own line
      | \]\([^)]*\) | <[^>]*>            # the target of a link; an HTML tag or address
      | https?://\S+
      | \{\{.*?\}\}                      # a bound value
      | \b[Aa]r[Xx]iv[: ]?\d[\d.]+
      | \b(?:[Qq]uestions?|[Pp]arts?|[Cc]hapters?|Q)\s*\d+(?:\s*(?:to|and|,|-|–|…)\s*\d+)*
      | (?<![\d.,])(?:19|20)\d\d(?![\d.,]*\d|\s*%)   # a year
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_REFERENCE = re.compile(r"\{\{\s*(\w+)\.(\w+)\s*\}\}")


@dataclass(frozen=True)
class Finding:
    """One thing to mend: where it is, what is wrong, and what to do."""

    place: str
    problem: str
    mend: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}; {self.mend}"


def check(
    data_dir: Path | str | None = None, *, journal: Path | str | None = None, template: str | None = None
) -> list[Finding]:
    """Check the project's chapters and their evidence, or one journal of somebody else.

    Args:
        data_dir: the data folder whose executed chapters are looked at; None: the synthetic sample's or, where
            none was executed, the published ones in `book/`.
        journal: check this notebook (.ipynb, .py) or text (.md) instead.
        template: what `journal` must answer: a chapter's name, or "journal" for all nine questions; by default
            the chapter that the file is named after.

    Returns:
        The findings; none when all is well.

    Raises:
        JournalError: an unknown template, or a file that cannot be read as a journal.
    """
    if journal is not None:
        return check_journal(Path(journal), template)
    if template is not None:
        raise JournalError("--template says what a --journal FILE must answer; give that file too")
    findings: list[Finding] = []
    for question in QUESTIONS.values():
        source = project_root() / "notebooks" / f"{question.name}.ipynb"
        findings += check_notebook(read_notebook(source), question, f"notebooks/{source.name}")
    return findings + _check_all_evidence(data_dir)


def check_journal(path: Path, template: str | None = None) -> list[Finding]:
    """Check one journal: a notebook, its py:percent text, or a Markdown text.

    Raises:
        JournalError: an unknown template or kind of file, or the file cannot be read.
    """
    name = template or (path.stem if path.stem in QUESTIONS else WHOLE_JOURNAL)
    if name != WHOLE_JOURNAL and name not in QUESTIONS:
        raise JournalError(f"unknown template '{name}'{did_you_mean(name, [*QUESTIONS, WHOLE_JOURNAL])}")
    if path.suffix not in (".ipynb", ".py", ".md"):
        raise JournalError(f"{path}: a journal is a notebook (.ipynb, .py) or a text (.md)")
    notebook = _as_notebook(path)
    if name in QUESTIONS and path.suffix != ".md":
        return check_notebook(notebook, QUESTIONS[name], path.name)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    wanted = list(QUESTIONS.values()) if name == WHOLE_JOURNAL else [QUESTIONS[name]]
    findings = [f for number, text in enumerate(texts, 1) for f in _unbound(text, f"{path.name}, text {number}")]
    return findings + list(_unanswered_headings("\n\n".join(texts), {q.number for q in wanted}, path.name))


def _as_notebook(path: Path) -> NotebookNode:
    if path.suffix == ".ipynb":
        return read_notebook(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JournalError(f"{path}: cannot be read as a journal ({error})") from error
    if path.suffix == ".md":
        from nbformat.v4 import new_markdown_cell, new_notebook

        return new_notebook(cells=[new_markdown_cell(text)])
    import jupytext

    return jupytext.reads(text, fmt="py:percent")


def check_notebook(notebook: NotebookNode, question: Question, name: str) -> list[Finding]:
    """Check a chapter's source: no number typed in prose or templates, every part answered.

    Args:
        notebook: the source; outputs are not looked at.
        question: the question that it answers.
        name: the file's name for the findings.
    """
    findings: list[Finding] = []
    answered: set[str] = set()
    for number, cell in enumerate(notebook.cells, 1):
        place = f"{name}, cell {number}"
        if cell.cell_type == "markdown":
            findings += _unbound(cell.source, place)
            continue
        for method, arguments in _chapter_calls(cell.source):
            if method in _PART_CALLS and arguments and isinstance(arguments[0], str):
                answered.add(arguments[0])
            position = _BOUND_CALLS.get(method, len(arguments))
            if position < len(arguments) and isinstance(arguments[position], str):
                findings += _unbound(str(arguments[position]), place)
    for part, shows in question.parts.items():
        if part not in answered:
            findings.append(
                Finding(name, f"part {part} ({shows}) is not answered", f'call chapter.answer("{part}", …)')
            )
    return findings


def _chapter_calls(source: str) -> Iterator[tuple[str, list[object]]]:
    """Yield `(method, literal positional arguments)` of each `chapter.method(…)`; what is not a literal is None."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return  # a magic: no prose in it
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, [a.value if isinstance(a, ast.Constant) else None for a in node.args]


def _unbound(text: str, place: str) -> Iterator[Finding]:
    for number in typed_numbers(_NOT_RESULTS.sub(" ", text)):
        mend = "record the value and name it, or set it as `code` if no run says it"
        yield Finding(place, f"the number {number} is typed by hand", mend)
    for chapter, value in _REFERENCE.findall(text):
        path = project_root() / "book" / "evidence" / f"{chapter}.json"
        if not path.exists() or value not in load_evidence(path).values:
            yield Finding(place, f"no evidence '{chapter}.{value}' is published", "run and publish that chapter first")


def _unanswered_headings(text: str, numbers: Iterable[int], name: str) -> Iterator[Finding]:
    """Yield a finding for each question without a heading such as `## Q6 …`, or with nothing written below it."""
    sections: dict[int, str] = {}
    current, level = 0, 0
    for section in re.split(r"^(?=#+ )", text, flags=re.MULTILINE):
        heading, _, body = section.partition("\n")
        depth = len(heading) - len(heading.lstrip("#"))
        found = re.match(r"#+ (?:Q|Question )?(\d+)\b", heading)
        if found and (not current or depth <= level):
            current, level = int(found.group(1)), depth
        elif depth <= level:  # another chapter begins, and it is no question
            current, level = 0, 0
        sections[current] = sections.get(current, "") + body.strip()
    for number in sorted(numbers):
        if number not in sections:
            yield Finding(name, f"question {number} has no heading", f"add a heading '## Q{number} …' with its answer")
        elif not sections[number]:
            yield Finding(name, f"question {number} is left blank", "write its answer below its heading")


def check_evidence(question: Question, evidence: Evidence, work: Path | None, option: str = "") -> list[Finding]:
    """Check what a chapter left behind: every part answered or said to be open, every cited run completed.

    Args:
        question: the question.
        evidence: its evidence.
        work: the journal's work folder with the cited runs; None: runs are not looked at.
        option: what a command needs to mean that journal, see `Plan.option`.
    """
    again = f"run 'pcam journal run {question.name}{option}' again"
    silent = set(question.parts) - set(evidence.answers) - set(evidence.open_parts)
    findings = [Finding(question.name, f"part {part} is not answered", again) for part in sorted(silent)]
    if not evidence.headline:
        findings.append(Finding(question.name, "it has no one-line answer", "call chapter.headline(…)"))
    if work is not None:
        findings += [Finding(question.name, problem, again) for problem in _unfinished(evidence, work)]
    return findings


def _unfinished(evidence: Evidence, work: Path) -> Iterator[str]:
    for run in evidence.runs:
        try:
            state = cited_run(work, run).state
        except JournalError as error:
            yield str(error).partition("; ")[0]
            continue
        if state != "completed":
            yield f"it cites run {run}, which is {state}"


def _check_all_evidence(data_dir: Path | str | None) -> list[Finding]:
    plan = open_plan(data_dir, make=False)
    executed = plan.work / "executed"
    # A fresh clone has no work folder: then it is the committed book that must hold.
    published = not data_dir and not any(executed.glob("*.json"))
    folder, runs = (project_root() / "book" / "evidence", None) if published else (executed, plan.work)
    findings: list[Finding] = []
    for question in QUESTIONS.values():
        path = folder / f"{question.name}.json"
        mend = f"run 'pcam journal run {question.name}{plan.option}'"
        if not path.exists():
            findings.append(Finding(question.name, f"there is no evidence for it in {folder}", mend))
            continue
        try:
            evidence = load_evidence(path)
        except PcamError as error:
            findings.append(Finding(question.name, str(error).partition("; ")[0], mend))
            continue
        findings += check_evidence(question, evidence, runs, plan.option)
    return findings
