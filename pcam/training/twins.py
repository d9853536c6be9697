"""Twin runs: is a run its record's only possible outcome, what breaks that, and what does it cost?

Twins are trained by two fresh processes through the command line, as a person would; nothing but the files
that they leave is compared. The reverse is shown in one process: with one control switched off, twins part.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pcam.config import Config, build_config, dump_yaml
from pcam.data.augment import augment
from pcam.data.loader import augment_generator
from pcam.errors import RunError
from pcam.models import build
from pcam.storage import make_folder, sha256_file, write_text
from pcam.training.launch import train
from pcam.training.loop import make_optimiser
from pcam.training.runs import MODEL_FILE, Run, open_run
from pcam.training.seeds import CONTROLS, Seeds, choose_device, reproducible


@dataclass(frozen=True)
class Twins:
    """Two runs that should have the same bits.

    Attributes:
        label: what was trained.
        runs: the two completed runs.
    """

    label: str
    runs: tuple[Run, Run]

    @property
    def hashes(self) -> tuple[str, str]:
        """SHA-256 of the two model files, computed from the files now."""
        first, second = (sha256_file(run.path / MODEL_FILE) for run in self.runs)
        return first, second

    @property
    def same_weights(self) -> bool:
        """Whether every bit of the weights is the same."""
        return len(set(self.hashes)) == 1

    @property
    def same_log(self) -> bool:
        """Whether both logged the same numbers at every step and epoch, times excepted."""
        first, second = (run.timeless_rows for run in self.runs)
        return first == second

    def gap(self, name: str) -> float:
        """Absolute difference of a final value, such as "valid_loss"."""
        return abs(self.runs[0].final[name] - self.runs[1].final[name])


def train_twins(configs: dict[str, Config], data_dir: Path, folder: Path) -> list[Twins]:
    """Train each configuration twice, in two fresh processes side by side.

    Args:
        configs: by a label for the reader.
        data_dir: the data folder.
        folder: emptied first, so that nothing which is compared was there before.

    Raises:
        RunError: a process failed; its message says why.
    """
    if folder.exists():
        shutil.rmtree(folder)
    twins = []
    for label, config in configs.items():
        path = write_text(make_folder(folder) / f"{label}.yaml", dump_yaml(config))
        command = [sys.executable, "-m", "pcam", "train", str(path), "--data", str(data_dir), "--runs"]
        processes = [
            subprocess.Popen([*command, str(folder / side)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for side in ("first", "second")
        ]
        ends = [process.communicate() for process in processes]
        for process, (_, complaint) in zip(processes, ends, strict=True):
            if process.returncode:
                raise RunError(f"twin of {label}: {complaint.strip().splitlines()[-1]}")
        first, second = (open_run(output.strip().splitlines()[-1]) for output, _ in ends)
        twins.append(Twins(label, (first, second)))
    return twins


def switched_off(config: Config, data_dir: Path, folder: Path) -> dict[str, Twins]:
    """Train pairs in this process: all controls on, then each one off in turn.

    A seed that is off is drawn from the operating system for each of the two. "determinism" allows any
    algorithm; "threads" gives the second one another number of threads; "workers" lets two processes
    read for the second one, which must change nothing.
    """
    if folder.exists():
        shutil.rmtree(folder)

    def run(side: str, config: Config = config, seeds: Seeds | None = None) -> Run:
        return train(config, data_dir, folder / side, progress=False, seeds=seeds)

    def changed(override: str) -> Config:
        return build_config(config.model_dump(), [override])

    baseline, seeds = run("first"), Seeds.of(config.seed)
    pairs = {"nothing": Twins("nothing", (baseline, run("second")))}
    for control in CONTROLS:
        pair = run("first", seeds=seeds.switched_off(control)), run("second", seeds=seeds.switched_off(control))
        pairs[control] = Twins(control, pair)
    free = changed("train.deterministic=false")
    pairs["determinism"] = Twins("determinism", (run("first", free), run("second", free)))
    threads = 2 if config.train.threads == 1 else 1
    pairs["threads"] = Twins("threads", (baseline, run("second", changed(f"train.threads={threads}"))))
    pairs["workers"] = Twins("workers", (baseline, run("second", changed("data.workers=2"))))
    return pairs


def cost_of_determinism(config: Config, pairs: int, steps: int = 4) -> list[tuple[float, float]]:
    """Time a training step with and without deterministic algorithms, in turn.

    Args:
        config: model, batch size and precision to time; random patches stand for data.
        pairs: how many times both are timed, after one untimed pair.
        steps: steps behind each figure, which is their median.

    Returns:
        (seconds a step with, seconds a step without) of each pair.
    """
    timed = []
    for number in range(pairs + 1):
        # Turn about, so that a machine that slows down slows both.
        order = (True, False) if number % 2 else (False, True)
        seconds = {deterministic: _step_seconds(config, deterministic, steps) for deterministic in order}
        timed.append((seconds[True], seconds[False]))
    return timed[1:]


def _step_seconds(config: Config, deterministic: bool, steps: int) -> float:
    device, settings = choose_device(config.train.device), config.train
    with reproducible(Seeds.of(config.seed), deterministic, settings.threads):
        model = build(config.model).to(device)
        optimiser = make_optimiser(model, settings)
        patches = torch.randint(0, 256, (settings.batch_size, 96, 96, 3), dtype=torch.uint8).to(device)
        seconds = []
        for step in range(steps + 1):
            began = time.perf_counter()
            inputs = model.normalise(augment(patches, settings.augment, augment_generator(0, 0, step)))
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                loss = model(inputs).float().square().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            loss.item()  # waits for the device
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def all_equal(twins: Sequence[Twins]) -> bool:
    """Return whether every pair has the same weights and the same log; false when there is none."""
    return bool(twins) and all(pair.same_weights and pair.same_log for pair in twins)
