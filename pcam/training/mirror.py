"""The copy of a run's record on an MLflow server: made, compared with the run's own log, and mended.

The folder of a run is the truth and is only read here. Copying again sends what is missing and nothing twice; where
the server holds something else than the log, its copy is deleted and made anew.

The server is spoken to through its REST interface (https://mlflow.org/docs/latest/api_reference/rest-api.html), so
no MLflow is needed where the training runs.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pcam.config import config_leaves
from pcam.errors import StorageError
from pcam.training.runs import Run

if TYPE_CHECKING:
    import requests

TIMEOUT_SECONDS = 60.0  # for an answer of the server; nobody but the copy waits for it
_BATCH = 1000  # metrics in one request, MLflow's limit
STATUS = {"completed": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
Point = tuple[str, int]  # key of a metric, and its step


@dataclass(frozen=True)
class Mirrored:
    """What `mirror_run` did.

    Attributes:
        run: id of the run.
        server: address of the server, without credentials.
        mlflow_run: name of its copy there.
        values: number of logged values that the copy now holds, all of them equal to the log's.
        sent: how many of them were missing.
    """

    run: str
    server: str
    mlflow_run: str
    values: int
    sent: int

    def __str__(self) -> str:
        return f"{self.run}: {self.values} values at {self.server}, {self.sent} of them sent now"


class Server:
    """An MLflow server, from MLFLOW_TRACKING_URI; MLFLOW_EXPERIMENT_NAME names the experiment (default: pcam).

    MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, are sent along where they are set.

    Raises:
        StorageError: the variable is not set, or names no server.
    """

    def __init__(self) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip().rstrip("/")
        if not uri.startswith(("http://", "https://")):
            found = f"is '{uri}'" if uri else "is not set"
            raise StorageError(
                f"MLFLOW_TRACKING_URI {found}; set it to an MLflow server, such as http://localhost:5000"
            )
        self._uri = uri
        self.name = f"{uri.split('://')[0]}://{uri.split('://')[1].rpartition('@')[2]}"
        self._experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "pcam"
        self._session: requests.Session | None = None

    def call(self, method: str, path: str, content: dict[str, Any], missing: Any = None) -> Any:
        """Send one request and return the answer's JSON, or `missing` where the server knows no such thing.

        Raises:
            StorageError: no answer in time, or a refusal.
        """
        import requests

        if self._session is None:
            self._session = requests.Session()
            if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
                self._session.headers["Authorization"] = f"Bearer {token}"
            elif user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
                self._session.auth = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
        url, query, body = f"{self._uri}/api/2.0/mlflow/{path}", content, None
        if method == "POST":
            query, body = {}, content
        try:
            answer = self._session.request(method, url, params=query, json=body, timeout=TIMEOUT_SECONDS)
            if answer.status_code == 404 and missing is not None:
                return missing
            found = answer.json()
        except requests.JSONDecodeError as error:
            raise StorageError(
                f"{self.name} answers, but not as an MLflow server; check MLFLOW_TRACKING_URI"
            ) from error
        except ValueError as error:  # of requests, of urllib3 or of an encoding; their texts may hold what is secret
            raise StorageError(
                f"{self.name}: the address or the login is malformed; check the variables MLFLOW_TRACKING_*"
            ) from error
        except requests.RequestException as error:
            reason = "no answer in time" if isinstance(error, requests.Timeout) else "no connection"
            raise StorageError(
                f"{self.name}: {reason}; nothing is lost, run 'pcam track' when the server is back"
            ) from error
        if not answer.ok:
            said = found.get("message", found) if isinstance(found, dict) else found
            raise StorageError(f"{self.name} refused {path}: {' '.join(str(said).split())[:200]}")
        return found

    def experiment(self) -> str:
        """Return the experiment's id; it is made where it is missing."""
        for _ in range(2):
            found = self.call("GET", "experiments/get-by-name", {"experiment_name": self._experiment}, missing={})
            if found:
                return str(found["experiment"]["experiment_id"])
            try:
                return str(self.call("POST", "experiments/create", {"name": self._experiment})["experiment_id"])
            except StorageError as error:
                if "exists" not in str(error):  # another process was faster
                    raise
        raise StorageError(f"{self.name}: experiment '{self._experiment}' was deleted; restore it or name another")


class Copy:
    """The copy of one run; `catch_up` may be called again and again while the run goes on."""

    def __init__(self, run: Run, server: Server) -> None:
        self.run, self.server = run, server
        self.mlflow_run = ""
        self.known: set[Point] | None = None  # None: ask the server, which may have been away

    def catch_up(self) -> int:
        """Send what the copy lacks and return how many values that were.

        Raises:
            StorageError: the server does not take it; the next call begins by asking what it holds.
        """
        known, self.known = self.known, None
        try:
            if known is None:
                known = self._attach()
            metrics = [m for m in logged_metrics(self.run) if (m["key"], m["step"]) not in known]
            for start in range(0, len(metrics), _BATCH):
                batch = {"run_id": self.mlflow_run, "metrics": metrics[start : start + _BATCH]}
                self.server.call("POST", "runs/log-batch", batch)
            self._tell_state()
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise StorageError(f"{self.server.name} answers, but not as an MLflow server ({error!r})") from error
        self.known = known | {(m["key"], m["step"]) for m in metrics}
        return len(metrics)

    def _attach(self) -> set[Point]:
        """Find or make the copy and return what it holds; a copy that contradicts the log is deleted first."""
        experiment = self.server.experiment()
        started = self.run.status["started"]
        # A folder's name may hold anything; a hash of it can stand in a query.
        key = hashlib.sha256(f"{self.run.id}\n{started}".encode(errors="replace")).hexdigest()[:32]
        query = {"experiment_ids": [experiment], "filter": f"tags.pcam_key = '{key}'", "order_by": ["start_time ASC"]}
        truth = {(m["key"], m["step"]): m["value"] for m in logged_metrics(self.run)}
        self.mlflow_run = ""
        for found in self.server.call("POST", "runs/search", query).get("runs", []):
            name = found["info"]["run_id"]
            held = self._held(name, [m["key"] for m in found["data"].get("metrics", [])])
            if not self.mlflow_run and self._agrees(held, truth):
                self.mlflow_run, points = name, {point for point, _ in held}
            else:  # another log's values, or a second copy from two processes that began at once
                self.server.call("POST", "runs/delete", {"run_id": name})
        if self.mlflow_run:
            return points
        config = self.run.config
        tags = [{"key": "pcam_key", "value": key}]
        about = {"experiment_id": experiment, "start_time": _milliseconds(started), "tags": tags}
        about["run_name"] = f"{config.model.name}, seed {config.seed}, {self.run.id}"
        self.mlflow_run = self.server.call("POST", "runs/create", about)["run"]["info"]["run_id"]
        leaves = [{"key": key, "value": str(value)[:6000]} for key, value in config_leaves(config).items()]
        for start in range(0, len(leaves), 100):
            batch = {"run_id": self.mlflow_run, "params": leaves[start : start + 100]}
            self.server.call("POST", "runs/log-batch", batch)
        return set()

    def _held(self, name: str, keys: list[str]) -> list[tuple[Point, float]]:
        held = []
        for key in keys:
            query: dict[str, Any] = {"run_id": name, "metric_key": key, "max_results": 25_000}
            while True:
                answer = self.server.call("GET", "metrics/get-history", query)
                held += [((key, int(m.get("step", 0))), float(m["value"])) for m in answer.get("metrics", [])]
                if not answer.get("next_page_token"):
                    break
                query["page_token"] = answer["next_page_token"]
        return held

    def _agrees(self, held: list[tuple[Point, float]], truth: dict[Point, float]) -> bool:
        if len({point for point, _ in held}) != len(held):
            return False
        # A resumed run does some steps again: until it is completed, the copy may be ahead of the log.
        ahead = self.run.state != "completed"
        return all(truth[point] == value if point in truth else ahead for point, value in held)

    def _tell_state(self) -> None:
        status = self.run.status
        tags = run_tags(self.run)
        self.server.call("POST", "runs/log-batch", {"run_id": self.mlflow_run, "tags": tags})
        told: dict[str, Any] = {"run_id": self.mlflow_run, "status": STATUS.get(status["state"], "RUNNING")}
        if status["state"] in STATUS:
            told["end_time"] = _milliseconds(status["updated"])
        self.server.call("POST", "runs/update", told)


def mirror_run(run: Run, server: Server | None = None) -> Mirrored:
    """Bring the copy of a run on the MLflow server up to date and compare all of it with the run's log.

    Args:
        run: in any state.
        server: None: the one that the environment names.

    Raises:
        StorageError: there is no server, it does not answer, or it does not keep what it is sent.
    """
    server = server or Server()
    copy = Copy(run, server)
    sent = copy.catch_up()
    values = len(copy.known or ())
    copy.known = None
    if copy.catch_up():  # asks for all of it again
        raise StorageError(f"{server.name} did not keep all that it was sent of run {run.id}; run 'pcam track' again")
    return Mirrored(run.id, server.name, copy.mlflow_run, values, sent)


def logged_metrics(run: Run) -> list[dict[str, Any]]:
    """Return the run's log as MLflow metrics: key (`step/loss`, `epoch/valid_auc` …), value, timestamp in ms, step.

    The log has no clock, so that it can be compared bit for bit; timestamps are the run's start plus the seconds of
    the epochs before. The same log gives the same metrics, which the server keeps once however often they come.
    """
    clock = {0: _milliseconds(run.status["started"])}
    epochs = run.epochs
    for row in epochs:
        clock[row["epoch"] + 1] = clock.get(row["epoch"], clock[0]) + round(1000 * row["seconds"])
    rows = [("step", row, row["step"], clock.get(row["epoch"], clock[0])) for row in run.steps]
    rows += [("epoch", row, row["epoch"], clock[row["epoch"] + 1]) for row in epochs]
    return [
        {"key": f"{kind}/{name}", "value": float(value), "timestamp": when, "step": step}
        for kind, row, step, when in rows
        for name, value in row.items()
        if name not in ("kind", "step", "epoch") and isinstance(value, int | float)
    ]


def run_tags(run: Run) -> list[dict[str, str]]:
    """Return what the copy says about a run beside its settings and metrics: state, data, code, commit, model."""
    status = run.status
    tags = {"pcam_run": run.id, "pcam_state": status["state"], "pcam_reason": status.get("reason")}
    if (run.path / "data.json").exists():
        for name, split in run.data["splits"].items():
            tags[f"pcam_data_{name}"] = split["fingerprint"]
    if (run.path / "environment.json").exists():
        environment = run.environment
        tags |= {"mlflow.source.git.commit": environment["commit"], "pcam_code": environment["code_version"]}
    tags["pcam_sha256"] = run.final.get("sha256")
    return [{"key": key, "value": str(value)[:5000]} for key, value in tags.items() if value]


def _milliseconds(time_: str) -> int:
    return round(1000 * datetime.fromisoformat(time_).timestamp())
