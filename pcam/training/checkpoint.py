"""Checkpoints and weights: written whole or not at all, verified when read, never unpickled.

    checkpoints/step-00000120/weights.safetensors    the model
                              best.safetensors       the best model so far, where a patience is set
                              state.pt               optimiser, generators, position; read with weights_only
                              SHA256SUMS             checked before anything is read; `sha256sum -c` reads it too

The folder is renamed into place when all of it is on the disk. The last two are kept: should the last be
damaged, the one before it is used, with a warning that names both.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from pcam.config import ModelConfig
from pcam.errors import RunError
from pcam.storage import atomic_path, sha256_file, write_bytes, write_text

FORMAT = 1
_KEPT = 2
_SUMS = "SHA256SUMS"


def weights_bytes(weights: Mapping[str, torch.Tensor], config: ModelConfig) -> bytes:
    """Return a model's weights and buffers as safetensors; equal weights give equal bytes."""
    # One metadata key: safetensors writes several in an order that changes from process to process.
    about = json.dumps({"format": FORMAT, "model": config.model_dump()}, sort_keys=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    return save_tensors(tensors, metadata={"pcam": about})


def read_weights(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    """Read a safetensors file after checking its hash.

    Raises:
        RunError: it is missing, or its bytes are not those that were written.
    """
    if not path.is_file():
        raise RunError(f"{path} is missing; restore it, or remove the run folder and train again")
    if sha256_file(path) != sha256:
        raise RunError(f"{path} is damaged: its SHA-256 is not the recorded one; restore it, or train again")
    try:
        return load_tensors(path.read_bytes())
    except SafetensorError as error:
        raise RunError(f"{path} is not a safetensors file ({error}); restore it, or train again") from error


def save_checkpoint(
    folder: Path,
    step: int,
    weights: Mapping[str, torch.Tensor],
    best: Mapping[str, torch.Tensor] | None,
    state: dict[str, Any],
    config: ModelConfig,
) -> Path:
    """Write a checkpoint of a run and remove those before the last two.

    Args:
        folder: the run's `checkpoints` folder.
        step: steps done; it names the checkpoint.
        weights: the model's state.
        best: the best model's state, or None.
        state: all else that resuming needs: tensors, numbers, texts and containers of them.
        config: of the model.

    Raises:
        StorageError: it cannot be written; the earlier checkpoints are untouched.
    """
    target = folder / f"step-{step:08d}"
    if target.exists():  # a resumed run passes the same steps again, with the same bits
        shutil.rmtree(target)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, **state}, buffer)
    files = {"weights.safetensors": weights_bytes(weights, config), "state.pt": buffer.getvalue()}
    if best is not None:
        files["best.safetensors"] = weights_bytes(best, config)
    with atomic_path(target) as temporary:
        for name, content in files.items():
            write_bytes(temporary / name, content)
        sums = [f"{sha256_file(temporary / name)}  {name}\n" for name in sorted(files)]
        write_text(temporary / _SUMS, "".join(sums))
    for old in checkpoint_folders(folder)[:-_KEPT]:
        shutil.rmtree(old)
    return target


def checkpoint_folders(folder: Path) -> list[Path]:
    """Return the checkpoints in a run's `checkpoints` folder, oldest first."""
    return sorted(folder.glob("step-????????"))


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None, dict[str, Any]]:
    """Read one checkpoint: weights, best weights or None, and state.

    Raises:
        RunError: a file is missing or damaged, or of a newer format.
    """
    sums = _read_sums(path)
    weights = read_weights(path / "weights.safetensors", sums.get("weights.safetensors", ""))
    best = read_weights(path / "best.safetensors", sums["best.safetensors"]) if "best.safetensors" in sums else None
    state_path = path / "state.pt"
    if not state_path.is_file() or sha256_file(state_path) != sums.get("state.pt"):
        raise RunError(f"{state_path} is damaged: its SHA-256 is not the recorded one; remove {path}")
    try:
        state = torch.load(state_path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{state_path} holds more than tensors and numbers ({reason}); remove {path}") from error
    if state["format"] != FORMAT:
        raise RunError(f"{path} has checkpoint format {state['format']}, this version reads {FORMAT}; update pcam")
    return weights, best, state


def load_last(
    folder: Path,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None, dict[str, Any]] | None:
    """Read the newest sound checkpoint of a run; None where there is no checkpoint.

    Warns:
        UserWarning: the newest is damaged and the one before it is used; names both.

    Raises:
        RunError: there are checkpoints and none of them is sound.
    """
    candidates = checkpoint_folders(folder)[::-1]
    damaged: list[str] = []
    for path in candidates:
        try:
            loaded = load_checkpoint(path)
        except RunError as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(f"{damaged[-1]}; going on from {path} instead", stacklevel=2)
        return loaded
    if damaged:
        raise RunError(f"no sound checkpoint: {damaged[0]}")
    return None


def _read_sums(path: Path) -> dict[str, str]:
    try:
        lines = (path / _SUMS).read_text(encoding="utf-8").splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise RunError(f"{path / _SUMS} is missing or damaged; remove {path}") from error
