"""A run's name says what it is made of; its folder belongs to one process and is never written again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pcam.config import build_config, config_leaves, dump_yaml
from pcam.data import loader
from pcam.data.format import Split, split_path
from pcam.errors import DataError, RunError
from pcam.storage import claim, read_json, sha256_file, write_json
from pcam.training import Interrupted, Run, list_runs, load_model, open_run, run_id, train
from pcam.training.compare import library_versions
from pcam.training.runs import code_version
from pcam.training.stop import StopRequest

TREE = {"model": {"name": "mlp", "hidden": 4}, "train": {"epochs": 1, "batch_size": 16, "threads": 1}}
CONFIG = build_config(TREE)


@pytest.fixture
def completed(tiny: Path, tmp_path: Path) -> Run:
    return train(CONFIG, tiny, tmp_path / "runs", progress=False)


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    return {str(p): (p.stat().st_mtime_ns, sha256_file(p)) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_name_depends_on_config_data_and_code(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = run_id(CONFIG, tiny)
    assert len(name) == 16
    assert run_id(CONFIG, tiny) == name
    assert run_id(CONFIG.model_copy(update={"seed": 1}), tiny) != name
    changed = tmp_path / "data"
    shutil.copytree(tiny, changed)
    assert run_id(CONFIG, changed) == name, "the folder's place is no part of it"
    from pcam.data.synthetic import write_sample

    other = write_sample(tmp_path / "other", train=48, valid=24, test=24, seed=4)
    assert run_id(CONFIG, other) != name
    monkeypatch.setattr("pcam.training.runs.code_version", lambda: "other code")
    assert run_id(CONFIG, tiny) != name


def test_code_version_covers_all_that_training_loads() -> None:
    # What the loop imports of this package decides its bits, unless it only reads, writes or reports.
    harmless = {
        "pcam",
        *(f"pcam.{name}" for name in ("errors", "storage", "provenance", "data", "data.tables", "training")),
    }
    harmless |= {
        f"pcam.training.{name}"
        for name in ("runs", "stop", "checkpoint", "compare", "environment", "mirror", "tracking")
    }
    code = "import sys, pcam.training.launch; print(*[m for m in sys.modules if m.split('.')[0] == 'pcam'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    from pcam.training import runs

    covered = {
        ".".join(("pcam", *path.relative_to(runs._PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in runs.code_files()
    }
    assert set(done.stdout.split()) - harmless == covered


def test_code_version_changes_with_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pcam.training import runs

    before = code_version()
    copy = tmp_path / "pcam"
    shutil.copytree(runs._PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(runs, "_PACKAGE", copy)
    assert code_version() == before
    with (copy / "models" / "mlp.py").open("a") as file:
        file.write("# changed\n")
    assert code_version() != before


def test_folder_holds_what_it_promises(completed: Run) -> None:
    names = {p.name for p in completed.path.iterdir()}
    assert names == {
        "config.yaml",
        "status.json",
        "environment.json",
        "data.json",
        "metrics.jsonl",
        "checkpoints",
        "model.safetensors",
        "model.safetensors.sha256",
    }
    assert completed.config == CONFIG
    assert completed.data["splits"]["train"]["n"] == 48
    assert completed.data["kind"] == "synthetic"
    environment = completed.environment
    assert environment["versions"].keys() == {"python", "pcam", "torch", "numpy", "h5py"}
    assert environment["controls"]["deterministic_algorithms"] is True
    assert environment["controls"]["threads"] == 1
    assert environment["code_version"] == code_version()
    assert environment.keys() >= {"hardware", "commit", "dirty", "lock_sha256", "slurm"}
    digest, name = (completed.path / "model.safetensors.sha256").read_text().split()
    assert sha256_file(completed.path / name) == digest == completed.final["sha256"]


def test_slurm_job_is_recorded(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert train(CONFIG, tiny, tmp_path, progress=False).environment["slurm"] == {"job_id": "4711"}


def test_a_completed_run_is_returned_untouched(completed: Run, tiny: Path) -> None:
    before = snapshot(completed.path)
    for resume in (False, True):
        again = train(CONFIG, tiny, completed.path.parent, resume=resume, progress=False)
        assert again.path == completed.path
    assert snapshot(completed.path) == before
    assert [run.id for run in list_runs(completed.path.parent)] == [completed.id]


def test_a_run_of_other_libraries_is_returned_with_a_warning(
    completed: Run, tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environment = completed.environment
    environment["versions"]["torch"] = "1.0"
    write_json(completed.path / "environment.json", environment)
    train(CONFIG, tiny, completed.path.parent, progress=False)
    assert "was trained with torch 1.0 and here it is" in caplog.text


def test_each_part_of_a_run_keeps_its_environment(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop = StopRequest()
    stop.number = signal.SIGTERM
    for job in ("1", "1", "2"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        with pytest.raises(Interrupted):
            train(CONFIG, tiny, tmp_path, resume=True, progress=False, stop=stop)
    (run,) = list_runs(tmp_path)
    begun = run.environment
    begun["versions"]["torch"] = "1.0"
    write_json(run.path / "environment.json", begun)
    train(CONFIG, tiny, tmp_path, resume=True, progress=False)
    assert "was begun with torch 1.0 and here it is" in caplog.text
    assert [part["slurm"]["job_id"] for part in run.environment["earlier"]] == ["1", "2"]
    assert [part["versions"]["torch"] == "1.0" for part in run.environment["earlier"]] == [False, True]
    assert run.environment["versions"]["torch"] == library_versions()["torch"]


def test_a_split_without_labels_leaves_no_folder(tiny: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(tiny, tmp_path / "data"))
    split_path(data, "valid", "y").unlink()
    with pytest.raises(DataError, match="valid has no labels; training needs its y file beside the x file"):
        train(CONFIG, data, tmp_path / "runs", progress=False)
    assert not (tmp_path / "runs").exists()


def test_what_the_stored_values_cost_is_told(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = Path(shutil.copytree(tiny, tmp_path / "data"))
    for name, damaged in (("train", [5]), ("valid", [0, 3])):
        patches = Split(tiny, name).read(slice(None)).astype(np.float32)
        patches[damaged, 0, 0, 0] = 1e5
        with h5py.File(split_path(data, name, "x"), "w") as file:
            file.create_dataset("x", data=patches, chunks=(8, 96, 96, 3), compression="gzip")
    monkeypatch.setattr(loader, "_free_memory", lambda device: 0)
    rounded = build_config(TREE, ["data.values=round"])
    train(rounded, data, tmp_path / "runs", progress=False)
    assert f"{data}: train: 1 of 48 patches hold values that are not integers in 0..255; rounded" in caplog.text
    assert f"{data}: valid: 2 of {len(Split(data, 'valid'))} patches hold values" in caplog.text
    assert f"{data}: train is stored in chunks of 8 patches: set data.block=8" in caplog.text
    caplog.clear()
    train(build_config(TREE, ["data.values=round", "data.block=8"]), data, tmp_path / "runs", progress=False)
    assert "chunks" not in caplog.text


def test_a_claimed_run_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / run_id(CONFIG, tiny)
    with claim(folder / "claim"), pytest.raises(RunError, match=rf"process {os.getpid()} on .* is at work on it"):
        train(CONFIG, tiny, tmp_path, progress=False)
    assert train(CONFIG, tiny, tmp_path, progress=False).state == "completed"


# Run by a process of its own, which forks before it has threads that a fork would lack and wait for.
SIXTEEN = """
import json, multiprocessing, sys
from pcam.config import load_config
from pcam.errors import DataError, RunError
from pcam.training import launch

config, data, runs = sys.argv[1:]
context = multiprocessing.get_context("fork")
together, refused, ends = context.Barrier(16), context.Semaphore(0), context.Queue()
fit = launch.fit

def patient(*arguments):
    for _ in range(15):  # the winner trains until all others have tried
        assert refused.acquire(timeout=60)
    return fit(*arguments)

def compete():
    together.wait(60)
    try:
        ends.put(launch.train(load_config(config), data, runs, progress=False).state)
    except RunError as error:
        ends.put(str(error))
        refused.release()

launch.fit = patient
processes = [context.Process(target=compete) for _ in range(16)]
for process in processes:
    process.start()
told = [ends.get(timeout=120) for _ in processes]
for process in processes:
    process.join()
print(json.dumps({"told": told, "pids": [p.pid for p in processes], "codes": [p.exitcode for p in processes]}))
"""


def test_sixteen_processes_one_winner(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_yaml(CONFIG))
    command = [sys.executable, "-c", SIXTEEN, str(tmp_path / "config.yaml"), str(tiny), str(tmp_path / "r")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    told = sorted(ends["told"])
    (run,) = list_runs(tmp_path / "r")
    assert ends["codes"] == [0] * 16
    assert told.pop() == "completed"
    winners = {int(re.search(r"process (\d+) on .* is at work on it; wait for it$", line)[1]) for line in told}  # type: ignore[index]
    assert len(told) == 15 and len(winners) == 1
    assert winners < set(ends["pids"])
    assert run.state == "completed"
    assert not list(run.path.rglob(".*"))


def test_a_stale_claim_of_another_machine_is_told_with_its_mend(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / run_id(CONFIG, tiny)
    write_json(folder / "claim", {"pid": 1, "host": "another-machine", "start": 1})
    mend = r"process 1 on another-machine claimed it; if it no longer runs, remove .*claim and try again"
    with pytest.raises(RunError, match=mend):
        train(CONFIG, tiny, tmp_path, progress=False)
    (folder / "claim").unlink()
    assert train(CONFIG, tiny, tmp_path, progress=False).state == "completed"


def test_a_waiting_process_gets_the_run_of_the_other(tiny: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model: {name: mlp, hidden: 4}\ntrain: {epochs: 1, batch_size: 16, threads: 1}\n")
    code = (
        "import sys; from pcam.config import load_config; from pcam.training import train\n"
        f"print(train(load_config({str(config)!r}), {str(tiny)!r}, {str(tmp_path / 'r')!r}, wait=True).path)"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {p.communicate(timeout=120)[0] for p in both}
    assert len(paths) == 1
    assert all(p.returncode == 0 for p in both)


def test_a_dead_owners_run_goes_on_with_resume(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / run_id(CONFIG, tiny)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_json(folder / "claim", {"pid": gone.pid, "host": socket.gethostname(), "start": 1})
    write_json(folder / "status.json", {"state": "running"})
    (folder / ".weights.123-abcd.tmp.safetensors").write_bytes(b"half")
    with pytest.raises(RunError, match="this run was interrupted; continue it with --resume"):
        train(CONFIG, tiny, tmp_path, progress=False)
    run = train(CONFIG, tiny, tmp_path, resume=True, progress=False)
    assert run.state == "completed"
    assert not list(run.path.rglob(".*"))


@pytest.mark.parametrize("state", ["running", "failed", "interrupted", "claimed"])
def test_only_completed_runs_open(tmp_path: Path, state: str) -> None:
    write_json(tmp_path / "run" / "status.json", {"state": state, "reason": "the loss became nan"})
    with pytest.raises(RunError, match=rf"the run is {state} \(the loss became nan\); finish it"):
        open_run(tmp_path / "run")
    assert open_run(tmp_path / "run", completed=False).state == state
    with pytest.raises(RunError, match=f"the run is {state}; only a completed run has a model"):
        load_model(Run(tmp_path / "run"))


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a run folder \(no status.json in it\)"):
        open_run(tmp_path)
    assert list_runs(tmp_path / "nowhere") == []


def test_a_changed_model_file_is_refused(completed: Run) -> None:
    path = completed.path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"model\.safetensors is damaged: .*; restore it, or remove the run folder"):
        load_model(completed)
    path.unlink()
    with pytest.raises(RunError, match=r"model\.safetensors is missing"):
        load_model(completed)


def test_a_cut_last_line_of_the_log_is_left_out(completed: Run) -> None:
    with (completed.path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "st')
    assert len(completed.steps) == 3


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"state": "done"}', '{"state": 3}'])
def test_a_status_that_names_no_state_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(content)
    with pytest.raises(RunError, match=r"status.json names none of the states claimed, .*: restore it, or remove"):
        open_run(tmp_path)


@pytest.mark.parametrize("final", ["null", "[1]", "{}", '{"sha256": 5}'])
def test_a_completed_status_without_a_model_is_refused(final: str, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(f'{{"state": "completed", "final": {final}}}')
    with pytest.raises(RunError, match="holds no SHA-256 of the model: restore it, or remove the run"):
        load_model(open_run(tmp_path))


@pytest.mark.parametrize(
    ("config", "complaint"),
    [(b"\xff", "cannot be read"), (b"model: {name: cnn}", "is no model of config.yaml beside it")],
)
def test_a_config_that_is_not_the_models_is_refused(completed: Run, config: bytes, complaint: str) -> None:
    (completed.path / "config.yaml").write_bytes(config)
    with pytest.raises(RunError, match=complaint):
        load_model(Run(completed.path))


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"versions": 3, "splits": []}'])
def test_records_without_what_they_hold_are_refused(content: str, tmp_path: Path) -> None:
    for name, needed in (("environment", "versions"), ("data", "splits")):
        (tmp_path / f"{name}.json").write_text(content)
        with pytest.raises(RunError, match=rf"{name}.json holds no {needed}: restore it, or remove the run folder"):
            getattr(Run(tmp_path), name)


def test_status_keeps_the_start(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_status("claimed")
    started = run.status["started"]
    run.write_status("failed", reason="x")
    assert run.status["started"] == started
    assert read_json(tmp_path / "status.json", "status")["reason"] == "x"


def test_config_file_reads_back_every_leaf(completed: Run) -> None:
    assert config_leaves(completed.config) == config_leaves(CONFIG)
    assert json.loads(json.dumps(config_leaves(CONFIG))) == config_leaves(CONFIG)
