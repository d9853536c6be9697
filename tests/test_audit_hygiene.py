"""Where a run's normalisation comes from, and which patches are changed on their way to the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tissue import textured, write_folder

from pcam.audit import hygiene
from pcam.config import load_config
from pcam.data.format import SPLITS, open_split
from pcam.data.loader import Loader
from pcam.training import train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    patches = {name: textured(n, seed=n) for name, n in (("train", 40), ("valid", 12), ("test", 24))}
    patches["test"] = patches["test"] // 2  # a darker split, so that statistics differ
    return write_folder(tmp_path_factory.mktemp("hygiene"), patches)


@pytest.mark.parametrize("flip", [True, False])
def test_only_training_patches_are_changed(flip: bool, data: Path, tmp_path: Path) -> None:
    options = [f"train.augment.flip={str(flip).lower()}", f"train.augment.rotate={str(flip).lower()}"]
    run = train(load_config("mlp", ["train.epochs=1", "train.threads=1", *options]), data, tmp_path, progress=False)
    found = hygiene.check(run, [open_split(data, name) for name in SPLITS])
    assert found.judged == 0 and found.compared == 12
    assert (0.6 < found.augmented <= 1) if flip else found.augmented == 0


def test_statistics_of_more_than_train_are_seen(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(load_config("mlp", ["train.epochs=1", "train.threads=1"]), data, tmp_path, progress=False)
    splits = [open_split(data, name) for name in SPLITS]
    honest = hygiene.check(run, splits)
    assert honest.from_train and honest.apart > 5
    assert honest.worth.low <= honest.worth.value <= honest.worth.high

    pooled = hygiene._pooled([Loader(s, 8).channel_statistics() for s in splits], [len(s) for s in splits])
    whole = torch.cat([torch.from_numpy(s.read(slice(None))).double().reshape(-1, 3) for s in splits])
    torch.testing.assert_close(pooled[0], whole.mean(0).float())
    torch.testing.assert_close(pooled[1], whole.std(0, correction=0).float())

    model = hygiene.load_model(run)
    model.set_normalisation(*pooled)
    monkeypatch.setattr(hygiene, "load_model", lambda _: model)
    assert not hygiene.check(run, splits).from_train
