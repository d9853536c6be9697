"""A folded network gives the scores of the network that it was made from, which it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pcam.config import ModelConfig
from pcam.models import MODELS, PatchClassifier, build, fold
from pcam.models.groups import FieldNorm, GroupConv

NAMES = sorted(MODELS)


@pytest.fixture
def patches() -> torch.Tensor:
    return torch.randint(0, 256, (8, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def trained(name: str, patches: torch.Tensor) -> PatchClassifier:
    """A network with statistics, scales and shifts of its own, as after training, and scores that are apart."""
    torch.manual_seed(0)
    model = build(ModelConfig(name=name, width=8, hidden=8))
    model.set_normalisation(torch.full((3,), 128.0), torch.full((3,), 74.0))
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.uniform_(norm.bias, -1, 1)
    values = model.normalise(patches.permute(0, 3, 1, 2).float())
    with torch.no_grad():
        for k in range(20):
            model(values * (1 + 0.1 * k))
    logits = model.predict_logits(patches)
    head = model.get_submodule("head")
    assert isinstance(head, nn.Linear)
    head.weight.data *= 2 / logits.std()
    head.bias.data -= model.predict_logits(patches).mean()
    return model


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_kept(name: str, patches: torch.Tensor) -> None:
    model = trained(name, patches)
    before = model.predict_logits(patches).sigmoid()
    after = fold(model).predict_logits(patches).sigmoid()
    assert before.std() > 0.1
    assert (before - after).abs().max() < 1e-4


@pytest.mark.parametrize("name", [n for n in NAMES if n != "mlp"])
def test_nothing_is_left_to_fold(name: str) -> None:
    folded = fold(build(ModelConfig(name=name, width=8)))
    assert not any(isinstance(m, (nn.BatchNorm2d, FieldNorm, GroupConv)) for m in folded.modules())
    assert sum(isinstance(m, nn.Conv2d) for m in folded.modules()) >= 6


@pytest.mark.parametrize("name", NAMES)
def test_the_model_itself_is_left_alone(name: str, patches: torch.Tensor) -> None:
    model = trained(name, patches).train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    folded = fold(model)
    assert model.training and not folded.training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    folded.channel_mean.zero_()
    assert torch.equal(model.channel_mean, state["channel_mean"]), "they share no memory"
