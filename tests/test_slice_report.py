"""Tables, figure and control of chapter q6."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from pcam.errors import DataError
from pcam.evaluation import slice_report as report
from pcam.evaluation.candidates import AND
from pcam.evaluation.features import FEATURE_NAMES
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.slices import Scored, find_slices, weak_slices

mpl.use("Agg")


def scored(split: str, seed: int, n: int = 500) -> Scored:
    rng = np.random.default_rng(seed)
    features = pd.DataFrame(rng.normal(size=(n, len(FEATURE_NAMES))), columns=list(FEATURE_NAMES))
    features["slide"] = [f"{split}-{number}" for number in rng.integers(0, 6, n)]
    label = (rng.random(n) < 0.5).astype(np.uint8)
    score = 1 / (1 + np.exp(-(3.0 * label - 1.5 + rng.normal(size=n))))
    return Scored(Predictions(split, np.arange(n), label, score), features, None)


@pytest.fixture(scope="module")
def pair() -> tuple[Scored, Scored]:
    valid, test = scored("valid", 0), scored("test", 1)
    return tuple(report.spoiled(s, (s.features["brightness"] < -0.84).to_numpy(), 0.8, seed=0) for s in (valid, test))


@pytest.fixture(scope="module")
def table(pair) -> pd.DataFrame:
    return find_slices(*pair)


def test_the_control_spoils_its_slice_and_nothing_else() -> None:
    before = scored("valid", 0)
    inside = (before.features["brightness"] < -0.84).to_numpy()
    after = report.spoiled(before, inside, 0.5, seed=0)
    changed = before.predictions.score != after.predictions.score
    assert not changed[~inside].any()
    assert 0.4 < changed[inside].mean() <= 0.5
    np.testing.assert_array_equal(np.sort(after.predictions.score), np.sort(before.predictions.score))
    np.testing.assert_array_equal(after.predictions.labels, before.predictions.labels)


def test_candidates_hold_a_fifth_of_the_split_that_fixed_them(pair) -> None:
    shown = report.candidate_table(*pair)
    assert len(shown) == 16
    assert (shown["n on valid"] == 100).all()
    assert not shown["slice"].str.startswith("slide").any()


def test_a_table_shows_slices_or_slides(table: pd.DataFrame) -> None:
    slices = report.metric_table(table, "test", "roc_auc")
    assert list(slices.columns) == [
        "slice", "n", "positives", "ROC-AUC", "low", "high", "rest", "gap", "p corrected",
    ]  # fmt: skip
    assert set(slices["p corrected"]) >= {"not tested", "< 0.001"}
    slides = report.metric_table(table, "test", "roc_auc", slides=4)
    assert len(slides) == 4
    assert slides["slice"].str.startswith("slide test-").all()
    assert slides["ROC-AUC"].is_monotonic_increasing


def test_claims_read_well_with_and_without_findings(table: pd.DataFrame) -> None:
    shown = report.claims_table(weak_slices(table))
    assert shown["slice"].iloc[0] == "darkest fifth"
    assert shown["verdict"].iloc[0] == "confirmed"
    nothing = report.claims_table(weak_slices(find_slices(scored("valid", 0), scored("test", 1))))
    assert nothing.to_dict("records") == [{"slice": "none", "metric": "none", "verdict": "nothing was found"}]


def test_prevalence_stands_beside_f_beta(table: pd.DataFrame) -> None:
    trap = report.prevalence_table(table, "test")
    p = trap["share positive"]
    np.testing.assert_allclose(trap["F-beta if all are called positive"], 5 * p / (4 * p + 1))
    assert p.is_monotonic_increasing


def test_the_worst_slice_is_the_spoiled_one(table: pd.DataFrame) -> None:
    assert report.worst_slice(table, "test")["slice"] == "darkest fifth"


@pytest.mark.parametrize("show", [report.worst_slice, report.prevalence_table])
def test_a_split_too_small_for_slices_is_named(table: pd.DataFrame, show: Callable) -> None:
    with pytest.raises(DataError, match="no slice of test and its rest hold 10 patches of each class; use more"):
        show(table[table["split"] == "valid"], "test")


def test_the_figure_draws_every_slice_and_only_weak_slides(table: pd.DataFrame) -> None:
    figure = report.slice_figure(table)
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names[0] == "darkest fifth"
    # All slices of one feature that can be drawn; of pairs, those that are weak.
    pairs = [name for name in names if AND in name]
    weak = set(table.loc[(table["p_adjusted"] < 0.05) & (table["gap"] < 0), "slice"])
    assert len(names) - len(pairs) == 16
    assert set(pairs) <= weak
    assert [axes.get_xlabel() for axes in figure.axes] == ["ROC-AUC", "ROC-AUC"]
    plt.close(figure)


def test_a_wide_interval_is_cut_and_says_so(table: pd.DataFrame) -> None:
    rows = table[table["metric"] == "roc_auc"].copy()
    rows["low"] = rows["value"] - 0.01
    rows.loc[rows.index[0], "low"] = 0.01
    figure = report.slice_figure(rows)
    start = figure.axes[0].get_xlim()[0]
    lines = [line for axes in figure.axes for line in axes.lines]
    lowest = min(line.get_xdata()[0] for line in lines if line.get_marker() in ("o", "D", "|"))
    assert 0.1 < lowest - start <= 0.2
    assert sum(line.get_marker() == "<" for line in lines) == 1
    plt.close(figure)
