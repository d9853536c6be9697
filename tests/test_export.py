"""A model as ONNX: the same scores without torch, and one line where it cannot be made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pcam.config import ModelConfig, load_config
from pcam.data import open_split
from pcam.errors import RunError
from pcam.evaluation import export, predict_split
from pcam.models import build
from pcam.storage import sha256_file
from pcam.training import Run, train
from pcam.training.checkpoint import weights_bytes

SMALL = [
    ModelConfig(name="mlp", hidden=8),
    ModelConfig(name="cnn", width=4, depth=2),
    ModelConfig(name="p4m", width=4, depth=2),
    ModelConfig(name="resnet18", width=4),
]


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = load_config("mlp", ["train.epochs=1", "model.hidden=8", "evaluation.symmetries=true"])
    return train(config, tiny, tmp_path_factory.mktemp("runs"), progress=False)


def scores(path: Path, patches: np.ndarray) -> np.ndarray:
    import onnxruntime

    return onnxruntime.InferenceSession(path).run(None, {"patches": patches})[0]


@pytest.fixture
def extra() -> None:
    for name in ("onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason="the extra 'export' is not installed; make tracking installs it")


def test_a_run_scores_the_same_without_torch(extra: None, run: Run, tiny: Path, tmp_path: Path) -> None:
    split, out = open_split(tiny, "test"), tmp_path / "model.onnx"
    done = export.export_onnx(run.path, out)
    assert done.difference < 1e-6 and str(done).startswith(f"{out}: scores within ")
    np.testing.assert_allclose(scores(out, split.read(slice(None))), predict_split(run, split).score, atol=1e-6)
    assert scores(out, split.read([5])).shape == (1,) and scores(out, split.read([5])).dtype == np.float64
    import onnxruntime

    about = json.loads(onnxruntime.InferenceSession(out).get_modelmeta().custom_metadata_map["pcam"])
    assert about["model_sha256"] == sha256_file(run.path / "model.safetensors") == run.final["sha256"]
    assert about["symmetries"] is True and about["threshold"] == pytest.approx(1 / 6)


@pytest.mark.parametrize("config", SMALL, ids=lambda config: config.name)
def test_every_model_can_be_exported(extra: None, config: ModelConfig, tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(config).eval()
    model.set_normalisation(torch.tensor([150.0, 120.0, 170.0]), torch.tensor([50.0, 60.0, 40.0]))
    (tmp_path / "model.safetensors").write_bytes(weights_bytes(model.state_dict(), config))
    export.export_onnx(tmp_path / "model.safetensors", tmp_path / "model.onnx")
    patches = open_split(tiny, "test").read(slice(0, 5))
    expected = torch.sigmoid(model.predict_logits(torch.from_numpy(patches)))
    np.testing.assert_allclose(scores(tmp_path / "model.onnx", patches), expected, atol=1e-5)


def test_other_scores_are_refused(extra: None, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "score_patches", lambda *_, **__: [np.full(13, 2.0)])
    with pytest.raises(RunError, match=r"as ONNX it gives scores that differ by 1\.\d; nothing was written"):
        export.export_onnx(run.path, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_without_the_extra_the_line_says_what_to_install(run: Run, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from pcam.cli import main; main(['export', *sys.argv[1:], '--out', 'model.onnx'])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run.path)], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    line = "pcam: error: an export needs onnxscript and onnxruntime: pip install -e '.[export]'"
    assert done.stderr.splitlines() == [line]
    assert not list(tmp_path.iterdir())
