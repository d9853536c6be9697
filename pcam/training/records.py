"""What run records hold, counted: tables for people who ask how a number is backed."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pcam.config import config_hash, config_leaves
from pcam.storage import make_folder, sha256_file
from pcam.training.runs import MODEL_FILE, Run

if TYPE_CHECKING:
    import pandas as pd


def record_table(run: Run) -> pd.DataFrame:
    """List what a completed run's folder holds.

    Returns:
        One row per kind of evidence: evidence, file, holds, present.
    """
    import pandas as pd

    environment, splits = run.environment, run.data["splits"]
    checkpoints = sorted(path.parent.name for path in (run.path / "checkpoints").glob("*/SHA256SUMS"))
    commit = environment["commit"]
    states = {True: ", with changes not committed", False: ", clean", None: ""}
    sizes = ", ".join(f"{name} {record['n']:,}" for name, record in splits.items())
    rows = [
        ("configuration", "config.yaml", f"{len(config_leaves(run.config))} settings"),
        ("data", "data.json", f"counts and fingerprints: {sizes}"),
        (
            "code",
            "environment.json",
            f"hash of the training code; commit {(commit or 'none')[:10]}{states[environment['dirty']]}",
        ),
        (
            "environment",
            "environment.json",
            f"{len(environment['versions'])} versions, processor, threads, seeds, lock",
        ),
        ("metrics", "metrics.jsonl", f"{len(run.steps):,} steps, {len(run.epochs)} epochs"),
        ("checkpoints", "checkpoints", f"the last {len(checkpoints)}, each with SHA-256"),
        ("model", MODEL_FILE, f"SHA-256 {'as recorded' if model_is_intact(run) else 'NOT as recorded'}"),
        ("outcome", "status.json", f"{run.state}; metrics of the epoch whose model is kept"),
    ]
    table = pd.DataFrame(rows, columns=["evidence", "file", "holds"])
    table["present"] = ["yes" if (run.path / name).exists() else "no" for name in table["file"]]
    return table


def model_is_intact(run: Run) -> bool:
    """Whether the model file has the SHA-256 that the run recorded."""
    return sha256_file(run.path / MODEL_FILE) == run.sha256


def settings_count(run: Run) -> int:
    """Number of settings that decide a run."""
    return len(config_leaves(run.config))


def logged_values(runs: Sequence[Run]) -> int:
    """Number of numbers in the metric logs of some runs."""
    rows = [row for run in runs for row in run.steps + run.epochs]
    return sum(len(row) - 1 for row in rows)  # each row also says its kind


def lookalikes(runs: Sequence[Run], decimals: int = 2) -> int:
    """Count pairs of different configurations whose printed result, "accuracy 0.83", is the same.

    Args:
        runs: completed runs.
        decimals: digits that a person prints.
    """
    printed = [(round(run.final["valid_accuracy"], decimals), config_hash(run.config)) for run in runs]
    pairs = [(a, b) for i, a in enumerate(printed) for b in printed[i + 1 :]]
    return sum(a[0] == b[0] and a[1] != b[1] for a, b in pairs)


def rows_kept_in_one_file(folder: Path | str, writers: int) -> int:
    """Let several writers add their row to one shared results file, as notebooks do: read, append, write back.

    All of them read before any of them writes, as happens when runs end at the same time.

    Returns:
        How many of the `writers` rows are in the file at the end.
    """
    path = make_folder(Path(folder)) / "results.json"
    path.write_text("[]")
    everyone_has_read = threading.Barrier(writers)
    one_at_a_time = threading.Lock()

    def add(number: int) -> None:
        rows = json.loads(path.read_text())
        everyone_has_read.wait()
        with one_at_a_time:
            path.write_text(json.dumps([*rows, {"run": number}]))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(json.loads(path.read_text()))
