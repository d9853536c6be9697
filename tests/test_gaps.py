"""Gaps between a slice and the rest: against scikit-learn, against DeLong by hand, and in simulated studies."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import fbeta_score, recall_score, roc_auc_score

from pcam.evaluation.gaps import METRICS, Judged, beyond_usual, gap_of, roc_auc


def study(seed: int, n: int = 400, slides: int = 24, strength: float = 1.5, weak: float | None = None):
    """Scores of n patches on slides with their own shift; the slice (a fifth) is as good as the rest unless `weak`."""
    rng = np.random.default_rng(seed)
    group, label = rng.integers(0, slides, n), rng.random(n) < 0.5
    inside = rng.permutation(n) < n // 5
    mean = np.where(inside, strength if weak is None else weak, strength)
    shift = rng.normal(0, 0.4, slides)[group]
    score = 1 / (1 + np.exp(-(np.where(label, mean, -mean) + shift + rng.normal(size=n))))
    return Judged(label, np.round(score, 2), score > 0.5, group, 2.0), inside


@pytest.mark.parametrize("seed", range(5))
def test_values_agree_with_scikit_learn(seed: int) -> None:
    judged, inside = study(seed)
    for side, pick in ((inside, "value"), (~inside, "rest_value")):
        label, called = judged.label[side], judged.called[side]
        expected = {
            "roc_auc": roc_auc_score(label, judged.score[side]),
            "sensitivity": recall_score(label, called),
            "specificity": recall_score(~label, ~called),
            "f_beta": fbeta_score(label, called, beta=2),
            "f_beta_all_positive": fbeta_score(label, np.ones_like(label), beta=2),
        }
        found = {metric: getattr(gap_of(metric, judged, inside), pick) for metric in METRICS}
        assert found == pytest.approx(expected, abs=1e-12)


def test_all_positive_f_beta_has_its_closed_form() -> None:
    judged, inside = study(1)
    p = judged.label[inside].mean()
    assert gap_of("f_beta_all_positive", judged, inside).value == pytest.approx(5 * p / (4 * p + 1))


def test_without_groups_the_error_is_delongs() -> None:
    judged, inside = study(2)
    value, influence = roc_auc(judged, inside)
    high, low = judged.score[inside & judged.label], judged.score[inside & ~judged.label]
    wins = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    by_hand = wins.mean(axis=1).var(ddof=1) / len(high) + wins.mean(axis=0).var(ddof=1) / len(low)
    assert value == pytest.approx(wins.mean())
    # The two differ by n against n - 1 only.
    assert (influence**2).sum() == pytest.approx(by_hand, rel=0.05)


@pytest.mark.parametrize("metric", METRICS)
def test_influences_add_up_to_nothing_and_stay_inside(metric: str) -> None:
    judged, inside = study(3)
    _, influence = METRICS[metric](judged, inside)
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    assert not influence[~inside].any()


@pytest.mark.parametrize("metric", ["roc_auc", "sensitivity", "specificity"])
def test_the_test_holds_its_level_where_nothing_is_weak(metric: str) -> None:
    p = np.array([gap_of(metric, *study(seed)).p for seed in range(400)])
    # 5 % of 400, give or take three standard errors.
    assert 0.015 < (p < 0.05).mean() < 0.085


@pytest.mark.parametrize("metric", ["roc_auc", "sensitivity"])
def test_intervals_hold_the_truth_as_often_as_they_say(metric: str) -> None:
    gaps = [gap_of(metric, *study(seed)) for seed in range(400)]
    truth = np.mean([gap.value for gap in gaps])
    # 95 %, give or take three standard errors of 400 studies.
    assert 0.917 < np.mean([gap.low <= truth <= gap.high for gap in gaps]) < 0.983


def test_a_weak_slice_is_seen() -> None:
    p = np.array([gap_of("roc_auc", *study(seed, weak=0.5)).p for seed in range(100)])
    assert (p < 0.01).mean() > 0.9


def test_a_better_slice_is_not_called_weak() -> None:
    gap = gap_of("roc_auc", *study(0, strength=0.5, weak=2.0))
    assert gap.gap > 0
    assert gap.p > 0.5


def test_ignoring_slides_would_be_too_sure() -> None:
    """The slice is some whole slides, and slides differ: patch by patch, chance looks like weakness."""

    def share_claimed(by_slide: bool) -> float:
        claimed = 0
        for seed in range(200):
            rng = np.random.default_rng(seed)
            group = np.repeat(np.arange(20), 40)
            label = rng.random(800) < 0.5
            called = np.where(label, rng.beta(8, 2, 20)[group], 0.1) > rng.random(800)
            judged = Judged(label, called.astype(float), called, group if by_slide else np.arange(800), 2.0)
            claimed += gap_of("sensitivity", judged, group < 5).p < 0.05
        return claimed / 200

    assert share_claimed(by_slide=False) > 0.15
    assert share_claimed(by_slide=True) < 0.12


@pytest.mark.parametrize(("hits", "low", "high"), [(30, 0.9050, 1.0), (0, 0.0, 0.0950)])
def test_a_share_of_all_or_none_has_an_interval_all_the_same(hits: int, low: float, high: float) -> None:
    label = np.ones(60, dtype=bool)
    called = np.arange(60) % 30 < hits
    gap = gap_of("sensitivity", Judged(label, called.astype(float), called, np.arange(60), 2.0), np.arange(60) < 30)
    assert (gap.low, gap.high) == pytest.approx((low, high), abs=1e-4)
    assert gap.p == 1


@pytest.mark.parametrize("hits", [[0.6, 0.6], [0.0, 0.6], [0.6]])
def test_few_slides_say_little_however_alike_they_are(hits: list[float]) -> None:
    """The slice is one or two slides of ten positives; their share has no error but of rounding."""
    shares = np.array([*hits, *np.linspace(0.7, 1.0, 12)])
    called = (np.arange(10) < 10 * shares[:, None] - 0.5).ravel()
    group = np.repeat(np.arange(len(shares)), 10)
    judged = Judged(np.ones(len(group), dtype=bool), called.astype(float), called, group, 2.0)
    gap = gap_of("sensitivity", judged, group < len(hits))
    assert gap.value == pytest.approx(np.mean(hits))
    assert gap.high - gap.low > 0.7 and gap.p > 0.02
    if len(hits) == 1:
        assert (gap.low, gap.high, gap.p) == (0, 1, 0.5)


def test_two_mistakes_on_one_slide_are_no_proof() -> None:
    """One of 19 is missed in the slice, one of 131 outside: Fisher's exact test gives 0.24."""
    group, inside = np.arange(150) % 12, np.arange(150) < 19
    called = ~np.isin(np.arange(150), (7, 43))  # both of slide 7
    gap = gap_of("sensitivity", Judged(np.ones(150, dtype=bool), called.astype(float), called, group, 2.0), inside)
    assert (gap.value, gap.rest_value) == (18 / 19, 130 / 131)
    assert gap.p > 0.05


def test_slides_count_where_they_hold_the_class_that_the_metric_is_made_of() -> None:
    """Ten slides, all ten positives of the slice on the first: their sensitivity is that of one slide."""
    label = np.arange(200) % 20 < 10
    group = np.where(np.arange(200) < 20, np.where(label, 0, np.arange(200) % 10), 10 + np.arange(200) // 20)
    judged = Judged(label, label.astype(float), label, group, 2.0)
    assert gap_of("sensitivity", judged, np.arange(200) < 20).low == pytest.approx(0.05)
    assert gap_of("specificity", judged, np.arange(200) < 20).low == pytest.approx(0.05 ** (1 / 10))


@pytest.mark.parametrize(("groups", "expected"), [(1, 0.05), (10, 1e-5)])
def test_a_slice_on_which_all_went_wrong_is_weak_as_its_groups_say(groups: int, expected: float) -> None:
    inside = np.arange(300) < 20
    called = ~inside & (np.arange(300) % 10 > 0)
    group = np.where(inside, np.arange(300) % groups, np.arange(300))
    judged = Judged(np.ones(300, dtype=bool), called.astype(float), called, group, 2.0)
    gap = gap_of("sensitivity", judged, inside)
    assert gap.value == 0 and gap.rest_value == pytest.approx(0.9, abs=0.01)
    assert (gap.p > expected) == (groups == 1)
    assert gap.p == pytest.approx((1 - 0.86) ** groups, rel=0.5)
    assert beyond_usual([gap]).min() > 0.05  # of one slide it would say little


def slide_gaps(seed: int, spread: float, weak: bool):
    """Sensitivity of 12 slides that differ by `spread` logits anyway; one may be far worse."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(12), 60)
    truth = 1.5 + spread * rng.normal(size=12) - 2.5 * (weak & (np.arange(12) == 3))
    called = rng.random(720) < 1 / (1 + np.exp(-truth[group]))
    judged = Judged(np.ones(720, dtype=bool), called.astype(float), called, np.arange(720), 2.0)
    return [gap_of("sensitivity", judged, group == slide) for slide in range(12)]


def test_slides_that_differ_as_slides_do_are_not_weak() -> None:
    studies = [slide_gaps(seed, 0.6, weak=False) for seed in range(60)]
    alone = np.mean([min(gap.p for gap in gaps) < 0.05 / 12 for gaps in studies])
    beyond = np.mean([beyond_usual(gaps).min() < 0.05 / 12 for gaps in studies])
    assert alone > 0.5
    assert beyond < 0.15


def test_a_slide_that_is_far_worse_than_slides_differ_is_seen() -> None:
    first = [int(np.argmin(beyond_usual(slide_gaps(seed, 0.2, weak=True)))) for seed in range(20)]
    assert np.mean(np.array(first) == 3) >= 0.95
    assert max(beyond_usual(slide_gaps(seed, 0.2, weak=True)).min() for seed in range(20)) < 0.01
