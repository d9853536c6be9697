"""Thresholds: the cheapest one is found, and none may be reported on the split it was chosen on."""

from __future__ import annotations

import numpy as np
import pytest

from pcam.errors import DataError
from pcam.evaluation import (
    Predictions,
    choose_for_sensitivity,
    choose_threshold,
    confusion_matrix,
    fixed_threshold,
    implied_threshold,
    score_metrics,
)
from pcam.evaluation.calibration import fit_temperature
from pcam.evaluation.thresholds import decision_curve, threshold_table


def random_predictions(seed: int, n: int = 60, split: str = "valid", decimals: int = 16) -> Predictions:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    label[:2] = 0, 1
    score = 1 / (1 + np.exp(-(1.5 * label - 0.75 + rng.normal(size=n))))
    return Predictions(split, np.arange(n), label, np.round(score, decimals))


def cost_at(p: Predictions, value: float, cost_fn: float, cost_fp: float) -> float:
    called, label = p.score >= value, p.labels == 1
    return cost_fn * int((~called & label).sum()) + cost_fp * int((called & ~label).sum())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("cost_fn", "cost_fp"), [(1, 1), (5, 1), (1, 20)])
@pytest.mark.parametrize("decimals", [16, 1])
def test_chosen_threshold_is_the_cheapest_of_all(seed: int, cost_fn: float, cost_fp: float, decimals: int) -> None:
    p = random_predictions(seed, decimals=decimals)
    chosen = choose_threshold(p, cost_fn, cost_fp)
    # Brute force over every rule that differs: below all scores, at each of them, above all.
    every = [0.0, *np.unique(p.score), 1.1]
    assert cost_at(p, chosen.value, cost_fn, cost_fp) == min(cost_at(p, value, cost_fn, cost_fp) for value in every)
    assert chosen.split == "valid" and "per missed positive" in chosen.rule


@pytest.mark.parametrize("unit", [1, 0.1, 1 / 3])
def test_of_equally_cheap_thresholds_the_lowest_is_taken_in_any_unit(unit: float) -> None:
    p = Predictions("valid", np.arange(5), np.array([1, 0, 0, 0, 1]), np.array([0.9, 0.5, 0.4, 0.3, 0.2]))
    assert choose_threshold(p, 3 * unit, unit).value == 0.0  # three false alarms cost what the miss does


def test_extremes_are_allowed() -> None:
    backwards = Predictions("valid", np.arange(4), np.array([1, 0, 0, 0]), np.array([0.1, 0.7, 0.8, 0.9]))
    assert (backwards.score < choose_threshold(backwards, 1, 1).value).all()
    assert choose_threshold(backwards, 100, 1).value <= 0.1


@pytest.mark.parametrize("at_least", [0.5, 0.8, 0.95, 1.0])
def test_threshold_for_a_sensitivity_is_the_highest_that_reaches_it(at_least: float) -> None:
    p = random_predictions(1)
    value = choose_for_sensitivity(p, at_least).value
    positives = np.sort(p.score[p.labels == 1])
    assert np.mean(positives >= value) >= at_least
    next_higher = positives[positives >= value][0]
    assert np.mean(positives > next_higher) < at_least


def test_choosing_and_reporting_on_one_split_is_refused() -> None:
    valid, test = random_predictions(0), random_predictions(1, split="test")
    chosen = choose_threshold(valid, 5, 1)
    confusion_matrix(test, chosen)
    for report in (confusion_matrix, score_metrics):
        with pytest.raises(DataError, match="chosen on 'valid', so figures on 'valid' would flatter it"):
            report(valid, chosen)
    confusion_matrix(valid, fixed_threshold(0.5))


def test_confusion_counts() -> None:
    p = Predictions("test", np.arange(5), np.array([1, 1, 0, 0, 1]), np.array([0.9, 0.5, 0.5, 0.1, 0.2]))
    counts = confusion_matrix(p, fixed_threshold(0.5))
    assert (counts.tp, counts.fp, counts.tn, counts.fn, counts.n) == (2, 1, 1, 1, 5)


def test_implied_threshold_is_the_break_even_probability() -> None:
    threshold = implied_threshold(cost_fn=4, cost_fp=1)
    assert threshold.value == pytest.approx(0.2) and threshold.split is None


@pytest.mark.parametrize("costs", [(0, 1), (1, -1), (float("nan"), 1), (float("inf"), 1)])
def test_bad_costs_are_refused(costs: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="a cost must be a positive number"):
        choose_threshold(random_predictions(0), *costs)
    with pytest.raises(DataError, match="a cost must be a positive number"):
        implied_threshold(*costs)


@pytest.mark.parametrize("label", [[0, 0, 0], [1, 1, 1], []])
def test_one_class_is_refused(label: list[int]) -> None:
    p = Predictions("valid", np.arange(len(label)), np.array(label), np.linspace(0.1, 0.3, len(label)))
    with pytest.raises(DataError, match="do not hold both classes; a threshold needs positives and negatives"):
        choose_threshold(p, 1, 1)
    with pytest.raises(DataError, match="do not hold both classes; a temperature needs"):
        fit_temperature(p)


@pytest.mark.parametrize("at_least", [0, -1, 1.5])
def test_impossible_sensitivity_is_refused(at_least: float) -> None:
    with pytest.raises(DataError, match="sensitivity to reach"):
        choose_for_sensitivity(random_predictions(0), at_least)


def test_table_counts_what_a_lower_threshold_costs() -> None:
    p = random_predictions(2, split="test")
    table = threshold_table(p, [0.7, 0.5, 0.3], cost_fn=5, cost_fp=1)
    assert (table["sensitivity"].diff().dropna() >= 0).all() and (table["specificity"].diff().dropna() <= 0).all()
    for row in table.itertuples():
        counts = confusion_matrix(p, fixed_threshold(row.threshold))
        assert (row.tp, row.fp, row.tn, row.fn) == (counts.tp, counts.fp, counts.tn, counts.fn)
        assert row.cost == 5 * counts.fn + counts.fp


def test_net_benefit_by_counting() -> None:
    p = random_predictions(3, n=200, split="test", decimals=2)
    probabilities = [0.0, 0.1, 0.25, 0.5, 0.8, 0.99]
    table = decision_curve(p, probabilities)
    prevalence = p.labels.mean()
    for t, model, everything, none in table.itertuples(index=False):
        c = confusion_matrix(p, fixed_threshold(t))
        assert model == pytest.approx((c.tp - c.fp * t / (1 - t)) / 200)
        assert everything == pytest.approx(prevalence - (1 - prevalence) * t / (1 - t))
        assert none == 0
    # From probability 0 on everyone is called; at the prevalence, all and none are worth the same.
    assert table["model"].iloc[0] == pytest.approx(prevalence)
    assert decision_curve(p, [prevalence])["all"].iloc[0] == pytest.approx(0)


def test_a_useless_score_is_worth_no_more_than_all_or_none() -> None:
    p = Predictions("test", np.arange(100), np.arange(100) % 2, np.full(100, 0.5))
    table = decision_curve(p, np.linspace(0, 0.9, 10))
    np.testing.assert_allclose(table["model"], np.where(table["threshold"] <= 0.5, table["all"], 0))


def test_a_decision_curve_stops_below_one() -> None:
    with pytest.raises(DataError, match="thresholds of at least 0 and below 1"):
        decision_curve(random_predictions(0), [0.5, 1.0])
