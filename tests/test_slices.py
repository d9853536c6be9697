"""The search for weak slices: it finds what is planted, claims nothing where there is nothing, and says what it did."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pcam.data.format import open_split
from pcam.errors import DataError
from pcam.evaluation.candidates import candidates, feature_edges
from pcam.evaluation.features import FEATURE_NAMES
from pcam.evaluation.predictions import Predictions, write_predictions
from pcam.evaluation.slices import ALPHA, COLUMNS, TESTED, Scored, find_slices, holm, run, weak_slices
from pcam.evaluation.thresholds import choose_threshold, fixed_threshold


def scored(split: str, seed: int, weak: str = "", n: int = 600, slides: int = 24) -> Scored:
    """A split of n patches with random features; on the slice `weak` the scores tell little."""
    rng = np.random.default_rng(seed)
    features = pd.DataFrame(rng.normal(size=(n, len(FEATURE_NAMES))), columns=list(FEATURE_NAMES))
    group = rng.integers(0, slides, n)
    features["slide"] = [f"{split}-{number:02d}" for number in group]
    label = (rng.random(n) < 0.4).astype(np.uint8)
    struck = {
        "": np.zeros(n, dtype=bool),
        "darkest fifth": (features["brightness"] < -0.84).to_numpy(),
        "sharpest fifth": (features["sharpness"] > 0.84).to_numpy(),
        "slide": (features["slide"] == f"{split}-07").to_numpy(),
    }[weak]
    strength = np.where(struck, 0.2, 1.6)
    logit = np.where(label == 1, strength, -strength) + rng.normal(0, 0.3, slides)[group] + rng.normal(size=n)
    return Scored(Predictions(split, np.arange(n), label, 1 / (1 + np.exp(-logit))), features, group)


@pytest.mark.parametrize("weak", ["darkest fifth", "sharpest fifth"])
def test_a_planted_slice_is_found_first_and_confirmed(weak: str) -> None:
    first = 0
    for seed in range(20):
        table = find_slices(scored("valid", seed, weak), scored("test", 1000 + seed, weak))
        claims = weak_slices(table)
        confirmed = claims[claims["verdict"] == "confirmed"]
        first += table["slice"].iloc[0] == weak and weak in set(confirmed["slice"])
    assert first >= 19


def test_a_slice_on_which_every_positive_is_missed_is_found_first_and_confirmed() -> None:
    """Nothing varies there, so its own spread says nothing; its ranking stays as good as that of the rest."""

    def struck(split: str, seed: int) -> Scored:
        s = scored(split, seed)
        p, dark = s.predictions, s.features["brightness"] < -0.7
        return Scored(
            Predictions(split, p.index, p.label, np.where(dark, p.score / 100, p.score)), s.features, s.groups
        )

    claims = weak_slices(find_slices(struck("valid", 0), struck("test", 1000)))
    assert claims.loc[0, ["slice", "metric", "value", "verdict"]].tolist() == [
        "darkest fifth", "sensitivity", 0.0, "confirmed"
    ]  # fmt: skip


def test_nothing_is_claimed_where_nothing_is_weak() -> None:
    silent = found = 0
    for seed in range(20):
        claims = weak_slices(find_slices(scored("valid", seed), scored("test", 1000 + seed)))
        silent += not (claims["verdict"] == "confirmed").any()
        found += len(claims) > 0
    assert silent >= 19
    assert found <= 3


def test_a_weak_slide_is_found_and_not_said_to_be_confirmed() -> None:
    claims = weak_slices(find_slices(scored("valid", 0, "slide", n=1200), scored("test", 1)))
    assert claims["slice"].iloc[0] == "slide valid-07"
    assert claims["verdict"].iloc[0] == "no second split"


def test_the_columns_and_rows_are_as_promised() -> None:
    valid, test = scored("valid", 0, "darkest fifth"), scored("test", 1, "darkest fifth")
    table = find_slices(valid, test, threshold=fixed_threshold(0.3))
    assert tuple(table.columns) == COLUMNS
    assert list(dict.fromkeys(table["split"])) == ["valid", "test"]
    assert not table.duplicated(["slice", "split", "metric"]).any()
    dark = table[(table["slice"] == "darkest fifth") & (table["split"] == "valid")].set_index("metric")
    edge = valid.features["brightness"].quantile(0.2)
    inside = (valid.features["brightness"] <= edge).to_numpy()
    label, called = valid.predictions.labels == 1, valid.predictions.score >= 0.3
    assert (dark["n"] == inside.sum()).all()
    assert (dark["n_positive"] == (inside & label).sum()).all()
    assert dark.loc["sensitivity", "value"] == pytest.approx(called[inside & label].mean())
    assert dark.loc["sensitivity", "rest_value"] == pytest.approx(called[~inside & label].mean())
    np.testing.assert_allclose(table["gap"], table["value"] - table["rest_value"], atol=1e-12)
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_only_what_is_tested_has_a_p_value_and_only_what_was_found_is_tested_again() -> None:
    table = find_slices(scored("valid", 0, "darkest fifth"), scored("test", 1, "darkest fifth"))
    on_valid = table[table["split"] == "valid"]
    assert set(on_valid.loc[on_valid["p_adjusted"].notna(), "metric"]) == set(TESTED)
    found = on_valid[(on_valid["p_adjusted"] < ALPHA) & (on_valid["gap"] < 0)]
    again = table[(table["split"] == "test") & ~table["slice"].str.startswith("slide ")]
    tested = again[again["p_adjusted"].notna()]
    measured = found[found["slice"].isin(again["slice"])]
    assert set(zip(tested["slice"], tested["metric"], strict=True)) == set(
        zip(measured["slice"], measured["metric"], strict=True)
    )


def test_edges_come_from_the_first_split_and_hold_on_the_second() -> None:
    valid, test = scored("valid", 0), scored("test", 1)
    shifted = Scored(test.predictions, test.features.assign(brightness=test.features["brightness"] + 0.5), test.groups)
    table = find_slices(valid, shifted)
    rows = table[(table["slice"] == "darkest fifth") & (table["metric"] == "roc_auc")].set_index("split")
    assert rows.loc["valid", "definition"] == rows.loc["test", "definition"]
    assert rows.loc["test", "n"] == (shifted.features["brightness"] <= valid.features["brightness"].quantile(0.2)).sum()


def test_slices_know_neither_label_nor_score() -> None:
    valid = scored("valid", 0)
    edges = feature_edges(valid.features)
    masks = {part.name: part.inside for part in candidates(valid.features, edges)}
    rng = np.random.default_rng(9)
    other = Predictions("valid", valid.predictions.index, rng.integers(0, 2, 600), rng.random(600))
    table = find_slices(Scored(other, valid.features, valid.groups))
    for name, n in table.drop_duplicates("slice").set_index("slice")["n"].items():
        assert masks[name].sum() == n


def test_a_feature_that_hardly_varies_makes_no_slice() -> None:
    valid = scored("valid", 0)
    features = valid.features.assign(tissue=1.0)
    names = {part.name for part in candidates(features, feature_edges(features))}
    assert not any("tissue" in name for name in names)
    assert "darkest fifth" in names


def test_too_few_of_a_class_is_not_tried() -> None:
    valid = scored("valid", 0, n=40, slides=2)
    table = find_slices(valid)
    assert not table["slice"].str.contains("fifth").any()
    assert (table["n"] >= 20).all()


def test_holm_by_hand() -> None:
    # Sorted 0.01 × 4, 0.02 × 3, 0.03 × 2, then the last, which may not fall below the one before it.
    assert holm(np.array([0.03, 0.01, 0.035, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1, 1])
    assert holm(np.array([])).shape == (0,)


@pytest.fixture(scope="module")
def files(tiny, tmp_path_factory: pytest.TempPathFactory):
    """Predictions files of valid and test of the tiny sample."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    for name in ("valid", "test"):
        label = open_split(tiny, name).labels
        score = np.clip(0.6 * label + rng.random(len(label)) * 0.4, 0, 1)
        write_predictions(folder / f"{name}.csv", Predictions(name, np.arange(len(label)), label, score))
    return folder


def test_run_writes_the_table_and_the_gallery(tiny, files, tmp_path) -> None:
    table = run(files / "test.csv", tiny, tmp_path / "out", found_on=files / "valid.csv")
    written = (tmp_path / "out" / "slices.csv").read_text(encoding="utf-8")
    assert written.splitlines()[0] == ",".join(COLUMNS)
    assert len(written.splitlines()) == len(table) + 1
    page = (tmp_path / "out" / "gallery.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    again = run(files / "test.csv", tiny, tmp_path / "again", found_on=files / "valid.csv")
    assert again.equals(table)
    assert (tmp_path / "again" / "gallery.html").read_text(encoding="utf-8") == page


def test_a_row_says_where_its_threshold_was_chosen() -> None:
    valid, test = scored("valid", 0), scored("test", 1)
    chosen = choose_threshold(valid.predictions, 5, 1)
    table = find_slices(valid, test, threshold=chosen)
    says = table.groupby("metric")["threshold_split"].agg(set)
    assert says.pop("roc_auc") == {""}
    assert set(map(frozenset, says)) == {frozenset({"valid"})}
    # On valid such a level is flattered: whoever reads the file sees both splits in one row.
    assert set(table["split"]) == {"valid", "test"}
    assert set(find_slices(valid)["threshold_split"]) == {""}


def test_run_needs_labels_and_the_right_data(tiny, files, tmp_path) -> None:
    bare = Predictions("test", np.arange(24), None, np.linspace(0, 1, 24))
    write_predictions(tmp_path / "bare.csv", bare)
    with pytest.raises(DataError, match=r"bare\.csv: holds no labels; slices need a split whose y file is present"):
        run(tmp_path / "bare.csv", tiny, tmp_path / "out")
    longer = Predictions("test", np.arange(25), np.arange(25) % 2, np.linspace(0, 1, 25))
    write_predictions(tmp_path / "longer.csv", longer)
    with pytest.raises(
        DataError, match=r"go up to index 24, but .* has 24 patches; use the data that they were made on"
    ):
        run(tmp_path / "longer.csv", tiny, tmp_path / "out")
    label = open_split(tiny, "test").labels.copy()
    label[3] = 1 - label[3]
    write_predictions(tmp_path / "other.csv", Predictions("test", np.arange(24), label, np.linspace(0, 1, 24)))
    with pytest.raises(DataError, match=r"other\.csv: 1 of 24 labels differ from those of 'test' in .* index 3; use"):
        run(tmp_path / "other.csv", tiny, tmp_path / "out")
    with pytest.raises(DataError, match="search one split and confirm on another"):
        run(files / "test.csv", tiny, tmp_path / "out", found_on=files / "test.csv")
    assert not (tmp_path / "out").exists()
