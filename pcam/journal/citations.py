"""The runs that evidence cites: where they lie, and what of them is kept beside an executed chapter."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from pcam.errors import JournalError
from pcam.storage import write_bytes
from pcam.training.runs import RECORD_FILES, Run


def cited_run(work: Path, run: str) -> Run:
    """Return a cited run, in whatever state: one of the journal's, or one that a chapter made for itself.

    Raises:
        JournalError: there is none.
    """
    for pattern in (f"runs/{run}", f"executed/runs/*/{run}", f"scratch/**/{run}"):
        for status in sorted(work.glob(f"{pattern}/status.json")):
            return Run(status.parent)
    raise JournalError(f"run {run} is cited but not in {work / 'runs'}; run the chapter that cites it again")


def keep_cited_runs(work: Path, chapter: str, cited: Iterable[str]) -> None:
    """Keep the records of the runs that an executed chapter made for itself, and none of an earlier execution.

    Whoever runs the chapter by hand empties its scratch folder, and a run that chance decides never gets its name
    again.

    Args:
        work: the journal's work folder.
        chapter: its name.
        cited: ids of the runs that its evidence cites.

    Raises:
        JournalError: one of them is nowhere.
        StorageError: a record cannot be written.
    """
    folder = work / "executed" / "runs" / chapter
    if folder.exists():
        shutil.rmtree(folder)
    for name in cited:
        run = cited_run(work, name)
        if not run.path.is_relative_to(work / "runs"):
            for file in RECORD_FILES:
                write_bytes(folder / name / file, (run.path / file).read_bytes())
