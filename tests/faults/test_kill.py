"""kill -9 at random moments: the run goes on from its last whole checkpoint and ends in the same bits."""

from __future__ import annotations

import multiprocessing
import random
from pathlib import Path

from pcam.config import build_config
from pcam.storage import sha256_file
from pcam.training import Run, train

CONFIG = build_config(
    {"model": {"name": "mlp", "hidden": 4}, "train": {"epochs": 30, "batch_size": 16, "threads": 1}},
)
KILLS = 12


def _train_quietly(data: Path, runs: Path) -> None:
    train(CONFIG, data, runs, resume=True, progress=False)


def test_killed_anywhere_ends_in_the_same_bits(tiny: Path, tmp_path: Path) -> None:
    whole = train(CONFIG, tiny, tmp_path / "whole", progress=False)
    run = Run(tmp_path / "killed" / whole.id)
    # Forked, so that a life is training and checkpoint writing rather than the import of torch.
    context, chance, reached = multiprocessing.get_context("fork"), random.Random(0), set()
    for _ in range(KILLS):
        process = context.Process(target=_train_quietly, args=(tiny, run.path.parent))
        process.start()
        process.join(chance.uniform(0.02, 0.3))
        process.kill()
        process.join()
        reached.add(len(run.epochs))
    resumed = train(CONFIG, tiny, run.path.parent, resume=True, progress=False)
    assert len(reached) > 2, f"the kills came at no different moments: {reached}"
    assert resumed.id == whole.id
    assert sha256_file(run.path / "model.safetensors") == sha256_file(whole.path / "model.safetensors")
    assert [{**row, "seconds": 0} for row in run.epochs] == [{**row, "seconds": 0} for row in whole.epochs]
    assert run.steps == whole.steps
    assert not [path for path in run.path.rglob("*") if path.name.startswith(".")]
