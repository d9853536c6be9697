"""What Q9 shows: can somebody else read, run and judge the work from what is handed over?

The README's sections and commands, the bundle's use where there is no network, and the submission checklist are
all computed from the files themselves.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pcam.config import parse_yaml
from pcam.errors import JournalError
from pcam.journal.history import git
from pcam.journal.plan import Plan
from pcam.storage import read_json
from pcam.training.runs import Run

SECTIONS = {
    "what it is": r"^# .+",
    "set-up": r"^## .*(commands|set-up|install)",
    "real data": r"^## .*data",
    "what each chapter shows": r"^## .*chapters? shows?",
    "how to write one's own answers": r"^## .*own answers",
    "on a cluster": r"^## .*cluster",
    "layout": r"^## .*layout",
    "limits": r"^## .*limits",
    "how to cite": r"^## .*cite",
}
MAKE_IT = "run 'make journal' first, with DATA=DIR for other data than the sample"
# Quick ones, which need neither a network nor the whole journal; the others are asked whether they are well formed.
_RUN_HERE = ("--help", "doctor", "data verify", "journal status")
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)|<img[^>]+src=\"([^\"]+)|^:::+\{(?:figure|image)\} (\S+)", re.MULTILINE)
# Any connection is refused inside this process, whatever asks for it; and it must be the bundle's own package.
_OFFLINE = """
import runpy, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise OSError("refused: there is no network here")
sys.addaudithook(refuse)
import pcam
if not pcam.__file__.startswith(sys.argv[1]):
    sys.exit(f"this is not the bundle's package: {pcam.__file__}")
sys.argv[:2] = ["pcam"]
runpy.run_module("pcam", run_name="__main__")
"""


def best_run(runs: Iterable[Run]) -> Run:
    """Return the completed run with the best ROC-AUC on valid; the first of equals.

    Raises:
        JournalError: none is completed.
    """
    scored = [run for run in runs if run.state == "completed" and run.final.get("valid_auc") is not None]
    if not scored:
        raise JournalError(f"no completed run; {MAKE_IT}")
    return max(scored, key=lambda run: float(run.final["valid_auc"]))


def planned_runs(plan: Plan) -> list[Run]:
    """Return the planned runs that were trained, in the plan's order; what else lies in the folder is left out."""
    pointers = [plan.work / "plan" / f"{name}.json" for name in plan.runs]
    return [Run(plan.work / "runs" / str(read_json(p, "plan entry")["run"])) for p in pointers if p.exists()]


def readme_sections(text: str) -> pd.DataFrame:
    """Return columns section, heading, present: what a README must tell, and where it does."""
    rows = []
    for section, pattern in SECTIONS.items():
        found = re.search(pattern, text, re.MULTILINE | re.IGNORECASE)
        rows.append((section, found.group(0).lstrip("# ") if found else "", "yes" if found else "no"))
    return pd.DataFrame(rows, columns=["section", "heading", "present"])


def readme_commands(text: str) -> list[str]:
    """Return the commands of a README's bash blocks, without their comments."""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


def try_commands(commands: list[str], root: Path, data_dir: Path, folder: Path) -> pd.DataFrame:
    """Run the quick commands, and ask of the others whether they are well formed.

    Args:
        commands: as `readme_commands` returns them.
        root: the project.
        data_dir: what stands for the reader's data; commands find it as `pcam_data`.
        folder: where the commands are run; it must exist.

    Returns:
        Columns command, how, passed. `how` is "run", "form checked" or, for other programs, "program found".
    """
    (folder / "pcam_data").symlink_to(data_dir, target_is_directory=True)
    rows = [(command, *_try_command(shlex.split(command), root, folder)) for command in commands]
    return pd.DataFrame(rows, columns=["command", "how", "passed"]).replace({True: "yes", False: "no"})


def _try_command(words: list[str], root: Path, folder: Path) -> tuple[str, bool]:
    program, arguments = Path(words[0]).name, words[1:]
    if program == "pcam" and " ".join(arguments).startswith(_RUN_HERE):
        done = subprocess.run([sys.executable, "-m", "pcam", *arguments], cwd=folder, capture_output=True, check=False)
        # The doctor's exit code is about the machine.
        return "run", done.returncode == 0 or (arguments == ["doctor"] and done.returncode == 1)
    if program == "pcam":
        return "form checked", _parses(arguments)
    if program == "make":
        done = subprocess.run([*words, "--dry-run"], cwd=root, capture_output=True, check=False)
        return "form checked", done.returncode == 0
    found = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
    return "program found", found is not None


def _parses(arguments: list[str]) -> bool:
    """Return whether the command line takes these arguments; asked of a process, as the parser stands above here."""
    code = "import sys; from pcam.cli import build_parser; build_parser().parse_args(sys.argv[1:])"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class OfflineUse:
    """What came of a command from the bundle's own source: its `exit_code`, and the last line that it printed."""

    exit_code: int
    line: str


def use_offline(unpacked: Path, *arguments: str) -> OfflineUse:
    """Run `pcam ARGUMENTS` from an unpacked bundle's source, in a process in which every connection is refused.

    Args:
        unpacked: the folder of the bundle.
        arguments: such as `"evaluate", "model/ID", "--data", DIR, …`; paths may be relative to the bundle.
    """
    source = (unpacked / "source").resolve()
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", _OFFLINE, str(source), *arguments]
    done = subprocess.run(
        command, cwd=unpacked, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return OfflineUse(done.returncode, (done.stdout.strip().splitlines() or [""])[-1])


@dataclass(frozen=True)
class Item:
    """One line of the submission checklist: the `item`, whether it is `done`, and what was `found`."""

    item: str
    done: bool
    found: str


def project_items(root: Path) -> list[Item]:
    """Return the checklist's items that the project's files decide."""
    return [_repository_link(root), _slurm_files(root), _image_paths(root), _names(root)]


def as_table(items: list[Item]) -> pd.DataFrame:
    """Return columns item, done, found."""
    rows = [(i.item, "yes" if i.done else "no", i.found) for i in items]
    return pd.DataFrame(rows, columns=["item", "done", "found"])


def _citation(root: Path) -> dict[str, object]:
    path = root / "CITATION.cff"
    return dict(parse_yaml(path.read_text(encoding="utf-8"), str(path))) if path.exists() else {}


def _repository_link(root: Path) -> Item:
    link = str(_citation(root).get("repository-code") or "")
    with suppress(JournalError):  # no git: then only the citation can name it
        link = link or git(root, "remote", "get-url", "origin", check=False).strip()
    missing = "none; add repository-code to CITATION.cff"
    return Item("repository link", link.startswith(("https://", "git@", "ssh://")), link or missing)


def _slurm_files(root: Path) -> Item:
    path = root / "workflow" / "profiles" / "slurm" / "config.yaml"
    if not path.exists():
        return Item("Slurm files", False, f"{path.relative_to(root)} is missing")
    profile = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    return Item("Slurm files", profile.get("executor") == "slurm", str(path.relative_to(root)))


def _image_paths(root: Path) -> Item:
    """Check that every picture of README and book is named by a relative path at which there is a file."""
    pages = [root / "README.md", *sorted((root / "book").rglob("*.md"))]
    images = [(page, next(filter(None, found))) for page in pages for found in _IMAGE.findall(page.read_text("utf-8"))]
    bad = [f"{page.name}: {image}" for page, image in images if not _is_relative_file(page, image)]
    return Item("relative image paths", not bad, bad[0] if bad else f"{len(images)} images, all relative and there")


def _is_relative_file(page: Path, image: str) -> bool:
    return not image.startswith(("/", "file:", "http:", "https:")) and (page.parent / image).exists()


def _names(root: Path) -> Item:
    """Check that the first page names every author of CITATION.cff, with an id where the citation gives one."""
    authors = _citation(root).get("authors") or []
    cover = (root / "book" / "index.md").read_text("utf-8") + (root / "_config.yml").read_text("utf-8")
    lines, complete = [], bool(authors)
    for author in authors if isinstance(authors, list) else []:
        name = str(author.get("name") or f"{author.get('given-names', '')} {author.get('family-names', '')}".strip())
        identity = str(author.get("orcid") or author.get("alias") or "")
        shown = name.lower() in cover.lower()
        complete &= shown and bool(identity) and identity in cover
        lines.append(f"{name} ({'on' if shown else 'not on'} the cover, {identity or 'no id'})")
    return Item("names and ids on the first page", complete, "; ".join(lines) or "no author in CITATION.cff")
