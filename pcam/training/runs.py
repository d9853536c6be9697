"""Run folders: named by the hash of what determines them, claimed by one process, never written again once completed.

    RUNS/<id>/config.yaml          the whole configuration
              status.json          state, reason, progress, final values
              environment.json     versions, hardware, threads, seeds, commit, lock, cluster job
              data.json            n, positives and fingerprint of each split used
              metrics.jsonl        one line a step, one line an epoch
              checkpoints/         see pcam.training.checkpoint
              model.safetensors    the trained model, and model.safetensors.sha256

States: claimed → running → completed, or failed (with its reason) or interrupted; the last two go on with
`--resume`. Reading a run needs no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pcam.config import Config, build_config, config_hash, parse_yaml
from pcam.data.format import Split, open_split
from pcam.errors import RunError
from pcam.storage import read_json, sha256_file, write_json

STATES = ("claimed", "running", "completed", "failed", "interrupted")
MODEL_FILE = "model.safetensors"
# What tells of a run without its weights; the status, which says that it is one, comes last.
RECORD_FILES = ("config.yaml", "environment.json", "data.json", "metrics.jsonl", "status.json")
_PACKAGE = Path(__file__).resolve().parent.parent
# What decides the bits of a trained model. Reports, audits and the journal may change without touching a run.
_CODE = (
    "config.py",
    *(
        f"data/{name}.py"
        for name in ("format", "hdf5", "values", "buffers", "threads", "reader", "order", "loader", "color", "augment")
    ),
    "models/*.py",
    *(f"training/{name}.py" for name in ("seeds", "schedule", "distributed", "loop", "validate", "launch")),
)


class Run:
    """A run folder, read lazily; the files are those in the module's docstring.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.state})"

    @property
    def id(self) -> str:
        """The folder's name: 16 hex digits of the hash of config, data and code."""
        return self.path.name

    @property
    def status(self) -> dict[str, Any]:
        """The present content of status.json."""
        path = self.path / "status.json"
        status = read_json(path, "run status")
        if not isinstance(status, dict) or status.get("state") not in STATES:
            raise RunError(f"{path} names none of the states {', '.join(STATES)}: restore it, or remove the run folder")
        return status

    @property
    def state(self) -> str:
        """One of `STATES`."""
        return str(self.status["state"])

    @property
    def final(self) -> dict[str, Any]:
        """The metrics of the epoch whose model is kept, and the model's sha256; empty until the run is completed."""
        final = self.status.get("final")
        return final if isinstance(final, dict) else {}

    @property
    def sha256(self) -> str:
        """SHA-256 of the trained model's file, as it was recorded when the run was completed.

        Raises:
            RunError: none is recorded.
        """
        if not isinstance(recorded := self.final.get("sha256"), str):
            raise RunError(f"{self.path / 'status.json'} holds no SHA-256 of the model: restore it, or remove the run")
        return recorded

    @cached_property
    def config(self) -> Config:
        """The configuration it was trained with."""
        path = self.path / "config.yaml"
        try:
            return build_config(parse_yaml(path.read_text(encoding="utf-8"), str(path)), where=str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{path} cannot be read ({error}); restore it or remove the run") from error

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, hardware, threads, seeds, commit, lock and cluster job."""
        return self._record("environment.json", "run environment", "versions")

    @property
    def data(self) -> dict[str, Any]:
        """The splits used: n, positives and fingerprint."""
        return self._record("data.json", "run data record", "splits")

    def _record(self, name: str, what: str, needed: str) -> dict[str, Any]:
        record = read_json(self.path / name, what)
        if not isinstance(record, dict) or not isinstance(record.get(needed), dict):
            raise RunError(f"{what} {self.path / name} holds no {needed}: restore it, or remove the run folder")
        return record

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Rows step, epoch, loss, grad_norm, lr; one per logged step."""
        return [row for row in self._rows() if row["kind"] == "step"]

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """Rows epoch, train_loss, valid_loss, valid_auc, valid_accuracy, lr, seconds; one per epoch."""
        return [row for row in self._rows() if row["kind"] == "epoch"]

    @property
    def timeless_rows(self) -> list[dict[str, Any]]:
        """All logged rows, steps first, without the seconds that they took: what two runs of the same bits share."""
        return [{key: value for key, value in row.items() if key != "seconds"} for row in self.steps + self.epochs]

    def _rows(self) -> Iterator[dict[str, Any]]:
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                return  # a kill cut the last line; resuming writes it again

    def write_status(self, state: str, **details: Any) -> None:
        """Replace status.json; `started` is kept, `updated` is now (UTC)."""
        path = self.path / "status.json"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        started = read_json(path, "run status").get("started", now) if path.exists() else now
        write_json(path, {"state": state, "started": started, "updated": now, **details})


def open_run(path: Path | str, completed: bool = True) -> Run:
    """Open a run folder.

    Args:
        path: the folder.
        completed: refuse a run that is not completed.

    Raises:
        RunError: it is no run folder, or its run is not completed.
    """
    run = Run(path)
    if not (run.path / "status.json").is_file():
        raise RunError(f"{path}: not a run folder (no status.json in it); give the folder that 'pcam train' printed")
    if completed and run.state != "completed":
        reason = f" ({run.status['reason']})" if run.status.get("reason") else ""
        raise RunError(f"{path}: the run is {run.state}{reason}; finish it with 'pcam train … --resume'")
    return run


def check_model(run: Run) -> None:
    """Check that a completed run's model file is there and is the one that it recorded.

    Raises:
        RunError: it is missing, or damaged.
    """
    path = run.path / MODEL_FILE
    state = "damaged" if path.is_file() else "missing"
    if state == "missing" or sha256_file(path) != run.sha256:
        raise RunError(f"{path} is {state}; restore it, or remove the folder {run.path} and train again")


def list_runs(directory: Path | str) -> list[Run]:
    """Return the runs of a folder in any state, sorted by id; none when the folder is missing."""
    return [Run(path.parent) for path in sorted(Path(directory).glob("*/status.json"))]


def code_files() -> list[Path]:
    """Return the sources that decide the bits of a trained model, sorted."""
    return sorted({path for pattern in _CODE for path in _PACKAGE.glob(pattern)})


def code_version() -> str:
    """Return the SHA-256 of the sources that decide the bits of a trained model."""
    digest = hashlib.sha256()
    for path in code_files():
        name = path.relative_to(_PACKAGE).as_posix()
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def split_record(split: Split) -> dict[str, Any]:
    """Return what data.json keeps of a split."""
    positive = None if split.labels is None else int(split.labels.sum())
    return {"n": len(split), "n_positive": positive, "fingerprint": split.fingerprint()}


def run_id(config: Config, data_dir: Path | str, nonce: str = "") -> str:
    """Return the run's name: 16 hex digits of the hash of config, data fingerprints and code version.

    Args:
        config: the configuration.
        data_dir: the data folder; the training and validation splits are read through for their fingerprints.
        nonce: set for a run that cannot be repeated, so that it never takes the name of one that can.

    Raises:
        DataError: a split that it needs is missing or breaks the contract.
    """
    names = (config.data.train_split, config.data.valid_split)
    return identity(config, {name: open_split(data_dir, name).fingerprint() for name in names}, nonce)


def identity(config: Config, fingerprints: dict[str, str], nonce: str = "") -> str:
    """Return the run's name from fingerprints that are known already; see `run_id`."""
    parts = {"config": config_hash(config), "data": fingerprints, "code": code_version(), "nonce": nonce}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
