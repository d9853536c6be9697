"""Several processes train the run that one would, and the end of any of them is told."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pcam.cli import main
from pcam.config import Config, build_config, dump_yaml
from pcam.errors import ConfigError, RunError
from pcam.storage import claim
from pcam.training import Run, list_runs, load_model, run_id, train
from pcam.training import loop as loop_module
from pcam.training.distributed import World, joined

TRAIN = {"epochs": 2, "batch_size": 20, "threads": 1, "augment": {"flip": True, "rotate": True, "color": 0.1}}
CONFIGS = {
    # 48 patches in batches of 20: the last has 8; in batches of 47, a single one, so that one process gets none.
    "mlp": {"model": {"name": "mlp", "hidden": 4, "dropout": 0.3}, "train": {**TRAIN, "average": 0.5}},
    "mlp, an empty share": {"model": {"name": "mlp", "hidden": 4}, "train": {**TRAIN, "batch_size": 47}},
    # AdamW divides small gradients by their size, so that it makes more of rounding than a few steps allow.
    "cnn": {
        "model": {"name": "cnn", "width": 4, "depth": 2, "dropout": 0.3},
        "train": {**TRAIN, "optimizer": "sgd", "lr": 0.01},
    },
}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass
class Member:
    """One of several processes, forked so that its life is training rather than the import of torch."""

    process: Any
    output: Path

    def end(self, seconds: float = 60) -> str:
        """Wait for its end and return all that it printed."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, "it hangs"
        return self.output.read_text()


def live(words: list[str], place: dict[str, str], output: Path, look: float) -> None:
    """Be one process of a run, which looks at its losses after `look` seconds."""
    os.environ.update(place)
    loop_module._READ_SECONDS = look
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1)
    main(words)


def start(
    rank: int, size: int, port: int, config: Path, data: Path, runs: Path, *more: str, look: float = 0.5
) -> Member:
    """Start one process with what torchrun would give it."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    place = {key: str(value) for key, value in names.items()} if size > 1 else {}
    words = ["train", str(config), "--data", str(data), "--runs", str(runs), *more]
    output = config.with_name(f"output-{rank}")
    # Not forked from this process: a fork lacks the threads that torch may have started here, and waits for them.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pcam.training.launch"])
    process = context.Process(target=live, args=(words, place, output, look))
    process.start()
    return Member(process, output)


def write(config: Config, folder: Path) -> Path:
    folder.joinpath("config.yaml").write_text(dump_yaml(config))
    return folder / "config.yaml"


def curves(run: Run) -> dict[str, list[float]]:
    epochs = {name: [row[name] for row in run.epochs] for name in ("train_loss", "valid_loss")}
    return {"loss": [row["loss"] for row in run.steps], **epochs}


@pytest.mark.parametrize("name", CONFIGS)
def test_two_processes_have_the_loss_curve_of_one(name: str, tiny: Path, tmp_path: Path) -> None:
    config = build_config(CONFIGS[name])
    one = train(config, tiny, tmp_path / "one", progress=False)
    if name == "mlp":  # the real launcher once; it is slow to start
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "pcam"]
        command += ["train", str(write(config, tmp_path)), "--data", str(tiny), "--runs", str(tmp_path / "two")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [str(tmp_path / "two" / one.id)]
    else:
        path, port = write(config, tmp_path), free_port()
        both = [start(rank, 2, port, path, tiny, tmp_path / "two") for rank in (0, 1)]
        ends = [member.end() for member in both]
        assert [member.process.exitcode for member in both] == [0, 0], ends
    two = Run(tmp_path / "two" / one.id)
    assert two.state == "completed"
    assert two.environment["processes"] == 2
    expected, found = curves(one), curves(two)
    for curve, values in expected.items():
        assert found[curve] == pytest.approx(values, abs=1e-5, rel=0), curve
    # torch's own batch normalisation rounds its gradient to four digits here, ours to five: hence no less.
    norms = ([row["grad_norm"] for row in run.steps] for run in (one, two))
    assert next(norms) == pytest.approx(next(norms), rel=1e-3)
    for first, second in zip(load_model(one).state_dict().values(), load_model(two).state_dict().values(), strict=True):
        torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_process_ends_the_run_and_one_process_resumes_it(victim: int, tiny: Path, tmp_path: Path) -> None:
    config = build_config(CONFIGS["mlp"], ["train.epochs=300", "train.checkpoint_every=20"])
    path, runs, port = write(config, tmp_path), tmp_path / "runs", free_port()
    both = [start(rank, 2, port, path, tiny, runs) for rank in (0, 1)]
    while all(m.process.is_alive() for m in both) and not (list_runs(runs) and list_runs(runs)[0].epochs):
        time.sleep(0.01)
    both[victim].process.kill()
    killed = time.monotonic()
    both[victim].end()
    complaint = both[1 - victim].end()
    assert time.monotonic() - killed < 30
    assert both[1 - victim].process.exitcode == 2, complaint
    assert f"process {1 - victim} of 2 lost the others" in complaint
    assert "continue from the last checkpoint with --resume" in complaint
    assert ".cc:" not in complaint, "a place in the library's source says nothing to a person"
    assert "Traceback" not in complaint
    (run,) = list_runs(runs)
    # The first process writes; when it is the one that died, its claim is what tells.
    assert run.state == ("running" if victim == 0 else "failed")
    with pytest.raises(RunError, match="continue it with --resume"):
        train(config, tiny, runs, progress=False)
    resumed = train(config, tiny, runs, resume=True, progress=False)
    assert resumed.state == "completed"
    assert [row["step"] for row in run.steps] == list(range(300 * 3))


def test_a_signal_to_one_process_stops_all_and_another_number_resumes(tiny: Path, tmp_path: Path) -> None:
    config = build_config(CONFIGS["mlp"], ["train.epochs=30", "train.optimizer=sgd"])
    whole = train(config, tiny, tmp_path / "whole", progress=False)
    path, runs, port = write(config, tmp_path), tmp_path / "runs", free_port()
    three = [start(rank, 3, port, path, tiny, runs) for rank in range(3)]
    while all(m.process.is_alive() for m in three) and not (list_runs(runs) and list_runs(runs)[0].epochs):
        time.sleep(0.002)
    os.kill(three[2].process.pid, signal.SIGUSR1)
    complaints = [member.end() for member in three]
    run = Run(runs / whole.id)
    assert [member.process.exitcode for member in three] == [128 + signal.SIGUSR1] * 3, complaints
    assert run.state == "interrupted"
    resumed = train(config, tiny, runs, resume=True, progress=False)
    for curve, values in curves(whole).items():
        assert curves(resumed)[curve] == pytest.approx(values, abs=1e-5, rel=0), curve


def test_a_loss_that_is_no_number_is_recorded_whoever_looks_first(tiny: Path, tmp_path: Path) -> None:
    steep = ["train.lr=100", "train.optimizer=sgd", "train.schedule=constant", "train.weight_decay=10"]
    path, port = write(build_config(CONFIGS["mlp"], [*steep, "train.batch_size=2"]), tmp_path), free_port()
    both = [start(rank, 2, port, path, tiny, tmp_path / "runs", look=0 if rank else 600) for rank in (0, 1)]
    complaints = [member.end() for member in both]
    assert [member.process.exitcode for member in both] == [2, 2], complaints
    (run,) = list_runs(tmp_path / "runs")
    assert run.state == "failed"
    assert run.status["reason"].startswith("the loss became "), complaints


def test_a_refusal_is_told_by_the_first_process(tiny: Path, tmp_path: Path) -> None:
    config = build_config(CONFIGS["mlp"])
    port, path = free_port(), write(config, tmp_path)
    with claim(tmp_path / "runs" / run_id(config, tiny) / "claim"):
        both = [start(rank, 2, port, path, tiny, tmp_path / "runs") for rank in (0, 1)]
        complaints = [member.end() for member in both]
    assert [member.process.exitcode for member in both] == [2, 2]
    assert "is at work on it; wait for it" in complaints[0]
    assert "process 1 of 2 lost the others" in complaints[1]


@pytest.mark.parametrize("size", ["2", "many"])
def test_other_processes_that_nobody_started_are_told(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", size)
    told = rf"WORLD_SIZE is '{size}', .* \(environment variable RANK expected, but not set\): start them with torchrun"
    with pytest.raises(ConfigError, match=told), joined(torch.device("cpu")):
        pass


def test_rows_of_a_batch_are_shared_without_a_gap() -> None:
    for n in (0, 1, 7, 64):
        parts = [World(rank, 3).take(n) for rank in range(3)]
        assert [row for part in parts for row in range(n)[part]] == list(range(n))


def test_alone_nothing_is_changed() -> None:
    world, values = World(), torch.ones(2)
    assert world.add(values) is values
    assert world.agree(None) is None
    assert world.agree(15) == 15
    assert world.told(True) and not world.told(False)
    assert world.same("ffffffffffffffff")


def test_batch_normalisation_is_torchs() -> None:
    torch.manual_seed(0)
    # A world that counts itself twice has the statistics, and twice the rows, of one.
    ours, theirs = (nn.BatchNorm2d(3) for _ in range(2))
    inputs = [torch.randn(5, 3, 4, 2).requires_grad_() for _ in range(2)]
    inputs[1].data.copy_(inputs[0])
    world = World(size=2)
    world.add = lambda values: values.mul_(2)  # type: ignore[method-assign]
    with world.sharing():
        found = ours(inputs[0])
    expected = theirs(torch.cat([inputs[1], inputs[1]]))[:5]
    torch.testing.assert_close(found, expected)
    assert torch.equal(ours.num_batches_tracked, theirs.num_batches_tracked)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    ours.eval(), theirs.eval()
    with world.sharing():
        torch.testing.assert_close(ours(inputs[0]), theirs(inputs[1]))


def test_dropout_is_the_rows_of_one_mask() -> None:
    values = torch.rand(7, 3)
    torch.manual_seed(1)
    whole = nn.Dropout(0.4)(values)
    for rank in range(3):
        world = World(rank, 3)
        rows = world.take(7)
        torch.manual_seed(1)
        with world.sharing():
            assert torch.equal(nn.Dropout(0.4)(values[rows]), whole[rows])
            assert nn.Dropout(0.4).eval()(values) is values


def test_what_cannot_be_shared_is_refused() -> None:
    refused = pytest.raises(ConfigError, match="dropout2d cannot be shared among processes; train with one")
    with refused, World(0, 2).sharing():
        nn.Dropout2d(0.1)(torch.rand(2, 3, 4, 4))
