"""What the Snakefile asks: which code and which runs a job depends on, by content and not by date.

A checkout, a publish or a `touch` changes dates and nothing else; so jobs depend on digests of what was written.
"""

from __future__ import annotations

import atexit
import hashlib
from contextlib import ExitStack
from pathlib import Path

from pcam.config import project_root
from pcam.journal.notebooks import chapter_source, read_notebook, source_digest
from pcam.journal.plan import Plan
from pcam.journal.questions import QUESTIONS
from pcam.storage import claim

# What can change a job's result. Left out are the parts that only show or pack results.
SAMPLE_CODE = (
    "data/synthetic.py",
    "data/sampler.py",
    "data/tissue.py",
    "data/stain.py",
    "data/nuclei.py",
    "data/defects.py",
)
CHAPTER_CODE = (
    *("*.py", "data", "models", "training", "evaluation", "audit", "benchmark"),
    *("journal/chapter.py", "journal/evidence.py", "journal/plan.py", "journal/questions.py", "journal/notebooks.py"),
    *("journal/check.py", "journal/citations.py", "journal/history.py", "journal/handover.py", "journal/bundle.py"),
    *("journal/conflict.py", "journal/doctor.py", "journal/gates.py", "journal/packages.py"),
)
BOOK_CODE = ("journal/stage.py", "journal/fragments.py")


def code_digest(*parts: str) -> str:
    """Return the SHA-256 of package sources: files, globs or folders relative to the package."""
    package = Path(__file__).resolve().parent.parent
    files: set[Path] = set()
    for part in parts:
        for found in package.glob(part):
            files |= {p for p in found.rglob("*") if p.suffix in (".py", ".js", ".css")} if found.is_dir() else {found}
    return _digest({str(path.relative_to(package)): path for path in files})


def pages_digest() -> str:
    """Return the SHA-256 of the book's own pages and settings; what is generated or published is left out."""
    root = project_root()
    skip = {"_generated", "questions", "evidence", "_build"}
    pages = {p for p in (root / "book").rglob("*") if p.is_file() and p.relative_to(root / "book").parts[0] not in skip}
    return _digest({str(p.relative_to(root)): p for p in {*pages, root / "_config.yml", root / "_toc.yml"}})


def _digest(files: dict[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def chapter_digest(name: str) -> str:
    """Return the SHA-256 of a chapter's cells; outputs, which publishing changes, play no part."""
    return source_digest(read_notebook(chapter_source(QUESTIONS[name])))


def runs_of(name: str, plan: Plan) -> list[str]:
    """Return the planned runs that a chapter's cells name, in the plan's order.

    A run counts as named where it stands whole (`"cnn-0"`) or as the start of an f-string (`f"cnn-{seed}"`). A
    run that this misses is no harm: the chapter trains it itself.
    """
    text = chapter_source(QUESTIONS[name]).with_suffix(".py").read_text(encoding="utf-8")
    return [run for run in plan.runs if f'"{run}"' in text or f'"{run.rpartition("-")[0]}-{{' in text]


def ablation_digest(name: str, plan: Plan) -> str:
    """Return the SHA-256 of what `make ablation` has measured, for the chapter that shows it; empty for the others."""
    if "ablation" not in chapter_source(QUESTIONS[name]).with_suffix(".py").read_text(encoding="utf-8"):
        return ""
    return _digest({path.name: path for path in (plan.work / "ablation").glob("*.json")})


def hold(work: Path) -> None:
    """Claim a journal's work folder for the rest of this process, so that two `make journal` never mix.

    Raises:
        ClaimedError: another process is at work on it. The claim of one that was killed is taken over.
    """
    held = ExitStack()
    held.enter_context(claim(work / "journal.claim"))
    atexit.register(held.close)
