"""Planted weaknesses: they are where they are said to be, the search finds them; `benchmarks/slices.py` in short."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pcam.data.format import open_split
from pcam.errors import DataError
from pcam.evaluation.candidates import AND, feature_edges
from pcam.evaluation.features import FEATURE_NAMES, patch_features
from pcam.evaluation.planting import PLANTS, blurred, planted, simulated
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.slices import Scored, find_slices, weak_slices

SEEDS = 5


def bare(split: str, seed: int, n: int = 1200, slides: int = 24) -> Scored:
    """Patches with features that go together, as brightness and stain do."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, len(FEATURE_NAMES)))
    values[:, 4] = -0.5 * values[:, 0] + 0.9 * values[:, 4]
    features = pd.DataFrame(values, columns=list(FEATURE_NAMES))
    group = rng.integers(0, slides, n)
    features["slide"] = [f"{split}-{number:02d}" for number in group]
    label = (rng.random(n) < 0.45).astype(np.uint8)
    return Scored(Predictions(split, np.arange(n), label, np.zeros(n)), features, group)


@pytest.fixture(scope="module")
def splits() -> list[Scored]:
    return [bare("valid", 0), bare("test", 1)]


@pytest.mark.parametrize("kind", PLANTS)
def test_the_search_finds_what_is_planted_and_nothing_else(kind: str, splits: list[Scored]) -> None:
    edges = feature_edges(splits[0].features)
    name, parts = planted(kind, splits, edges)
    for seed in range(SEEDS):
        pair = [simulated(s, part.inside, 2 * seed + k) for k, (s, part) in enumerate(zip(splits, parts, strict=True))]
        table = find_slices(*pair, edges=edges, edges_from="valid")
        claims = weak_slices(table)
        confirmed = set(claims.loc[claims["verdict"] == "confirmed", "slice"])
        if kind == "none":
            assert not confirmed
        elif kind == "slide":
            assert table["slice"].iloc[0] == name == claims["slice"].iloc[0]
        else:
            assert table["slice"].iloc[0] == name
            assert name in confirmed


def test_scores_tell_little_on_the_weak_and_much_elsewhere(splits: list[Scored]) -> None:
    _, (part, _) = planted("dark", splits, feature_edges(splits[0].features))
    p = simulated(splits[0], part.inside, 0).predictions
    assert roc_auc_score(p.labels[part.inside], p.score[part.inside]) < 0.75
    assert roc_auc_score(p.labels[~part.inside], p.score[~part.inside]) > 0.92
    assert simulated(splits[0], part.inside, 0).predictions.score.tolist() == p.score.tolist()


def test_a_pair_is_of_two_slices_and_hides_in_either(splits: list[Scored]) -> None:
    edges = feature_edges(splits[0].features)
    name, (pair, _) = planted("pair", splits, edges)
    assert name == AND.join(pair.parts)
    (dark, _) = planted("dark", splits, edges)[1]
    assert pair.inside.sum() <= 0.5 * dark.inside.sum()


def test_claims_that_share_a_fifth_with_a_stronger_one_say_so(splits: list[Scored]) -> None:
    edges = feature_edges(splits[0].features)
    name, parts = planted("dark", splits, edges)
    pair = [simulated(s, part.inside, k) for k, (s, part) in enumerate(zip(splits, parts, strict=True))]
    claims = weak_slices(find_slices(*pair, edges=edges, edges_from="valid"))
    auc = claims[claims["metric"] == "roc_auc"].set_index("slice")
    assert auc.loc[name, "within"] == ""
    pairs = auc[auc.index.str.contains(f"{name}{AND}", regex=False)]
    assert len(pairs)
    assert (pairs["within"] == name).all()


def test_what_cannot_be_planted_is_refused(splits: list[Scored]) -> None:
    edges = feature_edges(splits[0].features)
    with pytest.raises(DataError, match=r"unknown weakness 'drak'; did you mean 'dark'\?"):
        planted("drak", splits, edges)
    small = bare("valid", 0, n=30)
    with pytest.raises(DataError, match="'dark' cannot be planted: no such slice holds 10 patches of each class"):
        planted("dark", [small], feature_edges(small.features))


def test_a_blurred_slide_is_blurred_and_nothing_else_is(tiny) -> None:
    split = open_split(tiny, "test")
    scored = Scored.of(Predictions("test", np.arange(24), split.labels, np.zeros(24)), split)
    slide = str(scored.features["slide"].iloc[0])
    soft = blurred(scored, split, slide)
    struck = (scored.features["slide"] == slide).to_numpy()
    assert (soft.features["sharpness"] < 0.5 * scored.features["sharpness"])[struck].all()
    np.testing.assert_allclose(soft.features["brightness"], scored.features["brightness"], atol=1.5)
    pd.testing.assert_frame_equal(soft.features[~struck], scored.features[~struck])
    assert scored.features["sharpness"].iloc[0] == pytest.approx(patch_features(split.read([0]))[0, 7])
