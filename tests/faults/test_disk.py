"""What fails under a run ends it with one line; its last good checkpoint is whole and goes on to the same bits."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import psutil
import pytest
import torch

from pcam import storage
from pcam.config import build_config
from pcam.errors import RunError, StorageError
from pcam.storage import sha256_file
from pcam.training import Run, TrainingFailed, loop, train
from pcam.training.checkpoint import load_last

CONFIG = build_config(
    {"model": {"name": "mlp", "hidden": 4}, "train": {"epochs": 4, "batch_size": 16, "threads": 1}},
)
MENDS = {errno.ENOSPC: "the disk is full; free some space", errno.EROFS: "the file system is read-only; choose another"}


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(CONFIG, tiny, tmp_path_factory.mktemp("whole"), progress=False)


def check_and_resume(run: Run, tiny: Path, whole: Run, reason: str, steps: int) -> None:
    """A failed run says why, has a sound last checkpoint and no strays, and ends as the whole one."""
    assert run.state == "failed"
    assert reason in run.status["reason"]
    loaded = load_last(run.path / "checkpoints", run.id)
    assert loaded is not None
    assert loaded[2]["step"] == steps
    assert not list(run.path.rglob(".*"))
    with pytest.raises(RunError, match=r"this run was failed .*continue it with --resume"):
        train(CONFIG, tiny, run.path.parent, progress=False)
    resumed = train(CONFIG, tiny, run.path.parent, resume=True, progress=False)
    assert sha256_file(resumed.path / "model.safetensors") == sha256_file(whole.path / "model.safetensors")


@pytest.mark.parametrize("code", MENDS)
@pytest.mark.parametrize("victim", ["state.pt", "weights.safetensors", "model.safetensors", "metrics.jsonl"])
def test_a_disk_that_takes_no_more(
    victim: str, code: int, whole: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, append, seen = Path.write_bytes, storage.append_lines, [0]

    def fail_from_the_third_on(path: Path) -> None:
        # Temporary names hold the stem; a few bytes, such as those of the status, still find room.
        if path.name.lstrip(".").startswith(Path(victim).stem) and path.suffix == Path(victim).suffix:
            seen[0] += 1
            if victim == "model.safetensors" or seen[0] > 2:
                raise OSError(code, "full")

    def writing(path: Path, content: bytes) -> int:
        if len(content) > 200 and victim != "metrics.jsonl":
            fail_from_the_third_on(path)
        return write(path, content)

    def appending(path: Path, lines: list[str]) -> None:
        with storage.writing(path):
            if victim == "metrics.jsonl" and '"epoch"' in lines[0][:20]:
                fail_from_the_third_on(path)
        append(path, lines)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", writing)
        patched.setattr(loop, "append_lines", appending)
        with pytest.raises(StorageError, match=MENDS[code]):
            train(CONFIG, tiny, tmp_path, progress=False)
    steps = 12 if victim == "model.safetensors" else 6
    check_and_resume(Run(tmp_path / whole.id), tiny, whole, MENDS[code], steps)


def test_a_reason_that_cannot_be_recorded_is_still_raised(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rate = loop.learning_rate

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:

        def filling(*args: object) -> float:
            patched.setattr(Path, "write_bytes", full)
            return rate(*args)

        patched.setattr(loop, "learning_rate", filling)
        with pytest.raises(StorageError, match=r"cannot write .*step-00000003.*the disk is full"):
            train(CONFIG, tiny, tmp_path, progress=False)
    assert "the run's failure could not be recorded" in caplog.text
    with pytest.raises(RunError, match="this run was interrupted; continue it with --resume"):
        train(CONFIG, tiny, tmp_path, progress=False)


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_no_checkpoint_holds_a_nan(
    number: str, whole: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, calls = loop.binary_cross_entropy_with_logits, [0]

    def spoiling(*args: torch.Tensor, **how: str) -> torch.Tensor:
        calls[0] += 1
        return loss(*args, **how) * (float(number) if calls[0] == 8 else 1)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "binary_cross_entropy_with_logits", spoiling)
        with pytest.raises(TrainingFailed, match=rf"loss became {number} at step 7 \(epoch 2\): lower train.lr"):
            train(CONFIG, tiny, tmp_path, progress=False)
    assert calls[0] > 8, "losses are read late, or the test is not about what it says"
    check_and_resume(Run(tmp_path / whole.id), tiny, whole, f"the loss became {number} at step 7", 6)


def test_a_killed_reader(whole: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = build_config(CONFIG.model_dump(), ["data.workers=1"])
    rate, others = loop.learning_rate, set(psutil.Process().children())  # such as another test's browser

    def killing(settings: object, step: int, *rest: object) -> float:
        if step == 6:
            for child in set(psutil.Process().children()) - others:
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
        return rate(settings, step, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "learning_rate", killing)
        with pytest.raises(RunError, match=r"a reader process died .*continue with --resume, or with data\.workers=0"):
            train(config, tiny, tmp_path, progress=False)
    (run,) = [Run(path) for path in tmp_path.iterdir()]
    assert run.state == "failed"
    assert "a reader process died" in run.status["reason"]
    resumed = train(config, tiny, tmp_path, resume=True, progress=False)
    assert sha256_file(resumed.path / "model.safetensors") == sha256_file(whole.path / "model.safetensors")
