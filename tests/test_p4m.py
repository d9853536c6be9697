"""The network's promise, on random weights and on learned ones: a patch turned or mirrored has the same score."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pcam.config import ModelConfig, load_config
from pcam.models import build, fold
from pcam.models.groups import ORDER, products, transform
from pcam.models.p4m import P4M

TOLERANCE = 1e-4


def make(seed: int = 0, **fields: object) -> P4M:
    torch.manual_seed(seed)
    model = build(ModelConfig(name="p4m", **{"width": 4, "depth": 3, **fields}))
    assert isinstance(model, P4M)
    return model


def learn(model: P4M, patches: torch.Tensor, steps: int = 3) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    labels = torch.arange(len(patches)).remainder(2).float()
    for _ in range(steps):
        optimiser.zero_grad()
        binary_cross_entropy_with_logits(model(patches), labels).backward()
        optimiser.step()


@pytest.fixture
def patches() -> torch.Tensor:
    return torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["random", "learned", "learned, scoring", "folded"])
def model(request: pytest.FixtureRequest, patches: torch.Tensor) -> P4M:
    """A network at each stage of its life."""
    model = make()
    if request.param != "random":
        before = [p.detach().clone() for p in model.parameters()]
        learn(model, patches)
        assert all(not torch.equal(old, p) for old, p in zip(before, model.parameters(), strict=True))
    if request.param == "learned, scoring":
        model.eval()
    return fold(model) if request.param == "folded" else model


@pytest.mark.parametrize("symmetry", range(ORDER))
def test_every_symmetry_moves_the_fields_and_leaves_the_logit(model: P4M, patches: torch.Tensor, symmetry: int) -> None:
    turned = transform(patches, symmetry)
    with torch.no_grad():
        fields, fields_turned = (model.features(x).unflatten(1, (ORDER, -1)) for x in (patches, turned))
        logits, logits_turned = model(patches), model(turned)
    assert (logits - logits_turned).abs().max() < TOLERANCE
    assert (transform(fields, symmetry) - fields_turned[:, products()[symmetry]]).abs().max() < TOLERANCE
    assert logits.std() > 10 * TOLERANCE, "patches that all get one score would pass as well"
    if symmetry:
        assert (fields - fields_turned).abs().max() > 10 * TOLERANCE


@pytest.mark.parametrize("depth", [1, 2, 4, 5])
def test_every_depth_is_invariant(depth: int, patches: torch.Tensor) -> None:
    patches = patches.double()
    model = make(depth=depth).double()
    fields = model.features(patches).detach()
    assert fields.shape[-1] == {1: 48, 2: 24, 4: 6, 5: 3}[depth]
    for symmetry in range(ORDER):
        turned = model.features(transform(patches, symmetry)).detach().unflatten(1, (ORDER, -1))
        want = transform(fields, symmetry).unflatten(1, (ORDER, -1))
        assert (want - turned[:, products()[symmetry]]).abs().max() < TOLERANCE


def test_a_symmetry_gives_the_same_gradients(patches: torch.Tensor) -> None:
    """So a training that turns its patches learns nothing new, and one that does not misses nothing."""
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    gradients = []
    for symmetry in (0, 3, 6):
        model = make().double()
        inputs = transform(patches.double(), symmetry)
        binary_cross_entropy_with_logits(model(inputs), labels).backward()
        gradients.append([p.grad for p in model.parameters()])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], atol=1e-10, rtol=1e-6)


def test_memory_order_changes_no_logit(patches: torch.Tensor) -> None:
    rows, columns = make(), make().to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        columns(patches.to(memory_format=torch.channels_last)), rows(patches), atol=1e-5, rtol=1e-5
    )


def test_bfloat16_stays_near_float32_and_its_gradients_are_finite(patches: torch.Tensor) -> None:
    model = make().to(memory_format=torch.channels_last)
    high = model(patches)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(patches.to(memory_format=torch.channels_last)).float()
    torch.testing.assert_close(low, high, atol=0.1, rtol=0.1)
    low.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_preset_is_compact() -> None:
    model = build(load_config("p4m").model)
    assert 80_000 < sum(p.numel() for p in model.parameters()) < 150_000
    saved = sum(v.numel() for k, v in model.state_dict().items() if "running" not in k)
    assert saved < 150_000, "the filters are saved once, not in eight orientations"


def test_scoring_first_and_training_after(patches: torch.Tensor) -> None:
    model = make()
    with torch.inference_mode():
        model.eval()(patches)
    learn(model.train(), patches, steps=1)


def test_averaged_weights_are_equivariant_too(patches: torch.Tensor) -> None:
    model = make()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in range(3):
        learn(model, patches, steps=1)
        averaged.update_parameters(model)
    averaged.module.double().eval()
    for symmetry in range(ORDER):
        logits = averaged(transform(patches.double(), symmetry))
        torch.testing.assert_close(logits, averaged(patches.double()), atol=TOLERANCE, rtol=0)
