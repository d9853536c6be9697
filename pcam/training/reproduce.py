"""A run made again from its record alone, in a fresh process, and compared with the first bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pcam.errors import RunError
from pcam.storage import make_folder
from pcam.training.runs import Run, open_run


@dataclass(frozen=True)
class Reproduction:
    """What two runs of one record have in common.

    Attributes:
        same_name: both have the same id, so config, data and code are the same.
        sha256: of the first run's weights and of the second's.
        rows: number of rows (steps and epochs) that the first run logged.
        equal_rows: how many of them the second logged identically, times excepted.
        same_scores: the last epoch's metrics are equal to the last bit.
    """

    same_name: bool
    sha256: tuple[str, str]
    rows: int
    equal_rows: int
    same_scores: bool

    @property
    def identical(self) -> bool:
        """Whether weights, every logged row and the final metrics are the same."""
        return self.sha256[0] == self.sha256[1] and self.rows == self.equal_rows and self.same_scores


def reproduce(run: Run, folder: Path | str, data_dir: Path | str | None = None) -> Reproduction:
    """Train a completed run again from its config.yaml, data.json and environment.json.

    Args:
        run: a completed run.
        folder: where the second run may be kept while it lasts; it is removed afterwards.
        data_dir: where the data are now; None: where the record says they were.

    Raises:
        RunError: the second run fails; the message holds its last line.
    """
    threads = str(run.environment["controls"]["threads"])
    # The thread count decides the order of floating-point sums, so it is part of the record.
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with tempfile.TemporaryDirectory(dir=make_folder(Path(folder))) as runs:
        data = str(data_dir or run.data["directory"])
        command = [sys.executable, "-m", "pcam", "train", str(run.path / "config.yaml"), "--data", data, "--runs", runs]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
            raise RunError(f"run {run.id} cannot be made again: {last}")
        return compare_runs(run, open_run(done.stdout.strip().splitlines()[-1]))


def compare_runs(first: Run, second: Run) -> Reproduction:
    """Compare the records of two completed runs."""
    rows, again = first.timeless_rows, second.timeless_rows
    equal = sum(one == other for one, other in zip(rows, again, strict=False))
    ends = [{key: value for key, value in run.final.items() if key != "seconds"} for run in (first, second)]
    return Reproduction(
        same_name=first.id == second.id,
        sha256=(first.sha256, second.sha256),
        rows=max(len(rows), len(again)),
        equal_rows=equal,
        same_scores=ends[0] == ends[1],
    )
