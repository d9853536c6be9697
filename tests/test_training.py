"""Training ends in the same bits however it got there, and says why when it cannot go on."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from pcam.config import Config, build_config, dump_yaml
from pcam.data.loader import Loader
from pcam.errors import ConfigError, DataError, RunError, StorageError
from pcam.storage import sha256_file
from pcam.training import Interrupted, Run, TrainingFailed, list_runs, load_model, train
from pcam.training import loop as loop_module
from pcam.training.seeds import CONTROLS, Seeds
from pcam.training.validate import roc_auc, validate

SMALL = {
    "model": {"name": "mlp", "hidden": 4, "dropout": 0.2},
    "train": {"epochs": 3, "batch_size": 16, "threads": 1, "augment": {"flip": True, "rotate": True, "color": 0.1}},
}


def small(*overrides: str) -> Config:
    return build_config(SMALL, overrides)


def weights_hash(run: Run) -> str:
    return sha256_file(run.path / "model.safetensors")


def rows_without_time(run: Run) -> list[dict]:
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal in the given optimiser step of the next run."""
    rate, seen = loop_module.learning_rate, [0]

    def counting(*args: object) -> float:
        seen[0] += 1
        if seen[0] == steps:
            os.kill(os.getpid(), number)
        return rate(*args)

    monkeypatch.setattr(loop_module, "learning_rate", counting)


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run of 9 steps."""
    return train(small(), tiny, tmp_path_factory.mktemp("runs"), progress=False)


def test_a_completed_run_has_learned_something_and_logged_all(whole: Run) -> None:
    assert whole.state == "completed"
    assert [row["step"] for row in whole.steps] == list(range(9))
    assert [row["epoch"] for row in whole.epochs] == [0, 1, 2]
    assert whole.epochs[-1]["train_loss"] < whole.epochs[0]["train_loss"]
    assert all(row["grad_norm"] > 0 and math.isfinite(row["loss"]) for row in whole.steps)
    last = whole.epochs[-1]
    assert whole.final == {
        **{key: last[key] for key in ("epoch", "train_loss", "valid_loss", "valid_auc", "valid_accuracy", "lr")},
        "steps": 9,
        "seconds": pytest.approx(sum(row["seconds"] for row in whole.epochs), abs=0.01),
        "sha256": weights_hash(whole),
    }


def test_epoch_loss_is_the_mean_over_patches_not_over_batches(tiny: Path, tmp_path: Path) -> None:
    run = train(small("train.batch_size=20", "train.epochs=1"), tiny, tmp_path, progress=False)
    losses = [row["loss"] for row in run.steps]
    assert run.final["train_loss"] == pytest.approx((20 * losses[0] + 20 * losses[1] + 8 * losses[2]) / 48)


def test_twin_ends_in_the_same_bits(whole: Run, tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)  # what ran before in the process must not matter
    torch.rand(5)
    twin = train(small(), tiny, tmp_path, progress=False)
    assert twin.id == whole.id
    assert weights_hash(twin) == weights_hash(whole)
    assert rows_without_time(twin) == rows_without_time(whole)


@pytest.mark.parametrize("override", ["data.workers=2", "train.log_every=4", "train.checkpoint_every=2"])
def test_what_must_not_matter_does_not(whole: Run, tiny: Path, tmp_path: Path, override: str) -> None:
    other = train(small(override), tiny, tmp_path, progress=False)
    assert other.id != whole.id
    assert weights_hash(other) == weights_hash(whole)


def test_another_seed_ends_elsewhere(whole: Run, tiny: Path, tmp_path: Path) -> None:
    assert weights_hash(train(small("seed=1"), tiny, tmp_path, progress=False)) != weights_hash(whole)


@pytest.mark.parametrize("control", CONTROLS)
def test_each_control_matters(whole: Run, tiny: Path, tmp_path: Path, control: str) -> None:
    other = train(small(), tiny, tmp_path, progress=False, seeds=Seeds.of(0).switched_off(control))
    assert other.id != whole.id
    assert weights_hash(other) != weights_hash(whole)
    assert other.environment["controls"]["seeds"]["off"] == [control]


@pytest.mark.parametrize("step", range(1, 10))
def test_interrupted_after_any_step_ends_in_the_same_bits(
    whole: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(patched, step)
        with pytest.raises(Interrupted, match=rf"stopped by SIGTERM after step {step} of 9; continue it with --resume"):
            train(small(), tiny, tmp_path, progress=False)
    run = Run(tmp_path / whole.id)
    assert run.state == "interrupted"
    assert not (run.path / "model.safetensors").exists()
    resumed = train(small(), tiny, tmp_path, resume=True, progress=False)
    assert weights_hash(resumed) == weights_hash(whole)
    assert rows_without_time(resumed) == rows_without_time(whole)
    assert resumed.environment["resumed"] is True


@pytest.mark.parametrize("fields", [["train.optimizer=sgd"], ["model.name=cnn", "model.width=2", "model.depth=2"]])
def test_resume_of_other_optimisers_and_models(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: list[str]
) -> None:
    config = small(*fields, "train.schedule=plateau", "train.patience=5")
    expected = weights_hash(train(config, tiny, tmp_path / "whole", progress=False))
    with monkeypatch.context() as patched:
        interrupt_after(patched, 5)
        with pytest.raises(Interrupted):
            train(config, tiny, tmp_path / "cut", progress=False)
    assert weights_hash(train(config, tiny, tmp_path / "cut", resume=True, progress=False)) == expected


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_each_signal_saves_and_tells_its_exit_code(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    before = signal.getsignal(number)
    interrupt_after(monkeypatch, 2, number)
    with pytest.raises(Interrupted) as caught:
        train(small(), tiny, tmp_path, progress=False)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before


def test_an_interrupted_run_is_refused_without_resume(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(patched, 2)
        with pytest.raises(Interrupted):
            train(small(), tiny, tmp_path, progress=False)
    with pytest.raises(RunError, match=r"this run was interrupted .* continue it with --resume"):
        train(small(), tiny, tmp_path, progress=False)


@pytest.mark.parametrize("content", [None, b"", b'{"kind": "step"}\n', b"\xff\xfe\n"])
def test_a_log_that_lost_lines_is_refused(
    content: bytes | None, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(patched, 2)
        with pytest.raises(Interrupted):
            train(small(), tiny, tmp_path, progress=False)
    (log,) = tmp_path.glob("*/metrics.jsonl")
    log.unlink() if content is None else log.write_bytes(content)
    with pytest.raises(RunError, match=r"metrics.jsonl holds [01] of the 2 lines .*: restore it, or remove the run"):
        train(small(), tiny, tmp_path, resume=True, progress=False)


def test_nan_loss_fails_with_its_reason(tiny: Path, tmp_path: Path) -> None:
    config = small("train.optimizer=sgd", "train.lr=100", "train.schedule=constant", "train.epochs=30")
    with pytest.raises(TrainingFailed, match=r"loss became (nan|inf) at step \d+ .*lower train.lr"):
        train(config, tiny, tmp_path, progress=False)
    (run,) = [Run(path) for path in tmp_path.iterdir()]
    assert run.state == "failed"
    assert "lower train.lr" in run.status["reason"]
    with pytest.raises(RunError, match=r"this run was failed .*lower train.lr"):
        train(config, tiny, tmp_path, progress=False)


def test_patience_stops_early_and_keeps_the_best(tiny: Path, tmp_path: Path) -> None:
    config = small("train.patience=1", "train.epochs=12", "train.lr=0.3", "train.schedule=constant")
    run = train(config, tiny, tmp_path, progress=False)
    losses = [row["valid_loss"] for row in run.epochs]
    assert len(losses) < 12
    assert losses[-1] >= min(losses[:-1])
    assert run.final["valid_loss"] == min(losses)
    from pcam.data.format import open_split

    again = validate(load_model(run), Loader(open_split(tiny, "valid"), 256))
    assert again["valid_loss"] == pytest.approx(min(losses), abs=1e-6)


def test_plateau_lowers_the_rate(tiny: Path, tmp_path: Path) -> None:
    run = train(small("train.schedule=plateau", "train.epochs=12", "train.lr=0.3"), tiny, tmp_path, progress=False)
    assert run.epochs[-1]["lr"] < run.epochs[0]["lr"] == 0.3


def test_gradient_norm_is_clipped_in_the_update_not_in_the_log(tiny: Path, tmp_path: Path) -> None:
    fields = ("train.optimizer=sgd", "train.momentum=0", "train.schedule=constant", "train.epochs=1")
    free = train(small(*fields), tiny, tmp_path, progress=False)
    clipped = train(small(*fields, "train.grad_clip=1e-6"), tiny, tmp_path, progress=False)
    assert clipped.steps[0]["grad_norm"] == free.steps[0]["grad_norm"] > 1e-6
    assert clipped.steps[-1]["loss"] != free.steps[-1]["loss"]


def test_model_scores_as_the_run_logged(whole: Run, tiny: Path) -> None:
    from pcam.data.format import open_split

    scores = validate(load_model(whole), Loader(open_split(tiny, "valid"), 256))
    assert scores == {key: pytest.approx(whole.final[key]) for key in scores}


def test_loading_a_model_draws_no_random_number(whole: Run) -> None:
    before = torch.get_rng_state()
    load_model(whole)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([0, 0, 1, 1], [1, 2, 3, 4], 1.0),
        ([0, 1, 0, 1], [1, 2, 3, 4], 0.75),
        ([0, 1], [5, 5], 0.5),
        ([1, 1], [1, 2], None),
    ],
)
def test_roc_auc(labels: list[int], scores: list[float], expected: float | None) -> None:
    assert roc_auc(np.array(labels, np.uint8), np.array(scores, float)) == expected


def test_roc_auc_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(0)
    labels, scores = generator.integers(0, 2, 300), generator.integers(0, 40, 300) / 7
    assert roc_auc(labels.astype(np.uint8), scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


# ---------------------------------------------------------------- bad input


def test_one_class(tiny: Path, tmp_path: Path) -> None:
    import shutil

    import h5py

    from pcam.data.format import split_path

    folder = tmp_path / "data"
    shutil.copytree(tiny, folder)
    with h5py.File(split_path(folder, "train", "y"), "r+") as file:
        file["y"][:] = 1
    with pytest.raises(DataError, match=r"train: every label is 1; training needs patches of both classes"):
        train(small(), folder, tmp_path / "runs", progress=False)
    assert not (tmp_path / "runs").exists()


def test_unknown_model_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^override 'model\.name=mpl': 'model\.name' is 'mpl': input should be "):
        train(small("model.name=mpl"), tiny, tmp_path / "runs", progress=False)
    assert not (tmp_path / "runs").exists()


def test_missing_split_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"split_train_x.h5: file: missing"):
        train(small(), tmp_path / "empty", tmp_path / "runs", progress=False)


def test_runs_folder_that_cannot_be_written(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(StorageError, match="choose another path"):
        train(small(), tiny, tmp_path / "runs", progress=False)


COMPILED = """
import os, signal, sys
from pathlib import Path
from pcam.config import load_config
from pcam.training import Interrupted, loop, train

config, data, folder = load_config(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
train(config, data, folder / "whole", progress=False)
rate = loop.learning_rate

def stopped(settings, step, *rest):
    if step == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return rate(settings, step, *rest)

loop.learning_rate = stopped
try:
    train(config, data, folder / "stopped", progress=False)
except Interrupted:
    loop.learning_rate = rate
    train(config, data, folder / "stopped", progress=False, resume=True)
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile with")
def test_a_compiled_network_learns_the_same_and_resumes_in_the_same_bits(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 20, 20 and 8 patches: it goes on with the short batch, whose kernels the whole run compiled second.
    config = small("train.compile=true", "train.batch_size=20", "model.dropout=0")
    (tmp_path / "config.yaml").write_text(dump_yaml(config))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    command = [sys.executable, "-c", COMPILED, str(tmp_path / "config.yaml"), str(tiny), str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"})
    whole, stopped = (list_runs(tmp_path / name)[0] for name in ("whole", "stopped"))
    assert stopped.environment["resumed"] and not whole.environment["resumed"]
    assert weights_hash(stopped) == weights_hash(whole)
    assert rows_without_time(stopped) == rows_without_time(whole)
    plain = train(small("train.batch_size=20", "model.dropout=0"), tiny, tmp_path / "plain", progress=False)
    losses = [[row["loss"] for row in run.steps] for run in (whole, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_what_cannot_be_compiled_is_one_line(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"needs a compiler, and 'no-such-compiler' is not there: install it"):
        train(small("train.compile=true", "train.device=cpu"), tiny, tmp_path / "runs", progress=False)
    assert not (tmp_path / "runs").exists()
    monkeypatch.setenv("CXX", "false")
    (tmp_path / "config.yaml").write_text(dump_yaml(small("train.compile=true", "train.device=cpu")))
    command = ["train", str(tmp_path / "config.yaml"), "--data", str(tiny), "--runs", str(tmp_path / "runs")]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "pcam", *command], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 2
    assert "the network could not be compiled" in done.stderr and "Traceback" not in done.stderr
    assert list_runs(tmp_path / "runs")[0].state == "failed"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_step_waits_for_the_gpu(tiny: Path, tmp_path: Path) -> None:
    def waits(batch_size: int) -> int:
        augment = [f"train.augment.{name}=0.1" for name in ("color", "stain")]
        config = small(f"train.batch_size={batch_size}", "train.augment.shift=2", *augment)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                train(config, tiny, tmp_path / str(batch_size), progress=False)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(warning.message) for warning in found)

    waits(48)  # libraries start
    few, many = waits(24), waits(1)
    assert many - few < 48, "46 more steps an epoch, of three, may wait only where the log is read back"
