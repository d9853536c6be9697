"""What lies behind a score: attributions that add up, and neighbours that are the nearest."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch
from torch import nn

from pcam.config import ModelConfig
from pcam.data.format import Split, open_split
from pcam.errors import DataError
from pcam.evaluation.explain import find_neighbours, head_features, integrated_gradients
from pcam.evaluation.features import FEATURE_NAMES, input_features
from pcam.evaluation.gallery import ErrorGallery
from pcam.evaluation.predictions import Predictions
from pcam.models import MODELS, PatchClassifier, build


@pytest.fixture(scope="module")
def test(tiny) -> Split:
    return open_split(tiny, "test")


@pytest.fixture(scope="module")
def train(tiny) -> Split:
    return open_split(tiny, "train")


def model_of(name: str, split: Split) -> PatchClassifier:
    torch.manual_seed(0)
    model = build(ModelConfig(name=name, width=8, depth=2, hidden=16))
    pixels = torch.from_numpy(split.read(slice(0, 24))).float()
    model.set_normalisation(pixels.mean((0, 1, 2)), pixels.std((0, 1, 2)))
    return model.eval()


class Linear(PatchClassifier):
    """A model whose integrated gradients have a closed form: weight × normalised pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 96 * 96, 1)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.head(patches.flatten(1)).squeeze(1)


def test_of_a_linear_model_it_is_weight_times_pixel(test: Split) -> None:
    torch.manual_seed(1)
    model, patches = Linear(), test.read(slice(0, 3))
    found = integrated_gradients(model, patches, steps=1)
    normalised = (patches.transpose(0, 3, 1, 2).astype(float) - 127.5) / 127.5
    weight = model.head.weight.detach().numpy().reshape(3, 96, 96)
    by_hand = (normalised * weight).sum(1).reshape(-1, 24, 4, 24, 4).sum(axis=(2, 4))
    np.testing.assert_allclose(found, by_hand, atol=1e-4)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_maps_add_up_to_the_move_of_the_logit(name: str, test: Split) -> None:
    model, patches = model_of(name, test), test.read(slice(0, 6))
    logits = model.predict_logits(torch.from_numpy(patches)).numpy()
    start = float(model(torch.zeros(1, 3, 96, 96)).detach())
    maps = integrated_gradients(model, patches, steps=64)
    assert maps.shape == (6, 24, 24)
    np.testing.assert_allclose(maps.sum((1, 2)), logits - start, atol=0.02 * np.abs(logits - start).max() + 1e-3)


def test_a_map_points_at_the_pixels_that_matter(test: Split) -> None:
    class Corner(Linear):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            return torch.relu(patches[:, :, :8, :8]).mean((1, 2, 3))

    found = integrated_gradients(Corner(), np.full((1, 96, 96, 3), 250, np.uint8))
    assert (found[0, :2, :2] > 0).all()
    assert found.sum() == pytest.approx(found[0, :2, :2].sum())


def test_attribution_leaves_the_model_as_it_was(test: Split) -> None:
    model = model_of("cnn", test).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    integrated_gradients(model, test.read(slice(0, 2)), steps=2)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_neighbours_by_input_features_are_the_nearest(test: Split, train: Split) -> None:
    rows = np.array([5, 0, 17])
    found = find_neighbours(test, rows, train, count=4)
    asked, held = (input_features(s)[list(FEATURE_NAMES)].to_numpy() for s in (test, train))
    far = np.sqrt((((asked[rows][:, None] - held) / held.std(axis=0)) ** 2).mean(axis=2))
    np.testing.assert_array_equal(found.index, np.argsort(far, axis=1)[:, :4])
    np.testing.assert_allclose(found.distance, np.sort(far, axis=1)[:, :4], atol=1e-6)
    assert (found.searched, found.by) == (48, "the 8 input features")


def test_a_patch_of_the_split_itself_is_its_own_nearest(train: Split) -> None:
    model = model_of("cnn", train)
    rows = np.array([40, 3])
    for by in (None, model):
        found = find_neighbours(train, rows, train, by, count=1)
        np.testing.assert_array_equal(found.index[:, 0], rows)
        np.testing.assert_allclose(found.distance, 0, atol=2e-3)


def test_head_features_are_what_the_last_layer_reads(test: Split) -> None:
    model = model_of("cnn", test)
    read = torch.from_numpy(head_features(model, test, np.arange(24)))
    logits = model.predict_logits(torch.from_numpy(test.read(slice(0, 24))))
    np.testing.assert_allclose(model.head(read).squeeze(1).detach(), logits, atol=1e-5)


def test_a_large_training_split_is_searched_in_an_even_spread(test: Split, train: Split) -> None:
    found = find_neighbours(test, np.arange(2), train, count=48, among=5)
    assert found.searched == 5
    assert {int(i) for i in found.index.ravel()} == {0, 11, 23, 35, 47}


def test_a_gallery_carries_them(test: Split, train: Split) -> None:
    p = Predictions("test", np.arange(24), test.labels, np.linspace(0.01, 0.99, 24))
    model = model_of("cnn", test)
    content = ErrorGallery(p, test, limit=6, neighbours=train, model=model, attribution=True).content
    found = find_neighbours(test, np.array([patch["index"] for patch in content["patches"]]), train, model)
    held = content["neighbours"]["patches"]
    for patch, nearest in zip(content["patches"], found.index, strict=True):
        assert [held[place]["index"] for place, _ in patch["near"]] == nearest.tolist()
    assert [patch["label"] for patch in held] == [int(train.labels[patch["index"]]) for patch in held]
    maps = integrated_gradients(model, test.read([patch["index"] for patch in content["patches"]]))
    for patch, values in zip(content["patches"], maps, strict=True):
        carried = np.frombuffer(base64.b64decode(patch["map"]["data"]), np.int8).reshape(24, 24)
        np.testing.assert_allclose(carried / 127 * np.abs(values).max(), values, atol=np.abs(values).max() / 200)
        assert patch["map"]["sum"] == pytest.approx(values.sum(), abs=0.01)


def test_a_gallery_of_many_carries_less_of_each(test: Split, train: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    p = Predictions("test", np.arange(24), test.labels, np.linspace(0.01, 0.99, 24))
    model = model_of("cnn", test)
    monkeypatch.setattr("pcam.evaluation.explain.MANY", 5)
    several, many = (
        ErrorGallery(p, test, limit=limit, neighbours=train, model=model, attribution=True).content for limit in (5, 24)
    )
    assert [c["attribution"]["side"] for c in (several, many)] == [24, 12]
    assert [c["neighbours"]["pictures"]["side"] for c in (several, many)] == [48, 32]
    # Coarser, and still a map that adds up to the same.
    full = integrated_gradients(model, test.read(slice(0, 24))).reshape(24, 12, 2, 12, 2).sum(axis=(2, 4))
    for patch, values in zip(many["patches"], full, strict=True):
        carried = np.frombuffer(base64.b64decode(patch["map"]["data"]), np.int8).reshape(12, 12)
        assert patch["map"]["most"] == pytest.approx(np.abs(values).max(), rel=0.01)
        np.testing.assert_allclose(carried / 127 * np.abs(values).max(), values, atol=np.abs(values).max() / 200)
        assert patch["map"]["sum"] == pytest.approx(values.sum(), abs=0.01)


def test_a_gallery_of_nothing_has_no_neighbours(test: Split, train: Split) -> None:
    p = Predictions("test", np.arange(24), test.labels, np.linspace(0.01, 0.99, 24))
    gallery = ErrorGallery(p, test, limit=0, neighbours=train, model=model_of("cnn", test), attribution=True)
    assert gallery.content["neighbours"] is None
    assert gallery.content["patches"] == []


def test_an_attribution_needs_a_model(test: Split) -> None:
    p = Predictions("test", np.arange(24), test.labels, np.linspace(0.01, 0.99, 24))
    with pytest.raises(DataError, match="an attribution needs the model that made the predictions; pass it as 'model'"):
        ErrorGallery(p, test, attribution=True)
