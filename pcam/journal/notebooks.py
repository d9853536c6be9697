"""Strict papermill: a notebook runs with the parameters it declares, or not at all.

Papermill only warns about an unknown parameter and then runs with the default, so that a misspelt `data_dir`
quietly gives the sample's results. Here every parameter is checked against the notebook's `parameters` cell
before a kernel starts. Each notebook gets a kernel process of its own. What differs between two equal runs
(timings, paths, random cell ids, how a stream was cut in pieces) is taken out of the executed file, and a
failed run never touches the target: the marked notebook goes to `failed/` beside it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from pcam.config import project_root
from pcam.errors import JournalError, did_you_mean
from pcam.journal.citations import keep_cited_runs
from pcam.journal.evidence import load_evidence
from pcam.journal.plan import Plan, open_plan
from pcam.journal.questions import Question, find_questions
from pcam.storage import claim, make_folder, sha256_file, write_bytes, write_text

CELL_TIMEOUT = 1800  # seconds; a chapter on real patches may train inside a cell
_TYPES: dict[str, type] = {t.__name__: t for t in (str, int, float, bool, list, dict)}
_VOLATILE_CELL = ("papermill", "execution", "ExecuteTime")
_VOLATILE_NOTEBOOK = ("papermill", "widgets", "signature")


@dataclass(frozen=True)
class Parameter:
    """One name of the `parameters` cell: its `default`, and the `types` a value may have (None for any)."""

    name: str
    default: Any
    types: tuple[type, ...] | None

    def check(self, value: Any, notebook: str) -> None:
        """Refuse a value of another type; an int may stand for a float, but never a bool for a number.

        Raises:
            JournalError: the type does not fit.
        """
        if self.types is None or type(value) in self.types or (type(value) is int and float in self.types):
            return
        names = " or ".join("None" if t is type(None) else t.__name__ for t in self.types)
        raise JournalError(f"{notebook}: parameter '{self.name}' is {value!r}, not {names}; give it as {names}")


def read_notebook(path: Path | str) -> NotebookNode:
    """Read a notebook.

    Raises:
        JournalError: it is missing or not a notebook.
    """
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError as error:
        raise JournalError(f"{path}: no such notebook") from error
    except (OSError, ValueError, AttributeError, TypeError, KeyError, nbformat.ValidationError) as error:
        # nbformat takes whatever JSON it finds for a notebook, hence the AttributeError and the two after it.
        raise JournalError(f"{path}: not a notebook ({str(error).partition(chr(10))[0]}); restore it") from error


def write_notebook(path: Path, notebook: NotebookNode) -> Path:
    """Write a notebook atomically and return its path."""
    return write_text(path, nbformat.writes(notebook, version=4).rstrip("\n") + "\n")


def declared_parameters(notebook: NotebookNode, name: str) -> dict[str, Parameter]:
    """Return what the cell tagged `parameters` declares, read without running it.

    Raises:
        JournalError: the cell is not plain Python, or a default is not a literal.
    """
    found: dict[str, Parameter] = {}
    cells = [c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    try:
        statements = ast.parse("\n".join(cells)).body
    except SyntaxError as error:
        raise JournalError(f"{name}: its parameters cell is not plain Python: {error.msg} in '{error.text}'") from error
    for statement in statements:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            target, value, annotation = statement.targets[0], statement.value, None
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            target, value, annotation = statement.target, statement.value, statement.annotation
        else:
            continue
        try:
            default = ast.literal_eval(value)
        except (ValueError, TypeError) as error:
            raise JournalError(f"{name}: parameter '{target.id}' has a default that is not a literal") from error
        types = _annotated(annotation) if annotation is not None else (type(default),)
        found[target.id] = Parameter(target.id, default, None if types == (type(None),) else types)
    return found


def _annotated(node: ast.expr) -> tuple[type, ...] | None:
    if isinstance(node, ast.BinOp):
        left, right = _annotated(node.left), _annotated(node.right)
        return None if left is None or right is None else (*left, *right)
    if isinstance(node, ast.Subscript):
        return _annotated(node.value)
    if isinstance(node, ast.Constant) and node.value is None:
        return (type(None),)
    return (_TYPES[node.id],) if isinstance(node, ast.Name) and node.id in _TYPES else None


def source_digest(notebook: NotebookNode) -> str:
    """Return the SHA-256 of what a person wrote: types, sources and tags of the cells, without any output."""
    cells = [
        [c.cell_type, c.source, sorted(c.metadata.get("tags", []))]
        for c in notebook.cells
        if "injected-parameters" not in c.metadata.get("tags", [])
    ]
    return hashlib.sha256(json.dumps(cells, ensure_ascii=False).encode()).hexdigest()


def make_deterministic(notebook: NotebookNode) -> NotebookNode:
    """Take out of an executed notebook whatever differs between two equal runs, in place, and return it."""
    for key in _VOLATILE_NOTEBOOK:
        notebook.metadata.pop(key, None)
    # The full entry names the patch release of Python; these two are what highlighting needs.
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    for number, cell in enumerate(notebook.cells):
        for key in _VOLATILE_CELL:
            cell.metadata.pop(key, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = f"injected-{number}"
        if cell.cell_type == "code":
            cell["outputs"] = _joined_streams(cell.outputs)
            for output in cell.outputs:
                # Numbered by the kernel at random; the text/html beside it is what a page shows.
                if "text/html" in output.get("data", {}):
                    output["data"].pop("application/vnd.jupyter.widget-view+json", None)
    return notebook


def _joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    joined: list[NotebookNode] = []
    for output in outputs:
        previous = joined[-1] if joined else None
        if previous and output.output_type == "stream" == previous.output_type and output.name == previous.name:
            previous["text"] += output.text
        else:
            joined.append(output)
    return joined


def execute(
    source: Path | str,
    failed: Path,
    parameters: Mapping[str, Any],
    *,
    cwd: Path | None = None,
    timeout: float = CELL_TIMEOUT,
) -> NotebookNode:
    """Execute a notebook in a fresh kernel and return it, without what is volatile.

    Args:
        source: the notebook; it is only read.
        failed: where the marked notebook goes if a cell fails.
        parameters: values for names that the `parameters` cell declares.
        cwd: the kernel's working directory; the folder of the source without it.
        timeout: seconds that one cell may take.

    Raises:
        JournalError: an unknown or mistyped parameter (no kernel is started), a cell that raised or took too
            long, or a kernel that died; one line names notebook, cell and exception.
    """
    source = Path(source).resolve()
    notebook = read_notebook(source)
    declared = declared_parameters(notebook, source.name)
    for name, value in parameters.items():
        if name not in declared:
            raise JournalError(f"{source.name}: unknown parameter '{name}'{did_you_mean(name, declared)}")
        declared[name].check(value, source.name)

    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill import execute_notebook
    from papermill.exceptions import PapermillExecutionError

    make_folder(failed.parent)
    # Papermill formats `{…}` in an output path, hence the doubled braces.
    target = str(failed.resolve()).replace("{", "{{").replace("}", "}}")
    try:
        done = execute_notebook(
            notebook,
            target,
            dict(parameters),
            cwd=cwd or source.parent,
            progress_bar=sys.stderr.isatty(),
            execution_timeout=timeout,
            extra_arguments=["--log-level=CRITICAL"],  # what its sockets and its shutdown log is nobody's concern
        )
    except PapermillExecutionError as error:
        what = f"{error.ename}: {(str(error.evalue).splitlines() or [''])[0]}"
        raise JournalError(f"{source.name}, cell [{error.exec_count}]: {what}; see {failed}") from error
    except CellTimeoutError as error:
        raise JournalError(f"{source.name}: a cell ran longer than {timeout:g} s; see {failed}") from error
    except DeadKernelError as error:
        raise JournalError(f"{source.name}: the kernel died, perhaps for want of memory; see {failed}") from error
    except BaseException:
        failed.unlink(missing_ok=True)  # interrupted: half a notebook is of no use to anyone
        raise
    failed.unlink(missing_ok=True)  # somebody else may have run the same chapter beside this
    return make_deterministic(done)


def failed_path(out: Path) -> Path:
    """Return where the marked notebook of a failed run goes."""
    return out.parent / "failed" / out.name


def chapter_source(question: Question) -> Path:
    """Return the path of a chapter's notebook in `notebooks/`."""
    return project_root() / "notebooks" / f"{question.name}.ipynb"


def run_chapter(question: Question, plan: Plan) -> Path:
    """Execute one chapter on a journal's data and return the executed notebook.

    Its metadata say which source text and which evidence it belongs to, so that a chapter whose source or
    evidence changed afterwards is never taken for a current one.

    Raises:
        JournalError: as `execute`; or the notebook and its paired text differ; or it wrote no evidence.
        ClaimedError: another process is running the same chapter.
    """
    source = chapter_source(question)
    require_paired(source)
    out = plan.work / "executed" / source.name
    evidence = plan.work / "evidence" / f"{question.name}.json"
    parameters = {} if plan.kind == "synthetic" and plan.work.name == "sample" else {"data_dir": str(plan.data_dir)}
    # Two at once would empty each other's scratch folder, and one's evidence might go with the other's notebook.
    with claim(plan.work / "scratch" / question.name / "claim"):
        evidence.unlink(missing_ok=True)  # what an earlier execution said must not pass for this one's
        notebook = execute(source, failed_path(out), parameters)
        if not evidence.exists():
            raise JournalError(f"{source.name}: it wrote no evidence; end it with 'chapter.close()'")
        # Copies of their own: whoever runs the notebook by hand makes runs and evidence in the work folder anew.
        keep_cited_runs(plan.work, question.name, load_evidence(evidence).runs)
        record = write_bytes(out.with_suffix(".json"), evidence.read_bytes())
    notebook.metadata["pcam"] = {"source": source_digest(notebook), "evidence": sha256_file(record)}
    return write_notebook(out, notebook)


def run_chapters(questions: Sequence[str], data_dir: Path | str | None = None) -> Iterator[Path]:
    """Execute chapters one after the other and yield each executed notebook.

    Args:
        questions: names such as "q6"; every chapter when empty.
        data_dir: PCam-format files; None: the synthetic sample.

    Raises:
        JournalError: an unknown question, or a chapter that failed (the others are not run).
    """
    wanted = find_questions(list(questions))
    plan = open_plan(data_dir)
    for question in wanted:
        yield run_chapter(question, plan)


def require_paired(path: Path) -> None:
    """Refuse a notebook whose cells differ from its py:percent text: nobody could tell which one is meant.

    Raises:
        JournalError: the text is missing or differs.
    """
    import jupytext

    text = path.with_suffix(".py")
    if not text.exists():
        raise JournalError(f"{text}: missing; write it with 'jupytext --sync {path}'")
    if source_digest(jupytext.read(text)) != source_digest(read_notebook(path)):
        raise JournalError(f"{path.name} and {text.name} differ; bring them together with 'jupytext --sync {path}'")
