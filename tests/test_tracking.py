"""The mirror on a real MLflow server; and servers that are down, hang, talk nonsense, or hold something else."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import requests

from pcam.config import config_leaves, load_config
from pcam.errors import StorageError
from pcam.training import Run, mirror, mirror_run, open_run, train
from pcam.training.mirror import Server, logged_metrics
from pcam.training.tracking import WAIT_SECONDS

SMALL = ("train.epochs=3", "train.threads=1", "model.hidden=8", "train.batch_size=4", "train.log_every=1")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MlflowServer:
    """A real `mlflow server` with SQLite on loopback, which can be killed and started again."""

    def __init__(self, command: str, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.command = [command, "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        self.command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            # A group of its own: the server has workers, and all of them are to be ended.
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        until = time.monotonic() + 180
        while time.monotonic() < until:
            try:
                if requests.get(f"{self.uri}/health", timeout=2).ok:
                    return
            except requests.RequestException:
                time.sleep(0.3)
            if self.process.poll() is not None:
                break
        raise AssertionError((self.folder / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        if self.process:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    beside = Path(sys.executable).with_name("mlflow")
    command = os.environ.get("PCAM_MLFLOW") or (str(beside) if beside.exists() else shutil.which("mlflow"))
    if not command:
        pytest.skip("no mlflow on this machine; pip install '.[track]', or name its command in PCAM_MLFLOW")
    server = MlflowServer(command, tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URI", "TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was trained without a tracker."""
    before = os.environ.pop("MLFLOW_TRACKING_URI", None)
    made = train(load_config("mlp", SMALL), tiny, tmp_path_factory.mktemp("runs"), progress=False)
    if before:
        os.environ["MLFLOW_TRACKING_URI"] = before
    return made


def copied(run: Run, folder: Path) -> Run:
    """A copy of a run's folder that tests may spoil."""
    shutil.copytree(run.path, folder / run.id)
    status = json.loads((folder / run.id / "status.json").read_text())
    started = f"2026-01-01T00:00:00+00:{abs(hash(str(folder))) % 60:02}"  # another start: another copy on the server
    (folder / run.id / "status.json").write_text(json.dumps(status | {"started": started}))
    return open_run(folder / run.id, completed=False)


def ask(server: MlflowServer, method: str, path: str, **content: object) -> dict:
    answer = requests.request(
        method,
        f"{server.uri}/api/2.0/mlflow/{path}",
        timeout=60,
        **({"params": content} if method == "GET" else {"json": content}),
    )
    answer.raise_for_status()
    return dict(answer.json())


def history(server: MlflowServer, name: str, key: str) -> list[tuple[int, float]]:
    found = ask(server, "GET", "metrics/get-history", run_id=name, metric_key=key).get("metrics", [])
    return sorted((int(m.get("step", 0)), m["value"]) for m in found)


def assert_same_record(server: MlflowServer, run: Run, name: str) -> None:
    """Every number of the log is on the server, once, to the last bit."""
    truth: dict[str, list[tuple[int, float]]] = {}
    for m in logged_metrics(run):
        truth.setdefault(m["key"], []).append((m["step"], m["value"]))
    assert sum(map(len, truth.values())) >= 3 * len(run.steps) + 5 * len(run.epochs)
    for key, points in truth.items():
        assert history(server, name, key) == sorted(points), key
    there = ask(server, "GET", "runs/get", run_id=name)["run"]
    assert {m["key"] for m in there["data"]["metrics"]} == set(truth)


def test_a_run_is_mirrored_whole_and_only_once(mlflow: MlflowServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.uri)
    first = mirror_run(run)
    assert first.sent == first.values == len(logged_metrics(run)) and first.server == mlflow.uri
    assert_same_record(mlflow, run, first.mlflow_run)
    there = ask(mlflow, "GET", "runs/get", run_id=first.mlflow_run)["run"]
    assert there["info"]["status"] == "FINISHED"
    tags = {tag["key"]: tag["value"] for tag in there["data"]["tags"]}
    assert tags["pcam_sha256"] == run.final["sha256"] and tags["pcam_run"] == run.id
    assert tags["pcam_data_train"] == run.data["splits"]["train"]["fingerprint"]
    params = {param["key"]: param["value"] for param in there["data"]["params"]}
    assert params == {key: str(value) for key, value in config_leaves(run.config).items() if str(value)}
    again = mirror_run(run)
    assert (again.mlflow_run, again.sent, again.values) == (first.mlflow_run, 0, first.values)
    assert_same_record(mlflow, run, first.mlflow_run)


def test_a_copy_that_contradicts_the_log_is_made_anew(
    mlflow: MlflowServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.uri)
    own = copied(run, tmp_path)
    first = mirror_run(own)
    ask(mlflow, "POST", "runs/log-metric", run_id=first.mlflow_run, key="step/loss", value=7.0, timestamp=1, step=0)
    second = mirror_run(own)
    assert second.mlflow_run != first.mlflow_run and second.sent == first.values
    assert_same_record(mlflow, own, second.mlflow_run)
    assert ask(mlflow, "GET", "runs/get", run_id=first.mlflow_run)["run"]["info"]["lifecycle_stage"] == "deleted"


def test_names_are_data_and_not_markup_or_queries(
    mlflow: MlflowServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.uri)
    name = "<script>alert(1)<|script> ' OR 1=1 -- `\" é"
    own = copied(run, tmp_path)
    own.path.rename(tmp_path / name)
    own = open_run(tmp_path / name)
    first = mirror_run(own)
    assert mirror_run(own).mlflow_run == first.mlflow_run
    there = ask(mlflow, "GET", "runs/get", run_id=first.mlflow_run)["run"]
    assert name in {tag["value"] for tag in there["data"]["tags"] if tag["key"] == "pcam_run"}
    assert there["info"]["run_name"].endswith(name)


def train_apart(data: Path, runs: Path, uri: str, *overrides: str) -> tuple[Run, str, float]:
    """Train in a process of its own with a tracker; return the run, what it said and its seconds."""
    command = [sys.executable, "-m", "pcam", "train", "mlp", *SMALL, *overrides, "--data", str(data)]
    start = time.monotonic()
    done = subprocess.run(
        [*command, "--runs", str(runs)],
        env=os.environ | {"MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        check=True,
    )
    return open_run(done.stdout.strip().splitlines()[-1]), done.stderr, time.monotonic() - start


def timeless(run: Run) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.steps + run.epochs]


def test_training_mirrors_itself_and_keeps_its_bits(
    mlflow: MlflowServer, run: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked, _, _ = train_apart(tiny, tmp_path, mlflow.uri)
    assert tracked.final["sha256"] == run.final["sha256"] and timeless(tracked) == timeless(run)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.uri)
    until = time.monotonic() + 60  # on a busy machine the copy may go on after the end, for LINGER_SECONDS
    key_tag = f"tags.pcam_run = '{tracked.id}'"
    experiment = Server().experiment()
    while time.monotonic() < until:
        found = ask(mlflow, "POST", "runs/search", experiment_ids=[experiment], filter=key_tag).get("runs", [])
        starts = [r["info"]["start_time"] for r in found if r["info"]["status"] == "FINISHED"]
        if any(start > 1_767_300_000_000 for start in starts) or mirror_run(tracked).sent == 0:
            break
        time.sleep(0.5)
    assert_same_record(mlflow, tracked, mirror_run(tracked).mlflow_run)


def test_a_server_that_dies_midway_and_comes_back_loses_nothing(
    mlflow: MlflowServer, run: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the log is copied, the server is killed, the run ends meanwhile; then the server comes back."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.uri)
    own = copied(run, tmp_path)
    lines = (own.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    status = json.loads((own.path / "status.json").read_text())
    half = {"state": "running", "started": status["started"], "updated": status["updated"]}
    (own.path / "status.json").write_text(json.dumps(half))
    (own.path / "metrics.jsonl").write_text("".join(lines[: len(lines) // 2]) + lines[-1][:20])  # a line half written
    first = mirror_run(own)
    assert 0 < first.sent < len(logged_metrics(run))
    mlflow.kill()
    try:
        (own.path / "metrics.jsonl").write_text("".join(lines))
        (own.path / "status.json").write_text(json.dumps(status))
        with pytest.raises(StorageError, match="no connection; nothing is lost, run 'pcam track'"):
            mirror_run(own)
        tracked, said, _ = train_apart(tiny, tmp_path / "runs", mlflow.uri)
        assert tracked.final["sha256"] == run.final["sha256"] and "is not wholly mirrored; 'pcam track" in said
    finally:
        mlflow.start()
    second = mirror_run(own)
    assert second.mlflow_run == first.mlflow_run and second.sent == second.values - first.values
    assert_same_record(mlflow, own, second.mlflow_run)
    assert_same_record(mlflow, tracked, mirror_run(tracked).mlflow_run)


def test_a_resumed_run_may_be_behind_its_copy(
    mlflow: MlflowServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.uri)
    own = copied(run, tmp_path)
    status = json.loads((own.path / "status.json").read_text())
    lines = (own.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (own.path / "status.json").write_text(json.dumps(status | {"state": "interrupted", "final": None}))
    first = mirror_run(own)
    (own.path / "metrics.jsonl").write_text("".join(lines[:5]))  # cut back to its checkpoint
    (own.path / "status.json").write_text(json.dumps(status | {"state": "running", "final": None}))
    assert mirror_run(own).sent == 0
    (own.path / "metrics.jsonl").write_text("".join(lines))
    (own.path / "status.json").write_text(json.dumps(status))
    last = mirror_run(own)
    assert last.mlflow_run == first.mlflow_run and last.sent == 0
    assert_same_record(mlflow, own, last.mlflow_run)


def test_two_mirrors_at_once_send_nothing_twice(
    mlflow: MlflowServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.uri)
    own = copied(run, tmp_path)
    command = [sys.executable, "-m", "pcam", "track", str(own.path)]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    for process in both:
        process.wait(120)
    last = mirror_run(own)
    assert_same_record(mlflow, own, last.mlflow_run)
    assert mirror_run(own).mlflow_run == last.mlflow_run


@pytest.fixture
def hanging() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_hanging_server_changes_no_bit_and_delays_the_end_by_little(
    run: Run, tiny: Path, tmp_path: Path, hanging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", hanging)
    waits: list[float] = []
    wait = subprocess.Popen.wait

    def timed(process: subprocess.Popen, timeout: float | None = None) -> int:
        start = time.monotonic()
        try:
            return wait(process, timeout)
        finally:
            waits.append(time.monotonic() - start)

    monkeypatch.setattr(subprocess.Popen, "wait", timed)
    tracked = train(load_config("mlp", SMALL), tiny, tmp_path, progress=False)
    assert tracked.final["sha256"] == run.final["sha256"] and timeless(tracked) == timeless(run)
    assert max(waits) < WAIT_SECONDS + 1  # the bound, and what a busy machine adds to a sleep
    monkeypatch.setattr(mirror, "TIMEOUT_SECONDS", 0.5)
    with pytest.raises(StorageError, match="no answer in time; nothing is lost"):
        mirror_run(tracked)


def test_the_copying_process_ends_by_itself(run: Run, hanging: str) -> None:
    script = (
        "import sys; from pcam.training import tracking, Run; tracking.LINGER_SECONDS = 1.0; "
        "tracking.follow(Run(sys.argv[1]))"
    )
    command = [sys.executable, "-c", script, str(run.path)]
    environment = os.environ | {"MLFLOW_TRACKING_URI": hanging}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, timeout=60, check=False)
    assert done.returncode == 1


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "localhost:5000", "databricks"])
def test_what_is_no_server_stops_no_training(run: Run, tiny: Path, tmp_path: Path, uri: str) -> None:
    tracked, said, _ = train_apart(tiny, tmp_path, uri)
    assert tracked.final["sha256"] == run.final["sha256"]
    assert "is not wholly mirrored" in said and "Traceback" not in said


def test_a_wrong_address_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="MLFLOW_TRACKING_URI is not set; set it to an MLflow server"):
        mirror_run(run)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///tmp/mlruns")
    with pytest.raises(StorageError, match="MLFLOW_TRACKING_URI is 'file:///tmp/mlruns'; set it to"):
        mirror_run(run)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{free_port()}")
    with pytest.raises(StorageError, match="no connection") as error:
        mirror_run(run)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLFLOW_TRACKING_URI", "http://a..b"),
        ("MLFLOW_TRACKING_URI", "http://[bad"),
        ("MLFLOW_TRACKING_TOKEN", "secret\n"),
        ("MLFLOW_TRACKING_USERNAME", "secret\u0141"),
    ],
)
def test_what_cannot_be_sent_is_told_without_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv(variable, value)
    with pytest.raises(StorageError, match=r"is malformed; check the variables MLFLOW_TRACKING_\*$") as error:
        mirror_run(run)
    assert "secret" not in str(error.value)


def test_the_command_tells_of_a_dead_server_in_one_line(run: Run) -> None:
    command = [sys.executable, "-m", "pcam", "track", str(run.path)]
    for uri, said in (
        (f"http://127.0.0.1:{free_port()}", "no connection; nothing is lost, run 'pcam track' when the server is back"),
        ("localhost:5000", "MLFLOW_TRACKING_URI is 'localhost:5000'; set it to an MLflow server"),
    ):
        done = subprocess.run(
            command, env=os.environ | {"MLFLOW_TRACKING_URI": uri}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2 and done.stdout == ""
        assert said in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"<html>welcome</html>", "answers, but not as an MLflow server"),
        (200, b'{"experiment": []}', "answers, but not as an MLflow server"),
        (200, b"[]", "did not keep|not as an MLflow server|was deleted"),
        (
            200,
            b'{"experiment": {"experiment_id": "1"}, "metrics": [{"value": "many"}], '
            b'"runs": [{"info": {"run_id": "a"}, "data": {"metrics": [{"key": "k"}]}}]}',
            "answers, but not as an MLflow server",
        ),
        (403, b'{"message": "not\\nyours"}', "refused experiments/get-by-name: not yours"),
        (500, b"{}", "refused experiments/get-by-name"),
    ],
)
def test_other_answers_are_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, message: str
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    try:
        with pytest.raises(StorageError, match=message) as error:
            mirror_run(run)
        assert "\n" not in str(error.value)
    finally:
        server.shutdown()
        server.server_close()


def test_timestamps_follow_from_the_log(run: Run) -> None:
    metrics = logged_metrics(run)
    assert metrics == logged_metrics(open_run(run.path))
    for kind in ("step", "epoch"):
        stamps = [m["timestamp"] for m in metrics if m["key"].startswith(kind)]
        assert stamps == sorted(stamps)
    assert {m["key"] for m in metrics} >= {"step/loss", "step/grad_norm", "step/lr", "epoch/valid_auc"}
