"""What leaked patches add to a metric, and a copy that leaks on purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tissue import textured, write_folder

from pcam.audit import audit, leakage, tables
from pcam.config import load_config
from pcam.data.format import open_split
from pcam.errors import DataError
from pcam.evaluation.predict import predict_split
from pcam.evaluation.predictions import Predictions
from pcam.training import train


def predictions(n: int = 400, leaked: int = 100, seed: int = 0) -> tuple[Predictions, np.ndarray]:
    """Scores that know the leaked patches and nothing of the others."""
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 2).astype(np.uint8)
    mask = np.arange(n) < leaked
    score = np.where(mask, 0.1 + 0.8 * label, rng.random(n))
    return Predictions("test", np.arange(n), label, score), mask


def test_remembered_patches_raise_the_metric_and_their_removal_shows_it() -> None:
    p, mask = predictions()
    found = leakage.effect(p, mask)
    assert found.clean == pytest.approx(0.5, abs=0.08) and found.everything > 0.6
    assert found.difference == pytest.approx(found.everything - found.clean)
    assert found.low is not None and found.high is not None
    assert 0 < found.low < found.difference < found.high
    assert (found.n, found.n_leaked, found.n_positive) == (400, 100, 200)


def test_without_a_leak_there_is_no_difference() -> None:
    p, _ = predictions()
    found = leakage.effect(p, np.zeros(400, bool))
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_whole_groups_are_resampled() -> None:
    p, mask = predictions()
    by_group = leakage.effect(p, mask, np.arange(400) // 40, group_kind="slide")
    assert "10 slides" in by_group.method
    assert by_group.difference == leakage.effect(p, mask).difference


def test_mistakes_are_named() -> None:
    p, mask = predictions()
    with pytest.raises(DataError, match="3 flags for 400 predictions"):
        leakage.effect(p, mask[:3])
    with pytest.raises(DataError, match="without the leaked patches a class is missing"):
        leakage.effect(p, p.labels == 1)


def test_a_leaky_copy_holds_test_patches_in_train(tmp_path: Path) -> None:
    patches = {name: textured(n, seed=n) for name, n in (("train", 20), ("valid", 4), ("test", 10))}
    data = write_folder(tmp_path / "data", patches)
    leaked = leakage.leaky_copy(data, tmp_path / "leaky", share=0.5, seed=1) == "exact"
    train, test = open_split(tmp_path / "leaky", "train"), open_split(tmp_path / "leaky", "test")
    held = {patch.tobytes(): label for patch, label in zip(train.read(slice(None)), train.labels, strict=True)}  # type: ignore[arg-type]
    assert leaked.sum() == 5 and len(train) == 20
    np.testing.assert_array_equal(test.read(slice(None)), patches["test"])
    for patch, label, flag in zip(patches["test"], test.labels, leaked, strict=True):  # type: ignore[arg-type]
        assert (patch.tobytes() in held) == flag
        assert not flag or held[patch.tobytes()] == label


def test_a_leaky_copy_needs_all_splits(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", {"train": textured(4)})
    with pytest.raises(DataError, match="needs train, valid and test, all with labels"):
        leakage.leaky_copy(data, tmp_path / "leaky", share=0.5)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, Predictions, Predictions]:
    """Patches whose labels nothing can tell, a copy that leaks, and the predictions of a network trained on each."""
    folder = tmp_path_factory.mktemp("leaky")
    patches = {name: textured(n, seed=n) for name, n in (("train", 160), ("valid", 16), ("test", 96))}
    data = write_folder(folder / "data", patches)
    how = leakage.leaky_copy(data, folder / "copy", 0.5, seed=2, kinds=("exact", "symmetric", "noise", "overlap"))
    config = load_config("mlp", ["train.epochs=40", "train.threads=1", "train.batch_size=32"])
    scored = [
        predict_split(train(config, where, folder / "runs", progress=False), open_split(data, "test"))
        for where in (data, folder / "copy")
    ]
    return folder / "copy", how, scored[0], scored[1]


def test_a_planted_leak_inflates_the_metric(leaky: tuple[Path, np.ndarray, Predictions, Predictions]) -> None:
    _, how, honest, remembered = leaky
    gains = leakage.planted_gains(honest, remembered, how)
    assert list(gains) == ["exact", "noise", "overlap", "symmetric", "all together"]
    before, after, together = gains["all together"]
    assert not isinstance(together, str)
    assert 0.3 < before < 0.7 < after and together.low > 0 and together.n == 48
    _, after, exact = gains["exact"]
    assert after > 0.9 and not isinstance(exact, str) and exact.low > 0
    clean = (how == "").astype(bool)
    assert 0.25 < leakage.effect(remembered, ~clean).clean < 0.75  # nothing is known of what did not leak
    table = tables.gains(gains)
    assert table["n"].tolist() == [12, 12, 12, 12, 48] and (table["difference"].iloc[-1]) == together.value


def test_the_audit_takes_the_inflation_out(
    leaky: tuple[Path, np.ndarray, Predictions, Predictions], tmp_path: Path
) -> None:
    copy, _, _, remembered = leaky
    found = leakage.by_kind(audit(copy, tmp_path, suspects="none"), remembered)
    assert list(found) == list(leakage.KINDS) and found["shared slides"] == "none found"
    together = found["all together"]
    assert leakage.why_unmeasured(found) == "" and not isinstance(together, str)
    assert together.n_leaked == 48 and together.low is not None and together.low > 0
    each = [found[kind] for kind in ("exact copies", "turned copies", "near copies", "shared pixels")]
    assert [effect.n_leaked for effect in each if not isinstance(effect, str)] == [12, 12, 12, 12]
    table = tables.leakage(found)
    assert table["leaked"].tolist()[:4] == [12, 12, 12, 12] and table["interval"].iloc[4] == "none found"


def test_without_a_class_there_is_nothing_to_compare(
    leaky: tuple[Path, np.ndarray, Predictions, Predictions], tmp_path: Path
) -> None:
    copy, how, _, remembered = leaky
    one_class = Predictions("test", remembered.index, np.where(how == "", 0, 1).astype(np.uint8), remembered.score)
    found = leakage.by_kind(audit(copy, tmp_path, suspects="none"), one_class)
    assert found["all together"] == "48 leaked; without them a class is missing"


def test_few_groups_give_a_reason_and_no_interval(
    leaky: tuple[Path, np.ndarray, Predictions, Predictions],
) -> None:
    _, how, honest, remembered = leaky
    kind = np.where(np.arange(96) < 4, how, "")
    kind[:4] = "exact"
    kind[50:90] = "noise"
    groups = np.where(np.arange(96) < 4, honest.labels, np.arange(96))
    gains = leakage.planted_gains(honest, remembered, kind, groups)
    assert isinstance(gains["exact"][2], str) and "too few resamples" in gains["exact"][2]
    assert not isinstance(gains["noise"][2], str)


def test_a_kind_that_is_not_there_is_undefined_in_the_table() -> None:
    nothing: dict[str, leakage.LeakageEffect | str] = dict.fromkeys(leakage.KINDS, "none found")
    table = tables.leakage(nothing)
    assert leakage.why_unmeasured(nothing).startswith("No test patch is tied to train: no exact copies, no turned")
    assert "near copies: 3 leaked" in leakage.why_unmeasured({**nothing, "near copies": "3 leaked; without them …"})
    assert table[["AUC on all", "AUC without them", "difference"]].isna().all(axis=None)
    assert (table["interval"] == "none found").all() and table["difference"].dtype == float
