"""Interrupt a run after every step, and kill it at random moments: does it always end in the same bits?

    python benchmarks/resume.py [--kills 200] [--seed 0]

A run of 40 steps and ten checkpoints, with all that a checkpoint can hold. First it is stopped by a signal after each
of its steps in turn. Then it is killed with SIGKILL: every second time at a random moment of the wall clock, else in
the middle of a random operation on a file (half of it written, before it is flushed, before or after it is renamed,
while an old checkpoint is removed). After each, its last checkpoint must load, and going on must end in the weights and
the log of the run that nobody touched, with the same files and no stray ones. Exits with 1 if any does not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from pcam.config import build_config
from pcam.data.synthetic import write_sample
from pcam.errors import RunError
from pcam.storage import sha256_file
from pcam.training import Interrupted, Run, loop, train
from pcam.training.checkpoint import load_last

CONFIG = build_config(
    {
        "model": {"name": "mlp", "hidden": 4, "dropout": 0.2},
        "train": {
            **{"epochs": 10, "batch_size": 16, "threads": 1, "schedule": "plateau", "patience": 10, "average": 0.9},
            "augment": {"flip": True, "rotate": True, "color": 0.1},
        },
    }
)
STEPS = 40


def outcome(run: Run) -> dict[str, Any]:
    """Return all that has to be the same: state, weights, log without times, names of files.

    Of the two checkpoints that are kept the earlier may be the one that was written at the interruption.
    """
    earlier = sorted(path.name for path in (run.path / "checkpoints").iterdir())[:-1]
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    return {
        "state": run.state,
        "weights": sha256_file(run.path / "model.safetensors"),
        "log": [{key: value for key, value in row.items() if key != "seconds"} for row in rows],
        "files": sorted(str(p.relative_to(run.path)) for p in run.path.rglob("*") if not {*p.parts} & {*earlier[:1]}),
        "checkpoints": len(earlier) + 1,
    }


@contextmanager
def counted(act: Callable[[int], bool]) -> Iterator[list[int]]:
    """Count operations on files; kill this process in the middle of the one for which `act` says so."""
    seen = [0]

    def broken(owner: Any, name: str, half: Callable[..., None] | None) -> Any:
        whole = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            seen[0] += 1
            if act(seen[0]):
                if half:
                    half(*args)
                os.kill(os.getpid(), signal.SIGKILL)
            result = whole(*args, **kwargs)
            seen[0] += 1
            if act(seen[0]):  # done, and nothing after it
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return mock.patch.object(owner, name, call)

    def half_file(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])

    def half_line(path: Path, lines: list[str]) -> None:
        with Path(path).open("a") as file:
            file.write(lines[0][: len(lines[0]) // 2])

    def half_folder(path: Path) -> None:
        for file in sorted(Path(path).iterdir())[::2]:
            file.unlink()

    operations = [
        *((Path, name, None) for name in ("replace", "rename", "unlink", "mkdir")),
        (Path, "write_bytes", half_file),
        (loop, "append_lines", half_line),
        (shutil, "rmtree", half_folder),
        (os, "fsync", None),
    ]
    patches = [broken(*operation) for operation in operations]
    for patch in patches:
        patch.start()
    try:
        yield seen
    finally:
        for patch in patches:
            patch.stop()


def in_child(work: Callable[[], object], kill_after: float | None = None) -> bool:
    """Do some work in a forked process, which may be killed after some seconds; return whether it came to its end."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(kill_after)
    process.kill()
    process.join()
    return process.exitcode == 0


def stopped_after(step: int, data: Path, runs: Path, expected: dict[str, Any]) -> bool:
    """Stop a run by a signal in one of its steps, let it go on, and compare."""
    rate = loop.learning_rate

    def signalling(settings: Any, now: int, *rest: Any) -> float:
        if now == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return rate(settings, now, *rest)

    try:
        with mock.patch.object(loop, "learning_rate", signalling):
            train(CONFIG, data, runs, progress=False)
    except Interrupted as error:
        if f"after step {step} of {STEPS}" not in str(error):
            return False
        return outcome(train(CONFIG, data, runs, resume=True, progress=False)) == expected
    return False


def main() -> int:
    """Count what came through."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_sample(folder / "data", train=64, valid=24, test=8, seed=3, progress=False)
        with counted(lambda _: False) as seen:
            whole = train(CONFIG, data, folder / "whole", progress=False)
        expected, operations = outcome(whole), seen[0]
        assert whole.final["steps"] == STEPS, "the run is not as long as it should be"
        began = time.perf_counter()
        in_child(lambda: train(CONFIG, data, folder / "timed", progress=False))
        seconds = time.perf_counter() - began

        good = 0
        for step in range(1, STEPS + 1):
            if stopped_after(step, data, folder / f"stopped-{step}", expected):
                good += 1
            else:
                print(f"stopped after step {step}: not the same")
            shutil.rmtree(folder / f"stopped-{step}")
        print(f"stopped after every step: {good} of {STEPS} end in the same bits", flush=True)

        loaded = same = alive = 0
        for number in range(options.kills):
            runs = folder / f"killed-{number}"
            if number % 2:
                moment, after = f"after {(after := chance.uniform(0.0, seconds)):.3f} s", after
                ended = in_child(lambda runs=runs: train(CONFIG, data, runs, progress=False), after)  # type: ignore[misc]
            else:
                place = chance.randint(1, operations)
                moment = f"in operation {place} of {operations}"

                def killed(runs: Path = runs, place: int = place) -> None:
                    with counted(lambda count: count == place):
                        train(CONFIG, data, runs, progress=False)

                ended = in_child(killed)
            alive += ended
            run = Run(runs / whole.id)
            try:
                load_last(run.path / "checkpoints", run.id)
                loaded += 1
            except RunError as error:
                print(f"killed {moment}: {error}")
            came_through = in_child(lambda runs=runs: train(CONFIG, data, runs, resume=True, progress=False))  # type: ignore[misc]
            found = outcome(run) if came_through else {}
            if found == expected:
                same += 1
            else:
                print(f"killed {moment}: not the same: {[k for k in expected if expected[k] != found.get(k)]}")
            shutil.rmtree(runs)
        kills = options.kills
        print(f"killed: {loaded} of {kills} load, {same} of {kills} end in the same bits and files")
        print(f"{alive} of them were done before the kill came; {operations} moments in operations on files")
    return 0 if good == STEPS and loaded == same == kills else 1


if __name__ == "__main__":
    sys.exit(main())
