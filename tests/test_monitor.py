"""The monitor: silent on clean windows, loud on shifted ones; and the scenarios that it is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from pcam.config import load_config
from pcam.data import open_split
from pcam.errors import DataError
from pcam.evaluation import deployment
from pcam.evaluation.features import FEATURE_NAMES, patch_features
from pcam.evaluation.intervals import wilson
from pcam.evaluation.monitor import QUANTITIES, fit_monitor, known_colours, ks_distances, watch_patches, watch_split
from pcam.models import build


def slides(seed: int, n_slides: int = 12, per_slide: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Three quantities with a shift of each slide's own."""
    rng = np.random.default_rng(seed)
    slide = np.repeat(np.arange(n_slides), per_slide)
    shift = np.linspace(-1, 1, n_slides)
    return np.column_stack([rng.permutation(shift) for _ in range(3)])[slide] + rng.normal(size=(len(slide), 3)), slide


@pytest.mark.parametrize("seed", range(3))
def test_distances_agree_with_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, window = np.round(rng.normal(size=(80, 2)), 1), np.round(rng.normal(0.3, 1, (30, 2)), 1)
    expected = [ks_2samp(reference[:, c], window[:, c]).statistic for c in range(2)]
    assert ks_distances(np.sort(reference, axis=0), window) == pytest.approx(expected, abs=1e-12)


def test_clean_slides_rarely_alarm_and_a_shift_does() -> None:
    values, slide = slides(0)
    monitor = fit_monitor(values, slide, window=64)
    clean = np.mean([monitor.alarm_rate(slides(seed)[0], windows=20) for seed in range(1, 11)])
    assert clean < 0.05
    shifted = slides(1)[0]
    shifted[:, 1] += 2
    assert monitor.alarm_rate(shifted) > 0.95
    assert monitor.check(shifted).quantity == QUANTITIES[1] and monitor.check(shifted).alarm


def test_a_limit_from_slides_is_wider_than_one_from_patches() -> None:
    values, slide = slides(0)
    assert (fit_monitor(values, slide).limits > 1.3 * fit_monitor(values).limits).all()


def test_a_steady_quantity_has_a_narrower_limit_than_one_that_differs_between_slides() -> None:
    values, slide = slides(0)
    values[:, 2] = np.random.default_rng(5).normal(size=len(values))
    limits = fit_monitor(values, slide).limits
    assert limits[2] < 0.8 * min(limits[:2])


def test_outliers_are_found_one_by_one() -> None:
    values, slide = slides(0)
    monitor = fit_monitor(values, slide)
    assert not monitor.outliers(values).any()
    odd = values[:3].copy()
    odd[1, 2] = 100
    assert monitor.outliers(odd).tolist() == [False, True, False]
    odd[0, 0] = np.nan  # a damaged model
    assert monitor.outliers(odd).tolist() == [True, True, False]


def test_bad_windows_and_references_are_refused() -> None:
    values, slide = slides(0)
    monitor = fit_monitor(values, slide, simulations=10)
    with pytest.raises(DataError, match="rows of 3 values"):
        monitor.check(values[:, :2])
    with pytest.raises(DataError, match="rows of 3 values"):
        monitor.check(values[:0])
    with pytest.raises(DataError, match="at least two slides or patches, found 1"):
        fit_monitor(values, np.zeros(len(values)))


def test_false_alarms_are_counted_with_the_windows_that_share_no_patch() -> None:
    values, slide = slides(0)
    monitor = fit_monitor(values, slide, window=64, false_alarm=0.01)
    fresh, fresh_slide = slides(1)
    rate = monitor.false_alarms(fresh, fresh_slide)
    assert rate.n == 720 // 64 and rate.value < 0.1
    assert (rate.low, rate.high) == pytest.approx(wilson(rate.value * rate.n, rate.n))
    loose = fit_monitor(values, slide, window=64, false_alarm=0.5).false_alarms(fresh, fresh_slide)
    assert loose.value > rate.value and loose == fit_monitor(values, slide, false_alarm=0.5).false_alarms(
        fresh, fresh_slide
    )
    with pytest.raises(DataError, match="at least one window of 64 patches, found 63"):
        monitor.false_alarms(fresh[:63])


def test_a_window_of_one_slide_alarms_where_slides_differ() -> None:
    values, slide = slides(0, n_slides=24)
    values += 4 * np.linspace(-1, 1, 24)[slide][:, None]
    monitor = fit_monitor(values, slide, window=48)
    alone, mixed = monitor.alarms_by_slide(values, slide), monitor.false_alarms(values, slide)
    assert alone.n == 24 and alone.value > 0.3 > 0.1 > mixed.value
    assert (alone.low, alone.high) == pytest.approx(wilson(alone.value * 24, 24))


CHANGES = (deployment.stain_shift, deployment.out_of_focus, deployment.recompress, deployment.pen_mark)


@pytest.mark.parametrize("change", CHANGES)
def test_changes_keep_the_format_and_change_something(tiny: Path, change: object) -> None:
    patches = open_split(tiny, "test").read(slice(0, 4))
    changed = change(patches)
    assert changed.shape == patches.shape and changed.dtype == np.uint8
    assert not np.array_equal(changed, patches)


def test_blur_softens_and_staining_darkens(tiny: Path) -> None:
    patches = open_split(tiny, "test").read(slice(None))
    before = dict(zip(FEATURE_NAMES, patch_features(patches).mean(axis=0), strict=True))
    blurred = dict(zip(FEATURE_NAMES, patch_features(deployment.out_of_focus(patches)).mean(axis=0), strict=True))
    stained = dict(zip(FEATURE_NAMES, patch_features(deployment.stain_shift(patches)).mean(axis=0), strict=True))
    assert blurred["sharpness"] < 0.2 * before["sharpness"]
    assert stained["brightness"] < before["brightness"]
    assert stained["haematoxylin"] == pytest.approx(1.4 * before["haematoxylin"], rel=0.05)


def test_gradient_sign_raises_the_loss_within_its_step(tiny: Path) -> None:
    import torch

    torch.manual_seed(0)
    model = build(load_config("mlp").model).eval()
    split = open_split(tiny, "test")
    patches, labels = split.read(slice(None)), split.labels
    attacked = deployment.fast_gradient_sign(model, patches, labels)
    assert np.abs(attacked.astype(int) - patches).max() <= 2

    def loss(pixels: np.ndarray) -> float:
        margin = (2.0 * labels - 1) * model.predict_logits(torch.from_numpy(pixels)).numpy()
        return float(np.log1p(np.exp(-margin)).mean())

    assert loss(attacked) > loss(patches)


def test_foreign_colours_are_those_that_the_reference_lacks(tiny: Path) -> None:
    train = open_split(tiny, "train")
    known = known_colours(train)
    patches, score = train.read(slice(None)), np.linspace(0, 1, len(train))
    values = watch_patches(score, patches, known)
    assert values.shape == (48, len(QUANTITIES))
    assert values[:, -1].mean() < 0.01
    assert np.array_equal(watch_split(score, train, known, batch=7), values)
    green = np.full((1, 96, 96, 3), (0, 255, 0), dtype=np.uint8)
    assert watch_patches(np.array([0.5]), green, known)[0, -1] == 1


def test_every_scenario_gets_a_row_and_the_canary_sees_the_software(tiny: Path) -> None:
    model = build(load_config("mlp").model).eval()
    train, test = open_split(tiny, "train"), open_split(tiny, "test")
    known = known_colours(train)
    monitor = fit_monitor(watch_split(np.linspace(0, 1, len(train)), train, known), window=16)
    weights = [parameter.clone() for parameter in model.parameters()]
    canary = train.read(slice(0, 4))
    table = deployment.scenario_table(model, test.read(slice(None)), test.labels, monitor, known, canary)
    assert table["scenario"].tolist() == [scenario.name for scenario in deployment.SCENARIOS]
    assert (table["n"] == 24).all() and table["alarm_rate"].between(0, 1).all()
    assert (table["canary"] == np.where(table["risk"] == "silent degradation", "yes", "no")).all()
    glass = table.set_index("scenario").loc["blank glass"]
    assert np.isnan(glass["roc_auc"]) and glass["alarm_rate"] == 1
    assert all((old == new).all() for old, new in zip(weights, model.parameters(), strict=True))
    assert "blank glass" in set(deployment.harmful(table)["scenario"])
    assert deployment.caught(table)[table["risk"] == "silent degradation"].all()
