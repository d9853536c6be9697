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
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from pcam.config import ModelConfig
from pcam.errors import RunError, StorageError
from pcam.storage import atomic_path, sha256_file, write_bytes, write_text, writing

FORMAT = 1
_KEPT = 2
_SUMS = "SHA256SUMS"
_MEND = "restore it, or remove the run folder and train again"  # a completed run is not trained twice
_HEADER_BYTES = 1 << 20  # some ten thousand tensors; the largest network here has a hundred
# What torch's restricted unpickler raises on content that is no checkpoint, besides what it refuses.
_MALFORMED = (RuntimeError, EOFError, KeyError, IndexError, TypeError, ValueError, AttributeError, AssertionError)


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
        raise RunError(f"{path} is missing; {_MEND}")
    if sha256_file(path) != sha256:
        raise RunError(f"{path} is damaged: its SHA-256 is not the recorded one; {_MEND}")
    try:
        return parse_weights(safetensors_bytes(path))[0]
    except (SafetensorError, ValueError, MemoryError) as error:
        raise RunError(f"{path} is not a safetensors file ({error}); {_MEND}") from error


def safetensors_bytes(path: Path) -> bytes:
    """Read a safetensors file from anywhere into memory, if its beginning looks like one.

    Raises:
        SafetensorError: its header is absurd.
        OSError, MemoryError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if not 0 < length <= _HEADER_BYTES:  # a header of a million names takes the library half a minute
            raise SafetensorError(f"a header of {length:,} bytes")
        return start + file.read()


def parse_weights(content: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors and the metadata of what `safetensors_bytes` read, at a cost in keeping with its length.

    Raises:
        SafetensorError, ValueError: it is no safetensors file, or names a tensor twice.
    """
    length = int.from_bytes(content[:8], "little")
    tensors: dict[str, torch.Tensor] = load_tensors(content)
    header = json.loads(content[8 : 8 + length], object_pairs_hook=_each_key_once)
    return tensors, header.get("__metadata__", {})


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):  # readers would disagree about which of them counts
        raise ValueError("a name is there twice")
    return found


def save_checkpoint(
    folder: Path,
    step: int,
    weights: Mapping[str, torch.Tensor],
    best: Mapping[str, torch.Tensor] | None,
    state: dict[str, Any],
    config: ModelConfig,
    run: str = "",
) -> Path:
    """Write a checkpoint of a run and remove all others but the one before it.

    Args:
        folder: the run's `checkpoints` folder.
        step: steps done; it names the checkpoint.
        weights: the model's state.
        best: the best model's state, or None.
        state: all else that resuming needs: tensors, numbers, texts and containers of them.
        config: of the model.
        run: the id of the run that it belongs to.

    Raises:
        StorageError: it cannot be written; the earlier checkpoints are untouched.
    """
    target = folder / f"step-{step:08d}"
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "run": run, "step": step, **state}, buffer)
    files = {"weights.safetensors": weights_bytes(weights, config), "state.pt": buffer.getvalue()}
    if best is not None:
        files["best.safetensors"] = weights_bytes(best, config)
    with atomic_path(target) as temporary:
        for name, content in files.items():
            write_bytes(temporary / name, content)
        sums = [f"{sha256_file(temporary / name)}  {name}\n" for name in sorted(files)]
        write_text(temporary / _SUMS, "".join(sums))
        # The same step again: after an earlier one was used, as this was damaged; or after an interruption between
        # the last step of an epoch and its end. Not before the new one is whole: it may be the only one.
        if target.exists():
            _remove(target)
    # Those of later steps too: they were damaged, or this run would not have come here again, and one of them in
    # the place of a sound one would leave a run with nothing to fall back on.
    there = checkpoint_folders(folder)
    for old in {*there} - {*[path for path in there if path <= target][-_KEPT:]}:
        _remove(old)
    return target


def _remove(path: Path) -> None:
    # Renamed first: a kill in the middle then leaves a stray temporary, not a checkpoint with half of its files.
    doomed = path.with_name(f".{path.name}.tmp")
    with writing(path):
        path.rename(doomed)
        shutil.rmtree(doomed)


def checkpoint_folders(folder: Path) -> list[Path]:
    """Return the checkpoints in a run's `checkpoints` folder, oldest first."""
    return sorted(folder.glob("step-????????"))


def load_checkpoint(
    path: Path, run: str | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None, dict[str, Any]]:
    """Read one checkpoint: weights, best weights or None, and state.

    Args:
        path: its folder.
        run: the id of the run that it must belong to; None: any.

    Raises:
        RunError: a file is missing or damaged, of a newer format, or of another run: another configuration,
            model, data or code.
    """
    sums = _read_sums(path)
    weights = read_weights(path / "weights.safetensors", sums.get("weights.safetensors", ""))
    best = read_weights(path / "best.safetensors", sums["best.safetensors"]) if "best.safetensors" in sums else None
    state_path = path / "state.pt"
    if not state_path.is_file() or sha256_file(state_path) != sums.get("state.pt"):
        raise RunError(f"{state_path} is damaged: its SHA-256 is not the recorded one; remove {path}")
    state = _read_state(state_path)
    if state.get("format") != FORMAT:
        raise RunError(f"{path} has checkpoint format {state.get('format')}, this version reads {FORMAT}; update pcam")
    if run is not None and state.get("run") != run:
        raise RunError(f"{path} belongs to run {state.get('run')}, not to {run}; remove it")
    return weights, best, state


def _read_state(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > path.stat().st_size:  # torch compresses nothing: few bytes that become many are an attack
            raise pickle.UnpicklingError(f"it unpacks to {unpacked:,} bytes")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, *_MALFORMED) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path} holds more than tensors and numbers ({reason}); remove {path.parent}") from error
    if not isinstance(state, dict):
        raise RunError(f"{path} holds no training state; remove {path.parent}")
    return state


def load_last(
    folder: Path, run: str | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None, dict[str, Any]] | None:
    """Read the newest sound checkpoint of a run; None where there is no checkpoint.

    Of those before it one is kept: a kill may have come between a saving and the removal of the oldest.

    Args:
        folder: the run's `checkpoints` folder.
        run: the id of the run that they must belong to; None: any.

    Warns:
        UserWarning: the newest is damaged, or of another run, and the one before it is used; names both.

    Raises:
        RunError: there are checkpoints and none of them is sound.
    """
    candidates = checkpoint_folders(folder)[::-1]
    damaged: list[str] = []
    for path in candidates:
        try:
            loaded = load_checkpoint(path, run)
        except RunError as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(f"{damaged[-1]}; going on from {path} instead", stacklevel=2)
        for old in [older for older in candidates if older < path][_KEPT - 1 :]:
            with suppress(StorageError):  # another process of this run was first, or the folder is read-only
                _remove(old)
        return loaded
    if damaged:
        raise RunError(f"no sound checkpoint: {damaged[0]}")
    return None


@contextmanager
def of_this_run(folder: Path) -> Iterator[None]:
    """Turn what is raised by a state that was read, and does not fit the run in `folder`, into a `RunError`."""
    try:
        yield
    except _MALFORMED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{folder}: its checkpoint does not fit this run ({reason}); remove the folder") from error


def _read_sums(path: Path) -> dict[str, str]:
    try:
        lines = (path / _SUMS).read_text(encoding="utf-8").splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise RunError(f"{path / _SUMS} is missing or damaged; remove {path}") from error
