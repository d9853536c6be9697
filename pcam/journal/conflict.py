"""A merge conflict in a notebook, made and resolved in a repository of its own.

Two people work on one notebook and both run it. Git merges lines, and a notebook's lines are JSON with outputs
and execution counts, so that even edits of different cells collide, and the file with conflict markers does not
open. The paired py:percent text has neither; it is merged, and the notebook is made from it again.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jupytext
import pandas as pd
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from pcam.errors import JournalError
from pcam.journal.history import QUIET_GIT, git
from pcam.journal.notebooks import read_notebook, source_digest, write_notebook

_NAME = "chapter"


@dataclass(frozen=True)
class Merge:
    """What a merge of two branches gave.

    Attributes:
        case: what the two people changed.
        conflicts: conflict hunks by file suffix (".ipynb", ".py").
        opens: whether the notebook opens as git left it.
        hunk: the first conflict of the text, as a person sees it ("" if there is none).
        resolved: whether the notebook made from the merged text opens and agrees with it.
    """

    case: str
    conflicts: dict[str, int]
    opens: bool
    hunk: str
    resolved: bool


@dataclass(frozen=True)
class Edit:
    """The notebook as one person left it: its two values, and the execution count that it was at."""

    threshold: float
    scores: tuple[float, ...]
    count: int

    def sources(self) -> list[str]:
        """Return the three code cells."""
        return [
            f"threshold = {self.threshold}",
            f"scores = {list(self.scores)}",
            "sum(score > threshold for score in scores)",
        ]

    def notebook(self) -> NotebookNode:
        """Return it as it is after it was run: with counts, and the value that the last cell showed."""
        cells = [new_code_cell(text, execution_count=self.count + n) for n, text in enumerate(self.sources())]
        for number, cell in enumerate(cells):
            cell["id"] = f"cell-{number}"
        shown = {"text/plain": str(sum(score > self.threshold for score in self.scores))}
        cells[-1]["outputs"] = [new_output("execute_result", data=shown, execution_count=cells[-1].execution_count)]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        formats = {"formats": "ipynb,py:percent"}
        return new_notebook(cells=cells, metadata={"kernelspec": kernel, "jupytext": formats})


def demonstrate(folder: Path) -> list[Merge]:
    """Merge two people's work twice, in repositories below `folder`: on different cells and on the same cell.

    Raises:
        JournalError: git is missing.
    """
    base = Edit(0.5, (0.2, 0.6, 0.9), count=1)
    ours = Edit(0.7, base.scores, count=4)
    elsewhere, same = Edit(0.5, (*base.scores, 0.95), count=7), Edit(0.4, base.scores, count=7)
    return [
        _merge(folder / "different", "different cells", (base, ours, elsewhere)),
        _merge(folder / "same", "the same cell", (base, ours, same)),
    ]


def as_table(merges: list[Merge]) -> pd.DataFrame:
    """Return one row a merge, for the chapter."""
    rows = [(m.case, m.conflicts[".ipynb"], m.opens, m.conflicts[".py"], m.resolved) for m in merges]
    names = ["both changed", "conflicts in .ipynb", "it opens", "conflicts in .py", "resolved from the text"]
    return pd.DataFrame(rows, columns=names).replace({True: "yes", False: "no"})


def _merge(folder: Path, case: str, edits: tuple[Edit, Edit, Edit]) -> Merge:
    base, ours, theirs = edits
    folder.mkdir(parents=True)
    _git(folder, "init", "-q", "-b", "main")
    _commit(folder, base, "Add the chapter")
    _git(folder, "checkout", "-q", "-b", "theirs")
    _commit(folder, theirs, "Their change")
    _git(folder, "checkout", "-q", "main")
    _commit(folder, ours, "Our change")
    _git(folder, "merge", "-q", "theirs", check=False)
    files = {suffix: folder / f"{_NAME}{suffix}" for suffix in (".ipynb", ".py")}
    texts = {suffix: path.read_text(encoding="utf-8") for suffix, path in files.items()}
    conflicts = {suffix: text.count("<<<<<<< ") for suffix, text in texts.items()}
    # Somebody must decide; here ours is kept, and the decision is made in the text, where it can be read.
    dropped = theirs.sources()[0] if conflicts[".py"] else ""
    opens = _opens(files[".ipynb"])
    return Merge(case, conflicts, opens, _first_hunk(texts[".py"]), _resolve(folder, files, dropped))


def _resolve(folder: Path, files: dict[str, Path], dropped: str) -> bool:
    """Resolve as the project's guide says: decide in the text, make the notebook from it, commit both."""
    lines = files[".py"].read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [s for s in lines if not s.startswith(("<<<<<<<", "=======", ">>>>>>>")) and s.strip() != (dropped or None)]
    files[".py"].write_text("".join(kept), encoding="utf-8")
    _git(folder, "checkout", "--ours", files[".ipynb"].name)
    text = jupytext.read(files[".py"])
    # What `jupytext --sync` does: cells from the text, outputs from the notebook where the cell is the same.
    write_notebook(files[".ipynb"], jupytext.combine.combine_inputs_with_outputs(text, read_notebook(files[".ipynb"])))
    _git(folder, "add", ".")
    _git(folder, "commit", "-q", "-m", "Merge theirs")
    return source_digest(read_notebook(files[".ipynb"])) == source_digest(text) and _runs(files[".py"])


def _runs(path: Path) -> bool:
    return subprocess.run([sys.executable, str(path)], capture_output=True, check=False).returncode == 0


def _opens(path: Path) -> bool:
    try:
        read_notebook(path)
    except JournalError:
        return False
    return True


def _first_hunk(text: str) -> str:
    start, end = text.find("<<<<<<<"), text.find(">>>>>>>")
    return "" if start < 0 else text[start : text.index("\n", end)]


def _commit(folder: Path, edit: Edit, message: str) -> None:
    notebook = edit.notebook()
    write_notebook(folder / f"{_NAME}.ipynb", notebook)
    jupytext.write(notebook, folder / f"{_NAME}.py", fmt="py:percent")
    _git(folder, "add", ".")
    _git(folder, "commit", "-q", "-m", message)


def _git(folder: Path, *arguments: str, check: bool = True) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return git(folder, *who, *arguments, check=check, env=QUIET_GIT)
