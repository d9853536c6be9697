"""A study's journal file: opened, read, and shared by several processes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING

from pcam.errors import StorageError
from pcam.storage import writing
from pcam.training.outcome import Trial

if TYPE_CHECKING:
    import optuna

_WRITE_SECONDS = 1.0  # a line takes far less


def open_study(journal: Path) -> optuna.Study:
    """Open or create the study of a journal file, which has the file's name.

    Raises:
        StorageError: the file cannot be read, is damaged or holds another study.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with writing(journal):
            storage = JournalStorage(JournalFileBackend(str(journal)))
            others = {study.study_name for study in storage.get_all_studies()} - {journal.stem}
            if others:
                raise StorageError(
                    f"{journal}: this is the journal of another search ({', '.join(sorted(others))}); give it its own "
                    "name again, or remove it"
                )
            name = journal.stem
            return optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise StorageError(
            f"{journal}: the study's journal is damaged ({type(error).__name__}: {error}); remove it: the runs are "
            "kept, and the same search finds them done"
        ) from error


def as_trial(number: int, frozen: optuna.trial.FrozenTrial) -> Trial:
    complete = frozen.state.name == "COMPLETE"  # of a pruned trial Optuna calls its last epoch the value
    curve = [frozen.intermediate_values[epoch] for epoch in sorted(frozen.intermediate_values)]
    value = frozen.value if complete else None
    run = frozen.user_attrs.get("run") if complete else None
    return Trial(number, dict(frozen.params), value, run, frozen.state.name.lower(), curve)


def cut_half_line(journal: Path) -> None:
    """Remove the half line that a process killed while it wrote has left; what is appended next would spoil both."""
    for _ in range(2):
        with writing(journal):
            content = journal.read_bytes() if journal.exists() else b""
        if content.endswith(b"\n") or not content:
            return
        time.sleep(_WRITE_SECONDS)
    if journal.stat().st_size == len(content):  # so nobody is at work on that line
        os.truncate(journal, content.rfind(b"\n") + 1)


def stop_with_parent() -> None:
    """Wait until this process's parent is gone, be it by a kill, then ask this process to stop."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # noted by a run, which is saved


def counted_trials(trials: Sequence[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    """The trials without those that were only left lying; what killed its process twice does count, as failed."""
    seen: set[str] = set()
    counted = []
    for trial in trials:
        left = trial.state.name == "FAIL" and "reason" not in trial.user_attrs
        key = json.dumps(trial.params, sort_keys=True)
        if not left or (key in seen and trial.params):
            counted.append(trial)
        elif "stopped" not in trial.user_attrs:
            seen.add(key)
    return counted


def deciding_trials(
    trials: Sequence[optuna.trial.FrozenTrial], number: int, epochs: int | None
) -> list[optuna.trial.FrozenTrial]:
    """The trials that decide: those within the number and the epochs that were asked for."""
    chosen: list[optuna.trial.FrozenTrial] = []
    spent = 0
    for trial in counted_trials(trials)[:number]:
        if epochs is not None and spent >= epochs:
            break
        spent += len(trial.intermediate_values)
        chosen.append(trial)
    return chosen
