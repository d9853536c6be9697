"""A model file alone, without its run: safetensors with the architecture in its header; nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors

from pcam.config import ModelConfig
from pcam.errors import RunError
from pcam.models import PatchClassifier, build
from pcam.training.checkpoint import FORMAT

_MEND = "give a run folder or its model.safetensors"


def load_model_file(path: Path | str) -> PatchClassifier:
    """Return the model of a `model.safetensors` in evaluation mode, on the CPU.

    Where `<file>.sha256` lies beside it, as in every run folder, the file is checked against that first. Without it a
    flipped bit among the weights cannot be noticed.

    Raises:
        RunError: it is no safetensors file of this project, of a newer format, or damaged.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if (recorded := _recorded_sha256(path)) not in (None, hashlib.sha256(content).hexdigest()):
            raise RunError(f"{path} is damaged: its SHA-256 is not {recorded[:12]} as recorded beside it; restore it")
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["pcam"])
        weights = load_tensors(content)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: not a readable safetensors file ({error}); {_MEND}") from error
    except (KeyError, ValueError) as error:
        raise RunError(f"{path}: its header names no model of pcam; {_MEND}") from error
    if about.get("format") != FORMAT:
        raise RunError(f"{path} has format {about.get('format')}, this version reads {FORMAT}; update pcam")
    try:
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn and overwritten: no trace of that
            model = build(ModelConfig(**about["model"]))
        model.load_state_dict(weights)
    except (KeyError, TypeError, ValidationError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise RunError(f"{path}: its weights do not fit the model that it names ({reason}); {_MEND}") from error
    return model.eval()


def _recorded_sha256(path: Path) -> str | None:
    try:
        words = path.with_name(f"{path.name}.sha256").read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}.sha256 cannot be read ({error}); restore or remove it") from error
    return words[0] if words else "none"
