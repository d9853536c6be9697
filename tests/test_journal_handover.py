"""What Q9 shows: the README looked at, the bundle used without a network, the checklist computed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pcam.errors import JournalError
from pcam.journal.handover import (
    best_run,
    planned_runs,
    project_items,
    readme_commands,
    readme_sections,
    try_commands,
    use_offline,
)
from pcam.journal.plan import Plan, PlannedRun
from pcam.storage import write_json, write_text
from pcam.training.runs import Run


def trained(folder: Path, state: str, auc: float | None) -> Run:
    write_json(folder / "status.json", {"state": state, "final": {} if auc is None else {"valid_auc": auc}})
    return Run(folder)


def test_the_best_run_is_completed_and_best_on_valid(tmp_path: Path) -> None:
    runs = [
        trained(tmp_path / "a", "completed", 0.8),
        trained(tmp_path / "b", "completed", 0.9),
        trained(tmp_path / "c", "completed", 0.9),
        trained(tmp_path / "d", "interrupted", 0.99),
        trained(tmp_path / "e", "completed", None),
    ]
    assert best_run(runs).id == "b"
    with pytest.raises(JournalError, match="no completed run; run 'make journal' first"):
        best_run(runs[3:])


def test_only_planned_runs_count(tmp_path: Path) -> None:
    trained(tmp_path / "runs" / "abc", "completed", 0.8)
    trained(tmp_path / "runs" / "stray", "completed", 0.9)
    write_json(tmp_path / "plan" / "cnn-0.json", {"name": "cnn-0", "run": "abc"})
    plan = Plan(tmp_path, tmp_path, "synthetic", {name: PlannedRun(name, "cnn", ()) for name in ("cnn-0", "cnn-1")})
    assert [run.id for run in planned_runs(plan)] == ["abc"]


def test_sections_that_are_missing_are_said_to_be() -> None:
    table = readme_sections("# Title\n\n## Real data\n\n## How to cite\n").set_index("section")
    assert table.heading["real data"] == "Real data" and table.present["what it is"] == "yes"
    assert set(table.index[table.present == "no"]) >= {"set-up", "layout", "limits"}


README = """
Not in a block: `make no`
```bash
make lint   # a comment
.venv/bin/pcam data verify pcam_data
```
```python
x = 1
```
```bash
.venv/bin/pcam data verify nowhere
.venv/bin/pcam trian cnn
no-such-program
make no-such-target
```
"""


def test_commands_are_read_and_tried(root: Path, tiny: Path, tmp_path: Path) -> None:
    table = try_commands(readme_commands(README), root, tiny, tmp_path)
    assert table.to_numpy().tolist() == [
        ["make lint", "form checked", "yes"],
        [".venv/bin/pcam data verify pcam_data", "run", "yes"],
        [".venv/bin/pcam data verify nowhere", "run", "no"],
        [".venv/bin/pcam trian cnn", "form checked", "no"],
        ["no-such-program", "program found", "no"],
        ["make no-such-target", "form checked", "no"],
    ]


def unpacked_bundle(folder: Path, code: str) -> Path:
    """Return a bundle whose package does what `code` says."""
    write_text(folder / "source" / "pcam" / "__init__.py", "")
    write_text(folder / "source" / "pcam" / "__main__.py", code)
    return folder


@pytest.mark.parametrize(
    "code",
    [
        "import socket\nsocket.create_connection(('127.0.0.1', 9))",
        "import urllib.request\nurllib.request.urlopen('http://example.org')",
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    ],
)
def test_every_connection_is_refused(tmp_path: Path, code: str) -> None:
    use = use_offline(unpacked_bundle(tmp_path, code), "anything")
    assert use.exit_code == 1 and "refused: there is no network here" in use.line


def test_the_bundles_own_package_is_used(tmp_path: Path) -> None:
    use = use_offline(unpacked_bundle(tmp_path, "import sys\nprint(sys.argv)"), "evaluate", "x y")
    assert (use.exit_code, use.line) == (0, "['pcam', 'evaluate', 'x y']")
    shutil.rmtree(tmp_path / "source")
    assert "this is not the bundle's package" in use_offline(tmp_path, "evaluate").line


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that passes every item."""
    files = {
        "CITATION.cff": "repository-code: https://example.org/pcam\nauthors: [{name: Ada L, alias: s123}]\n",
        "workflow/profiles/slurm/config.yaml": "executor: slurm\n",
        "README.md": "![cover](docs/a.png)\n",
        "docs/a.png": "x",
        "book/index.md": "By Ada L (s123).\n",
        "_config.yml": "title: Book\n",
    }
    for name, text in files.items():
        write_text(tmp_path / name, text)
    return tmp_path


def test_a_project_that_is_ready(project: Path) -> None:
    assert [(item.item, item.done) for item in project_items(project)] == [
        ("repository link", True),
        ("Slurm files", True),
        ("relative image paths", True),
        ("names and ids on the first page", True),
    ]


@pytest.mark.parametrize(
    ("item", "file", "text", "found"),
    [
        ("repository link", "CITATION.cff", "authors: []\n", "none; add repository-code to CITATION.cff"),
        ("Slurm files", "workflow/profiles/slurm/config.yaml", "cores: 1\n", "workflow/profiles/slurm/config.yaml"),
        ("relative image paths", "README.md", "![c](/home/me/a.png)\n", "README.md: /home/me/a.png"),
        ("relative image paths", "README.md", "![c](docs/gone.png)\n", "README.md: docs/gone.png"),
        ("relative image paths", "book/index.md", '<img src="https://x.org/a.png">', "index.md: https://x.org/a.png"),
        ("names and ids on the first page", "book/index.md", "By Ada L.\n", "Ada L (on the cover, s123)"),
        ("names and ids on the first page", "book/index.md", "By us.\n", "Ada L (not on the cover, s123)"),
        ("names and ids on the first page", "CITATION.cff", "title: x\n", "no author in CITATION.cff"),
    ],
)
def test_what_is_missing_is_said(project: Path, item: str, file: str, text: str, found: str) -> None:
    write_text(project / file, text)
    line = next(line for line in project_items(project) if line.item == item)
    assert (line.done, line.found) == (False, found)
