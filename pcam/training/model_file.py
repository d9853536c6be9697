"""A trained model, from its run or from its file alone: safetensors with the architecture in its header.

Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch.overrides import TorchFunctionMode

from pcam.config import ModelConfig
from pcam.errors import RunError
from pcam.models import PatchClassifier, build
from pcam.training.checkpoint import FORMAT, parse_weights, read_weights, safetensors_bytes
from pcam.training.runs import MODEL_FILE, Run

_MEND = "give a run folder or its model.safetensors"


def load_model(run: Run) -> PatchClassifier:
    """Return a completed run's model in evaluation mode, on the CPU; see `PatchClassifier.predict_logits`.

    Raises:
        RunError: the run is not completed, or its weights are not those that it recorded or of another model.
    """
    if run.state != "completed":
        raise RunError(f"{run.path}: the run is {run.state}; only a completed run has a model")
    weights = read_weights(run.path / MODEL_FILE, run.sha256)
    try:
        return _with_weights(run.config.model, weights)
    except RuntimeError as error:
        raise RunError(f"{run.path / MODEL_FILE} is no model of config.yaml beside it: restore both") from error


def load_model_file(path: Path | str) -> PatchClassifier:
    """Return the model of a `model.safetensors` in evaluation mode, on the CPU.

    Where `<file>.sha256` lies beside it, as in every run folder, the file is checked against that first. Without it a
    flipped bit among the weights cannot be noticed.

    Raises:
        RunError: it is no safetensors file of this project, of a newer format, or damaged.
    """
    path = Path(path)
    try:
        content = safetensors_bytes(path)
        if (recorded := _recorded_sha256(path)) not in (None, hashlib.sha256(content).hexdigest()):
            raise RunError(f"{path} is damaged: its SHA-256 is not {recorded[:12]} as recorded beside it; restore it")
        weights, metadata = parse_weights(content)
    except (SafetensorError, ValueError, OSError, MemoryError) as error:
        raise RunError(f"{path}: not a readable safetensors file ({error}); {_MEND}") from error
    try:
        about = json.loads(metadata["pcam"])
        version = about["format"]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{path}: its header names no model of pcam; {_MEND}") from error
    if version != FORMAT:
        raise RunError(f"{path} has format {version}, this version reads {FORMAT}; update pcam")
    try:
        return _with_weights(ModelConfig(**about["model"]), weights)
    except (KeyError, TypeError, ValidationError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise RunError(f"{path}: its weights do not fit the model that it names ({reason}); {_MEND}") from error


def _with_weights(config: ModelConfig, weights: dict[str, torch.Tensor]) -> PatchClassifier:
    # First without memory: a file of a few bytes may name a model of many gigabytes.
    with torch.device("meta"), _Undrawn():
        build(config).load_state_dict(weights, assign=True)
    with torch.random.fork_rng(devices=[]):  # the first weights are drawn and overwritten: no trace of that
        model = build(config)
    model.load_state_dict(weights)
    return model.eval()


class _Undrawn(TorchFunctionMode):
    """Inside it nothing is drawn: for tensors without memory torch would first load its compiler, a second's work."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if function is torch.Tensor.normal_ else function(*args, **(kwargs or {}))


def _recorded_sha256(path: Path) -> str | None:
    try:
        words = path.with_name(f"{path.name}.sha256").read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}.sha256 cannot be read ({error}); restore or remove it") from error
    return words[0] if words else "none"
