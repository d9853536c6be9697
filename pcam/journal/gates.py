"""What continuous integration stops, shown: each gate is run on a clean copy and on one with a planted fault.

A gate that never failed proves nothing. Here each passes first, then a fault of the kind that it is there for is
planted in a copy of the project, and the gate must fail and say so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pandas as pd
from nbformat.v4 import new_code_cell, new_notebook, new_output

from pcam.config import parse_yaml

_COPIED = ("pcam", "configs", "pyproject.toml", "tests/conftest.py", "tests/test_imports.py", "tests/test_config.py")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # nbval and Sphinx colour their output whatever NO_COLOR says
_SETTINGS = "title: Book\nauthor: A\nexecute: {execute_notebooks: 'off'}\n"
_ANSWERS = 'chapter.answer("1", "{text}")\nchapter.answer("2", "See {{b}}.")\n'


@dataclass(frozen=True)
class Gate:
    """A check of CI.

    Attributes:
        name: as people call it.
        tool: the module that must be installed.
        command: its arguments after `python -m`.
        fault: the planted fault, in words.
        files: file → (clean content, broken content); None for a clean content: the file as it is, with the
            broken content appended.
        tells: what the failing gate must say.
    """

    name: str
    tool: str
    command: tuple[str, ...]
    fault: str
    files: dict[str, tuple[str | None, str]]
    tells: str


@dataclass(frozen=True)
class Trial:
    """What a gate did: exit codes on the clean and on the broken copy, and the line that names the fault."""

    gate: Gate
    clean: int | None
    broken: int | None
    line: str

    @property
    def verdict(self) -> str:
        """ "stopped" if the clean copy passed and the fault did not; "not installed" if the tool is missing."""
        if self.clean is None:
            return "not installed"
        if self.clean:
            return "fails without a fault"
        return "stopped" if self.broken and self.line else "let through"


def _notebook(value: str, count: int | None = 1) -> str:
    """Return a notebook of one cell that shows `value`, as it is stored; never executed if `count` is None."""
    cell = new_code_cell("6 * 7", execution_count=count)
    cell["id"] = "answer"
    if count is not None:
        cell["outputs"] = [new_output("execute_result", data={"text/plain": value}, execution_count=count)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return str(nbformat.writes(new_notebook(cells=[cell], metadata={"kernelspec": kernel}))) + "\n"


def _chapter(text: str) -> str:
    return textwrap.dedent("# %% [markdown]\n# # A chapter\n\n# %%\n") + _ANSWERS.format(text=text)


GATES: tuple[Gate, ...] = (
    Gate(
        "lint",
        "ruff",
        ("ruff", "check", "--no-cache", "pcam/errors.py"),
        "a name that is not defined",
        {"pcam/errors.py": (None, "\n\ndef planted() -> str:\n    return nowhere_defined\n")},
        "Undefined name",
    ),
    Gate(
        "types",
        "mypy",
        ("mypy", "--config-file=", f"--cache-dir={os.devnull}", "pcam/errors.py"),
        "a function that returns another type than it says",
        {"pcam/errors.py": (None, '\n\ndef planted() -> int:\n    return "many"\n')},
        "Incompatible return value type",
    ),
    Gate(
        "imports point one way",
        "pytest",
        ("pytest", "-q", "-p", "no:cacheprovider", "tests/test_imports.py", "-k", "one_way and errors"),
        "a lower part that imports from a higher one",
        {"pcam/errors.py": (None, "\n\nimport pcam.journal.plan\n")},
        "which stand above it",
    ),
    Gate(
        "unit tests",
        "pytest",
        ("pytest", "-q", "-p", "no:cacheprovider", "tests/test_config.py", "-k", "hash"),
        "a config hash that forgets the seed",
        {"pcam/config.py": (None, '\n\ndef config_hash(config: Config) -> str:\n    return f"{0:064}"\n')},
        "FAILED tests/test_config.py",
    ),
    Gate(
        "numbers are bound",
        "pcam",
        ("pcam", "check", "--journal", "q4_gradients.py"),
        "a number typed into an answer",
        {"q4_gradients.py": (_chapter("It is {a}."), _chapter("It is 0.95."))},
        "is typed by hand",
    ),
    Gate(
        "notebooks say the same",
        "nbval",
        ("pytest", "-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env", "changed.ipynb"),
        "a stored number that the code does not give",
        {"changed.ipynb": (_notebook("42"), _notebook("41"))},
        "FAILED changed.ipynb",
    ),
    Gate(
        "the book builds",
        "jupyter_book",
        ("jupyter_book.cli.main", "build", "mini", "--all", "-W", "--keep-going", "--quiet"),
        "a page that the table of contents names and nobody wrote",
        {
            "mini/_config.yml": (_SETTINGS, _SETTINGS),
            "mini/_toc.yml": (
                "format: jb-book\nroot: index\n",
                "format: jb-book\nroot: index\nchapters:\n- file: gone\n",
            ),
            "mini/index.md": ("# Book\n", "# Book\n"),
        },
        "gone",
    ),
)


def try_gates(root: Path, folder: Path, gates: Iterable[Gate] = GATES) -> list[Trial]:
    """Run each gate on a clean copy and on one with its fault.

    Args:
        root: the project.
        folder: the copies are made in it; it must be new or empty.
        gates: which.
    """
    for name in _COPIED:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (root / name).is_dir():
            shutil.copytree(root / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif (root / name).exists():
            shutil.copy(root / name, target)
    (folder / "notebooks").mkdir(exist_ok=True)  # by which the package knows its project
    return [_try(gate, folder) for gate in gates]


def _try(gate: Gate, folder: Path) -> Trial:
    if find_spec(gate.tool) is None:
        return Trial(gate, None, None, "")
    before = {name: (folder / name).read_text() if clean is None else clean for name, (clean, _) in gate.files.items()}
    broken = {name: before[name] + new if clean is None else new for name, (clean, new) in gate.files.items()}
    clean_code, _ = _run(gate, folder, before)
    broken_code, output = _run(gate, folder, broken)
    for name, text in before.items():
        (folder / name).write_text(text, encoding="utf-8")
    lines = (_COLOUR.sub("", text).strip(" >E") for text in output.splitlines())
    line = next((text for text in lines if gate.tells in text), "")
    return Trial(gate, clean_code, broken_code, line.replace(f"{folder}/", ""))


def _run(gate: Gate, folder: Path, files: dict[str, str]) -> tuple[int, str]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    # Of this copy and nothing else: neither the caller's options nor colours may change what a gate does.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "MYPY", "RUFF_"))}
    environment |= {"PYTHONPATH": str(folder), "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    start = [sys.executable, "-m", *gate.command]
    if gate.command[0].endswith(".main"):
        start = [sys.executable, "-c", f"from {gate.command[0]} import main; main()", *gate.command[1:]]
    done = subprocess.run(
        start, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return done.returncode, done.stdout


def as_table(trials: list[Trial]) -> pd.DataFrame:
    """Return one row a gate: gate, planted fault, exit codes without and with it, verdict."""
    rows = [(t.gate.name, t.gate.fault, t.clean, t.broken, t.verdict) for t in trials]
    return pd.DataFrame(rows, columns=["gate", "planted fault", "exit without", "exit with", "verdict"])


def workflow_jobs(root: Path) -> pd.DataFrame:
    """Return what CI runs, read from the workflow's own file: columns job, purpose, commands.

    Empty where there is no `.github/workflows/ci.yml`.
    """
    path = root / ".github" / "workflows" / "ci.yml"
    rows = []
    if path.exists():
        for job, entry in parse_yaml(path.read_text(encoding="utf-8"), str(path))["jobs"].items():
            commands = [step["run"].strip() for step in entry["steps"] if "run" in step]
            rows.append((job, entry.get("name", job), "; ".join(commands) or "actions only"))
    return pd.DataFrame(rows, columns=["job", "purpose", "commands"])
