"""kill -9 at random moments: the run goes on from its last whole checkpoint and ends in the same bits."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

from pcam.config import build_config
from pcam.storage import sha256_file
from pcam.training import Run, train

CONFIG = build_config(
    {"model": {"name": "mlp", "hidden": 4}, "train": {"epochs": 40, "batch_size": 16, "threads": 1}},
)
KILLS = 10


def _train_quietly(data: Path, runs: Path) -> None:
    train(CONFIG, data, runs, resume=True, progress=False)


def test_killed_anywhere_ends_in_the_same_bits(tiny: Path, tmp_path: Path) -> None:
    whole = train(CONFIG, tiny, tmp_path / "whole", progress=False)
    run = Run(tmp_path / "killed" / whole.id)
    # Forked from a server that has torch, so that a life is training and checkpoint writing rather than an import; not
    # from this process, whose threads a fork would lack and wait for.
    context, chance, reached = multiprocessing.get_context("forkserver"), random.Random(0), []
    context.set_forkserver_preload(["pcam.training.launch"])
    for _ in range(KILLS):
        began, more = len(run.steps), chance.randint(0, 15)
        process = context.Process(target=_train_quietly, args=(tiny, run.path.parent))
        process.start()
        # Some steps on, however busy the machine is, and then at no moment in particular.
        while process.is_alive() and len(run.steps) <= began + more:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        process.join()
        reached.append(len(run.steps))
    resumed = train(CONFIG, tiny, run.path.parent, resume=True, progress=False)
    assert len(set(reached)) > 3, f"the kills came at no different moments: {reached}"
    assert resumed.id == whole.id
    assert sha256_file(run.path / "model.safetensors") == sha256_file(whole.path / "model.safetensors")
    assert [{**row, "seconds": 0} for row in run.epochs] == [{**row, "seconds": 0} for row in whole.epochs]
    assert run.steps == whole.steps
    assert not [path for path in run.path.rglob("*") if path.name.startswith(".")]
