"""A trained model as one ONNX file: patches in, scores out, and no torch needed to score with it.

The file holds the folded model with its normalisation, the mean over the symmetries where the run's config asks for it,
and the sigmoid; its metadata say which model file it was made of and which threshold the run's costs imply. It is
written only after onnxruntime has given it the scores that `pcam predict` gives.

    import onnxruntime
    session = onnxruntime.InferenceSession("model.onnx")
    (scores,) = session.run(None, {"patches": patches})    # uint8 (B, 96, 96, 3) to float64 (B,)
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import pcam
from pcam import storage
from pcam.data.augment import to_channels_first
from pcam.data.format import PATCH_SHAPE
from pcam.errors import RunError
from pcam.evaluation.images import open_model
from pcam.evaluation.predict import score_patches
from pcam.evaluation.thresholds import implied_threshold
from pcam.models import PatchClassifier
from pcam.models.groups import ORDER, transform
from pcam.training.runs import MODEL_FILE

PARITY = 1e-3  # of a score; what is left are the last digits of float32
_OPSET = 18  # of the operators: onnxruntime 1.14 and later read it


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        out: the file.
        difference: largest distance of its scores from those of `pcam predict`, over the patches that were tried.
    """

    out: Path
    difference: float

    def __str__(self) -> str:
        return f"{self.out}: scores within {self.difference:.1g} of pcam predict's"


class _Scorer(nn.Module):
    def __init__(self, model: PatchClassifier, symmetries: bool) -> None:
        super().__init__()
        self.model, self.forms = model, ORDER if symmetries else 1

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        values = self.model.normalise(to_channels_first(patches))
        logits = [self.model(transform(values, form)) for form in range(self.forms)]
        return torch.sigmoid(torch.stack(logits).double()).mean(0)


def export_onnx(model: str | Path, out: str | Path) -> Export:
    """Write a trained model as ONNX.

    Args:
        model: folder of a completed run, or a model file alone (`model.safetensors`).
        out: the file to write, whole or not at all.

    Raises:
        RunError: the extra `export` is not installed, the run is not completed, its model file is missing or damaged,
            or the exported model gives other scores.
        StorageError: the file cannot be written.
    """
    _require_extra()
    path, out = Path(model), Path(out)
    loaded, settings = open_model(path)
    scorer = _Scorer(loaded, settings.symmetries).eval()
    with _quiet():
        program = torch.onnx.export(
            scorer,
            (torch.zeros(2, *PATCH_SHAPE, dtype=torch.uint8),),
            input_names=["patches"],
            output_names=["score"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # the exporter of dynamo returns one
    program.model.metadata_props["pcam"] = json.dumps(
        {
            "version": pcam.__version__,
            "model_sha256": storage.sha256_file(path if path.is_file() else path / MODEL_FILE),
            "symmetries": settings.symmetries,
            "threshold": implied_threshold(settings.cost_fn, settings.cost_fp).value,
        }
    )
    content = program.model_proto.SerializeToString()
    difference = _difference(content, loaded, settings.symmetries)
    if not difference <= PARITY:
        raise RunError(f"{model}: as ONNX it gives scores that differ by {difference:.2g}; nothing was written")
    return Export(storage.write_bytes(out, content), difference)


def _require_extra() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RunError("an export needs onnxscript and onnxruntime: pip install -e '.[export]'") from error


def _difference(content: bytes, model: PatchClassifier, symmetries: bool) -> float:
    """Return the largest distance between the two models' scores on noise and on plain patches."""
    import onnxruntime

    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (13, *PATCH_SHAPE), dtype=np.uint8)
    patches[8:] = np.array([0, 64, 128, 192, 255])[:, None, None, None]
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"patches": patches})
    (expected,) = score_patches(model, [patches], symmetries=symmetries)
    return float(np.abs(found - expected).max())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says of parts of torch that no model here uses."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
