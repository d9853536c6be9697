"""Imports point one way, and what must answer at once does not load torch."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "pcam"

# A part may import from its own level's listed parts and from any lower level, never from a higher one.
LEVELS = [
    {"errors"},
    {"storage", "config"},
    {"provenance"},
    {"data", "models"},
    {"training"},
    {"evaluation"},
    {"audit", "benchmark"},
    {"journal"},
    {"verbs"},
    {"cli"},
]
RANK = {part: rank for rank, level in enumerate(LEVELS) for part in level}


def imported_parts(path: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "pcam" else [f"pcam.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        parts |= {name.split(".")[1] for name in names if name.startswith("pcam.") and "." in name}
    return parts & RANK.keys()


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


MODULES = sorted(p for p in PACKAGE.rglob("*.py") if part_of(p) in RANK)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    here = part_of(path)
    upward = {part for part in imported_parts(path) if RANK[part] > RANK[here]}
    assert not upward, f"pcam.{here} imports from {sorted(upward)}, which stand above it"


def test_every_part_has_a_level() -> None:
    parts = {part_of(p) for p in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert parts == RANK.keys()


LIGHT = [
    "import pcam; pcam.data.open_split, pcam.training.list_runs, pcam.storage.write_json",
    "import pcam.cli; pcam.cli.build_parser().format_help()",
    "import pcam.config, pcam.storage, pcam.data",
    "import pcam.evaluation",
    "import pcam.journal.check, pcam.journal.stage, pcam.journal.publish, pcam.journal.notebooks",
]


@pytest.mark.parametrize("statement", LIGHT)
def test_no_torch(statement: str) -> None:
    code = f"{statement}\nimport sys\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["pcam.evaluation", "pcam.journal", "pcam.training"])
def test_every_listed_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    assert all(callable(getattr(module, name)) for name in module.__all__)
