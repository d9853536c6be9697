"""Every command of the README works: each is run here, or by the test that is named beside it.

A new command in the README fails here until it stands in one of the tables, so that none goes unlooked at.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pcam.cli import build_parser
from pcam.journal.handover import readme_commands
from pcam.journal.notebooks import require_paired

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PCAM = ".venv/bin/pcam"

# Run here, in this order, in a folder that holds `pcam_data` and `my_copy`.
RUN = [
    ".venv/bin/pcam data verify pcam_data",
    ".venv/bin/pcam data pack my_copy pcam_data",
    ".venv/bin/pcam data sample sample --train 256 --valid 128 --test 128",
    ".venv/bin/pcam train mlp train.epochs=2 --data sample --runs runs",
    ".venv/bin/torchrun --nproc_per_node=2 -m pcam train mlp train.epochs=2 seed=1 --data sample",
    ".venv/bin/pcam --help",
    ".venv/bin/pcam doctor",
]
# Longer, or in need of a network, a cluster or the whole journal: asked here whether it is well formed, and run
# by the test file or the CI job named.
RUN_ELSEWHERE = {
    "make journal": ".github/workflows/ci.yml",
    "make test": ".ci/run",
    "make journal DATA=pcam_data": "tests/test_workflow.py",
    "make ablation DATA=pcam_data": "tests/test_ablation.py",
    "make sync": "tests/test_notebooks.py",
    "make clean": "tests/test_readme.py",
    "make tracking": ".github/workflows/ci.yml",
    ".venv/bin/pcam data fetch pcam_data": "tests/test_fetch.py",
    ".venv/bin/pcam audit pcam_data --out audit": "tests/test_audit_labels.py",
    ".venv/bin/pcam journal run q6": "tests/test_journal_notebooks.py",
    ".venv/bin/pcam journal status": "tests/test_publish.py",
    ".venv/bin/pcam check": "tests/test_check.py",
    ".venv/bin/pcam journal publish": "tests/test_publish.py",
    ".venv/bin/pcam track RUN …": "tests/test_tracking.py",
    ".venv/bin/pcam export RUN --out model.onnx": "tests/test_export.py",
    ".venv/bin/snakemake -s workflow/Snakefile --profile workflow/profiles/slurm --config data=pcam_data": (
        "tests/cluster/test_slurm.py"
    ),
}


def _blocks(language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [text for name, text in fences if name == language]


def _commands() -> list[str]:
    """Return the README's commands: the lines of its bash blocks, and what it sets as code in a sentence."""
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    told = re.findall(r"`((?:make|\.venv/bin/pcam)\s[^`]+)`", prose)
    return readme_commands(README) + [" ".join(command.split()) for command in told]


def test_every_command_is_known() -> None:
    unknown = set(_commands()) - set(RUN) - set(RUN_ELSEWHERE)
    assert not unknown, "say in tests/test_readme.py how these are tested"


def test_no_table_names_a_command_that_is_gone() -> None:
    assert not (set(RUN) | set(RUN_ELSEWHERE)) - set(_commands())


@pytest.mark.parametrize(("command", "where"), RUN_ELSEWHERE.items())
def test_the_file_that_runs_a_command_is_there(command: str, where: str) -> None:
    assert (ROOT / where).is_file(), f"{command} is run nowhere"


@pytest.mark.parametrize("command", [c for c in RUN_ELSEWHERE if c.startswith(PCAM)])
def test_the_command_line_takes_the_command(command: str) -> None:
    assert callable(build_parser().parse_args(shlex.split(command)[1:]).handler)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("command", [c for c in RUN_ELSEWHERE if c.startswith("make")])
def test_make_knows_the_target(command: str) -> None:
    done = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pcam_data" in done.stdout or "DATA" not in command


def test_the_commands_run_as_they_stand(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny, tmp_path / "my_copy")
    shutil.copytree(tiny, tmp_path / "pcam_data")
    for command in RUN:
        if "pack" in command:
            shutil.rmtree(tmp_path / "pcam_data")
        program, *arguments = shlex.split(command)
        module = "torch.distributed.run" if program.endswith("torchrun") else "pcam"
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        # doctor may find something wrong with this machine, which is its work
        assert done.returncode == 0 or (done.returncode == 1 and "doctor" in command), f"{command}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        if "train" in arguments:
            run = Path(tmp_path, done.stdout.splitlines()[-1])
            assert run.is_dir()
    monkeypatch.chdir(tmp_path)
    _gallery_of_the_book(run)


def _gallery_of_the_book(run: Path) -> None:
    """Run the book's example of a gallery on a run and the folder `pcam_data`."""
    page = (ROOT / "book" / "how_to_read.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    made: dict[str, Any] = {}
    exec(example.replace("runs/ID", str(run)), made)
    assert all(patch["map"] and patch["near"] for patch in made["gallery"].content["patches"])


def test_sync_makes_a_notebook_of_a_script(tmp_path: Path) -> None:
    recipe = re.search(
        r"^sync:.*\n\t@?\S*/jupytext (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert recipe, "make sync does not call jupytext"
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "q9_handover.py", tmp_path / "notebooks")
    command = f"{shlex.quote(sys.executable)} -m jupytext {recipe[1]}"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, check=True)
    require_paired(tmp_path / "notebooks" / "q9_handover.ipynb")


def test_clean_leaves_sources_and_environment(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("_work", "_build", "book/_build", "book/questions", ".venv"):
        (tmp_path / name).mkdir(parents=True)
    subprocess.run(["make", "clean"], cwd=tmp_path, capture_output=True, check=True)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"Makefile", "book", "book/questions", ".venv"}


def test_the_chapter_in_the_readme_uses_what_is_there() -> None:
    from pcam.evaluation.metrics import Metric
    from pcam.journal.chapter import Chapter

    (block,) = _blocks("python")
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    for name, attribute in used:
        owner = {"chapter": Chapter, "auc": Metric}[name]
        assert hasattr(owner, attribute) or attribute in owner.__annotations__, f"{name}.{attribute}"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_what_the_readme_links_to_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_layout_lists_what_is_there() -> None:
    (layout,) = _blocks("")
    for line in layout.splitlines():
        assert (ROOT / line.split()[0]).is_dir(), line
