"""Models map patches to logits, carry their normalisation, and are named in one table."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from pcam.config import ModelConfig, ModelName
from pcam.data.augment import to_channels_first
from pcam.errors import ConfigError
from pcam.models import MODELS, PatchClassifier, build, model_class

NAMES = sorted(MODELS)


def make(name: str, **fields: object) -> PatchClassifier:
    torch.manual_seed(0)
    return build(ModelConfig(name=name, width=4, hidden=8, **fields))


@pytest.fixture
def patches() -> torch.Tensor:
    return torch.randint(0, 256, (5, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, 3])
def test_one_logit_a_patch_and_every_weight_learns(name: str, n: int) -> None:
    model = make(name)
    logits = model(torch.randn(n, 3, 96, 96))
    assert logits.shape == (n,)
    logits.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_scoring_takes_file_bytes_and_leaves_the_mode(name: str, patches: torch.Tensor) -> None:
    model = make(name, dropout=0.5).train()
    scores = model.predict_logits(patches)
    assert scores.shape == (5,)
    assert scores.dtype == torch.float32
    assert model.training
    assert torch.equal(scores, model.predict_logits(patches)), "dropout acts while scoring"
    model.eval()
    with torch.no_grad():
        assert torch.equal(scores, model(model.normalise(to_channels_first(patches))))


def test_the_baseline_sees_the_mean_of_every_block_of_pixels(patches: torch.Tensor) -> None:
    values = to_channels_first(patches).requires_grad_()
    shrunken = make("mlp").body[0](values)
    expected = torch.nn.functional.avg_pool2d(values, 4)
    torch.testing.assert_close(shrunken, expected)
    weights = torch.rand_like(expected)
    gradients = [torch.autograd.grad((out * weights).sum(), values)[0] for out in (shrunken, expected)]
    torch.testing.assert_close(*gradients)


def test_scoring_refuses_what_is_not_bytes(patches: torch.Tensor) -> None:
    with pytest.raises(TypeError, match=r"uint8 in 0\.\.255, not torch.float32"):
        make("mlp").predict_logits(patches.float())


def test_normalisation_in_place_writes_the_same_over_the_values(patches: torch.Tensor) -> None:
    model, values = make("mlp"), to_channels_first(patches)
    expected = model.normalise(values)
    assert torch.equal(values, to_channels_first(patches))
    assert torch.equal(model.normalise(values, in_place=True), expected)
    assert torch.equal(values, expected)


def test_normalisation_centres_the_training_patches(patches: torch.Tensor) -> None:
    model = make("mlp")
    values = to_channels_first(patches)
    model.set_normalisation(values.mean((0, 2, 3)), values.std((0, 2, 3), correction=0))
    normal = model.normalise(values)
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    assert {"channel_mean", "channel_std"} <= model.state_dict().keys()


def test_a_constant_channel_is_not_divided_by_zero() -> None:
    model = make("mlp")
    model.set_normalisation(torch.tensor([10.0, 10.0, 10.0]), torch.zeros(3))
    assert torch.equal(model.normalise(torch.full((1, 3, 2, 2), 10.0)), torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize(("depth", "features"), [(1, 4), (2, 8), (3, 16)])
def test_cnn_stages_double_the_channels(depth: int, features: int) -> None:
    model = make("cnn", depth=depth)
    assert model.head.in_features == features
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in model.modules()) == 2 * depth


def test_cnn_in_bfloat16_stays_near_float32(patches: torch.Tensor) -> None:
    model = make("cnn").eval().to(memory_format=torch.channels_last)
    inputs = model.normalise(to_channels_first(patches))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = model(inputs)
    torch.testing.assert_close(low.float(), model.predict_logits(patches), atol=0.05, rtol=0.05)


def test_same_seed_same_weights() -> None:
    for a, b in zip(make("cnn").parameters(), make("cnn").parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "hint"), [("cmn", "did you mean 'cnn'"), ("transformer", "known: .*cnn")], ids=["near", "far"]
)
def test_unknown_name(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown model.name '{name}'.*{hint}"):
        model_class(name)


def test_config_and_table_name_the_same_networks() -> None:
    assert set(get_args(ModelName)) == MODELS.keys()
