"""What a journal stands on: its data folder, its work folder, and the runs that its chapters cite.

The plan (`configs/journal.yaml`) names runs such as `cnn-0`; each is a preset with overrides, and on the
synthetic sample, where a chapter only shows how it is done, further overrides make it small.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from pcam.config import Config, load_config, parse_yaml, preset_names, project_root
from pcam.data.format import SAMPLE_MARKER, available_splits, data_kind
from pcam.errors import ConfigError, DataError, JournalError, clip, did_you_mean
from pcam.storage import ClaimedError, claim, write_json

if TYPE_CHECKING:
    from pcam.training import Run

_WAIT_SECONDS = 0.5


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    preset: str
    set: list[str]


class _PlanFile(BaseModel):
    """`configs/journal.yaml`: runs by name, and by preset what makes them small on the synthetic sample."""

    model_config = ConfigDict(extra="forbid", strict=True)
    runs: dict[str, _Entry]
    synthetic: dict[str, list[str]]


@dataclass(frozen=True)
class PlannedRun:
    """A named run: a preset and the overrides on top of it."""

    name: str
    preset: str
    overrides: tuple[str, ...]

    def config(self) -> Config:
        """Return the run's config."""
        return load_config(self.preset, self.overrides)


@dataclass(frozen=True)
class Plan:
    """A journal's folders and planned runs.

    Attributes:
        data_dir: the data folder.
        work: everything generated goes below it.
        kind: "synthetic" or "real".
        runs: planned runs by name.
    """

    data_dir: Path
    work: Path
    kind: str
    runs: dict[str, PlannedRun]

    @property
    def option(self) -> str:
        """What a `pcam` command needs to mean this journal, such as " --data DIR"; empty for the sample's own."""
        return "" if self.work.name == "sample" else f" --data {shlex.quote(str(self.data_dir))}"

    def planned(self, name: str) -> PlannedRun:
        """Return a planned run by its name.

        Raises:
            JournalError: the plan has no such run.
        """
        if name not in self.runs:
            raise JournalError(f"configs/journal.yaml plans no run '{name}'{did_you_mean(name, self.runs)}")
        return self.runs[name]

    def run(self, name: str, *, progress: bool = False) -> Run:
        """Return the completed run of that name, training it first if need be.

        When another process is at work on it, wait for that one. An interrupted run is continued: its
        record says so, and its bits are those of an uninterrupted one.

        Raises:
            JournalError: the plan has no such run.
            RunError: the run cannot be trained, was interrupted again, or has lost its model file.
        """
        from pcam.training import train
        from pcam.training.runs import check_model
        from pcam.training.stop import Interrupted

        config = self.planned(name).config()
        try:
            run = train(config, self.data_dir, self.work / "runs", resume=True, wait=True, progress=progress)
        except Interrupted as error:  # it names an option of `pcam train`
            error.args = (f"{str(error).rpartition('; ')[0]}; the same command again continues it",)
            raise
        check_model(run)
        write_json(self.work / "plan" / f"{name}.json", {"name": name, "run": run.id})
        return run


def work_root() -> Path:
    """Return the folder of all generated things: `$PCAM_WORK`, else `_work` in the project."""
    return Path(os.environ.get("PCAM_WORK") or project_root() / "_work").resolve()


def open_plan(data_dir: Path | str | None = None, root: Path | str | None = None, *, make: bool = True) -> Plan:
    """Open the journal of a data folder; without one, that of the synthetic sample, which is made if need be.

    Args:
        data_dir: a folder of PCam-format files; None or empty: the sample.
        root: the folder of generated things; None or empty: `work_root()`.
        make: make a sample that is missing; without it only its place is named.

    Raises:
        DataError: the folder holds no PCam files.
        ConfigError: the plan is not well formed.
    """
    root = Path(root).resolve() if root else work_root()
    if data_dir:
        folder = Path(data_dir).resolve()
        available_splits(folder)
        work = root / f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    else:
        work = root / "sample"
        folder = _sample(work) if make else work / "data"
    kind = data_kind(folder) if data_dir else "synthetic"
    return Plan(folder, work, kind, _planned_runs(kind))


def _sample(work: Path) -> Path:
    from pcam.data.synthetic import write_sample

    # Several chapters may start at once; one of them makes the sample, the others wait for it.
    while True:
        try:
            with claim(work / "sample.claim"):
                try:
                    return write_sample(work / "data")
                except DataError:
                    # The journal's own sample, by an older generator or damaged, is made anew; anything else stays.
                    if not (work / "data" / SAMPLE_MARKER).is_file():
                        raise
                    shutil.rmtree(work / "data")
                    return write_sample(work / "data")
        except ClaimedError as error:
            if not error.alive:
                raise
            time.sleep(_WAIT_SECONDS)


def _planned_runs(kind: str) -> dict[str, PlannedRun]:
    path = project_root() / "configs" / "journal.yaml"
    try:
        plan = _PlanFile.model_validate(parse_yaml(path.read_text(encoding="utf-8"), str(path)))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = clip(".".join(map(str, problem["loc"]))) or "all of it"
        mend = "write a run as 'cnn-0: {preset: cnn, set: [seed=0]}'"
        raise ConfigError(f"{path}: '{where}': {problem['msg']}; {mend}") from error
    for preset in plan.synthetic:
        if preset not in preset_names():
            raise ConfigError(
                f"{path}: synthetic: unknown preset '{clip(preset)}'{did_you_mean(preset, preset_names())}"
            )
    small = plan.synthetic if kind == "synthetic" else {}
    return {
        name: PlannedRun(name, entry.preset, (*small.get(entry.preset, ()), *entry.set))
        for name, entry in plan.runs.items()
    }
