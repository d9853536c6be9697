"""Slices: groups of patches, defined on their inputs alone, on which a model may be silently worse.

A slice is the fifth of the patches with the lowest or the highest value of an input feature, what two such fifths
share, or one slide. The edges are fixed on valid. On valid every slice is tried: is its ROC-AUC, its sensitivity or its
specificity worse than on the rest? All that were tried enter one Holm correction (Holm 1979, Scand. J. Statist. 6:65),
so that trying more slices does not find more. What is found is tried once more on test, which neither the edges nor the
search have seen; only then is it confirmed. A slide is in one split only and cannot be confirmed on another.

F-beta depends on the share of positives, which differs between slices, so no test is made on it: it is listed
beside the F-beta that calling every patch of the slice positive would have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam import storage
from pcam.config import EvalConfig
from pcam.data.format import Split, available_splits, open_split
from pcam.errors import DataError
from pcam.evaluation.candidates import AND, Slice, candidates, feature_edges
from pcam.evaluation.features import input_features
from pcam.evaluation.gaps import METRICS, Gap, Judged, beyond_usual, gap_of, holm
from pcam.evaluation.predict import decision_threshold
from pcam.evaluation.predictions import Predictions, check_labels, read_predictions
from pcam.evaluation.suspects import label_suspects
from pcam.evaluation.thresholds import Threshold, fixed_threshold

COLUMNS = (
    *("slice", "definition", "split", "n", "n_positive", "metric"),
    *("value", "low", "high", "rest_value", "gap", "p_adjusted", "threshold_split"),
)
# None of these moves when only the share of positives does.
TESTED = ("roc_auc", "sensitivity", "specificity")
# With fewer of a class than this, inside or outside, a metric says next to nothing: the slice is not tried.
SUPPORT = 10
ALPHA = 0.05


@dataclass(frozen=True, eq=False)
class Scored:
    """The predictions of a split beside what its patches look like.

    Attributes:
        predictions: N labelled predictions.
        features: N rows of input features, in the same order.
        groups: int64 (N,), the slide or overlap group of each patch, or None: patches count as independent.
    """

    predictions: Predictions
    features: pd.DataFrame
    groups: NDArray[np.int64] | None

    @classmethod
    def of(cls, predictions: Predictions, split: Split) -> Scored:
        """Measure the patches that the predictions are about.

        Raises:
            DataError: the predictions are of another split or of more patches than there are.
        """
        if predictions.split != split.name:
            raise DataError(f"predictions of '{predictions.split}' do not belong to split '{split.name}'")
        if len(predictions) and predictions.index[-1] >= len(split):
            raise DataError(
                f"predictions of '{split.name}' go up to index {predictions.index[-1]}, but {split.directory} has "
                f"{len(split)} patches; use the data that they were made on"
            )
        groups = None if split.groups is None else split.groups[predictions.index]
        return cls(predictions, input_features(split, predictions.index), groups)


def find_slices(
    discovery: Scored,
    confirmation: Scored | None = None,
    *,
    threshold: Threshold | None = None,
    beta: float = 2.0,
    edges: dict[str, tuple[float, float]] | None = None,
    edges_from: str = "",
) -> pd.DataFrame:
    """Try every slice on one split, and those found there on another.

    Args:
        discovery: the split to search, normally valid.
        confirmation: the split to confirm on, normally test; None: nothing is confirmed.
        threshold: decides which score is a positive call; None: 0.5, fixed beforehand.
        beta: of F-beta.
        edges: the features' edges; None: those of `discovery`.
        edges_from: the split that `edges` come from.

    Returns:
        The columns `COLUMNS`, one row for each split, slice and metric, the most doubtful slice first: those found to
        be weak by gap × √(patches that the metric counts), then the others by p-value; a slice stands where its worst
        metric does.
        `p_adjusted` is one-sided ("no worse than the rest"), by Holm over all that were tried: on `discovery`
        every slice and tested metric, on `confirmation` those found on `discovery`, and apart from them its own
        slides. It is empty where nothing was tested. `threshold_split` is the split that the threshold was chosen on,
        empty where it was fixed beforehand or the metric has none: on that very split the values are flattered, in the
        slice as in the rest, and only their gap can be read.

    Raises:
        DataError: labels are missing.
    """
    threshold = threshold or fixed_threshold(0.5)
    if edges is None:
        edges, edges_from = feature_edges(discovery.features), discovery.predictions.split
    rows = _measure(discovery, candidates(discovery.features, edges, edges_from), threshold, beta)
    tested = rows["metric"].isin(TESTED)
    rows.loc[tested, "p_adjusted"] = holm(rows.loc[tested, "p"].to_numpy())
    order = _by_doubt(rows[tested])
    parts = [rows]
    if confirmation is not None:
        # Two slices may be more alike here than there: what was found there is tried here all the same.
        parts_again = candidates(confirmation.features, edges, edges_from, distinct=False)
        again = _measure(confirmation, parts_again, threshold, beta)
        again = again[again["is_slide"] | again["slice"].isin(rows["slice"])].reset_index(drop=True)
        found = set(map(tuple, rows.loc[is_weak(rows), ["slice", "metric"]].to_numpy()))
        chosen = np.array([pair in found for pair in zip(again["slice"], again["metric"], strict=True)], dtype=bool)
        own_slide = (again["is_slide"] & again["metric"].isin(TESTED)).to_numpy()
        for family in (chosen & ~own_slide, own_slide):
            again.loc[family, "p_adjusted"] = holm(again.loc[family, "p"].to_numpy())
        parts.append(again)
        order = pd.Index([*order, *again["slice"]]).drop_duplicates()
    place = {name: position for position, name in enumerate(order)}
    parts = [part.sort_values("slice", key=lambda names: names.map(place), kind="stable") for part in parts]
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _by_doubt(tested: pd.DataFrame) -> pd.Index:
    """Return the slices' names, the most doubtful first.

    Among weak slices the p-value ranks badly: one that merely overlaps the culprit but is spread over more slides has
    the smaller error. What is lost, and on how many patches, tells them apart.
    """
    counted = {
        "roc_auc": tested["n"],
        "sensitivity": tested["n_positive"],
        "specificity": tested["n"] - tested["n_positive"],
    }
    weight = tested["gap"] * np.sqrt(pd.concat([counted[m][tested["metric"] == m] for m in TESTED]))
    key = np.where(is_weak(tested), weight, tested["p"])
    # Ties keep the order of the candidates.
    return tested.assign(key=key).groupby("slice", sort=False)["key"].min().sort_values(kind="stable").index


def weak_slices(table: pd.DataFrame) -> pd.DataFrame:
    """Return what a table of `find_slices` claims.

    Returns:
        One row for each slice and metric found on the first split, the most doubtful first: slice, definition, metric,
        n, value, rest_value, gap and p_adjusted there; n, gap and p_adjusted on the second (with `_again`); `verdict`:
        "confirmed", "not confirmed", "too few again" (patches of a class) or "no second split"; and `within`: the claim
        before it on the same metric that shares a feature's fifth with it and may be all there is to it, else empty.
    """
    splits = list(dict.fromkeys(table["split"]))
    keys = ["slice", "metric"]
    first = table[(table["split"] == splits[0]) & is_weak(table)] if splits else table
    second = table[table["split"].isin(splits[1:])]
    claims = first[["slice", "definition", "metric", "n", "value", "rest_value", "gap", "p_adjusted"]].merge(
        second[[*keys, "n", "gap", "p_adjusted"]], on=keys, how="left", suffixes=("", "_again")
    )
    verdict = np.where(is_weak(claims, "_again"), "confirmed", "not confirmed")
    missing = "no second split" if len(splits) < 2 else np.where(of_slides(claims), "no second split", "too few again")
    claims["verdict"] = np.where(claims["n_again"].isna(), missing, verdict)
    own: list[tuple[str, str]] = []
    within = []
    for name, metric in zip(claims["slice"], claims["metric"], strict=True):
        shared = [n for n, m in own if m == metric and set(n.split(AND)) & set(name.split(AND))]
        own += [] if shared else [(name, metric)]
        within.append(shared[0] if shared else "")
    claims["within"] = np.array(within, dtype=object)
    return claims


def is_weak(table: pd.DataFrame, suffix: str = "") -> pd.Series:
    """Tell of each row of a table of `find_slices` whether its slice is significantly worse than the rest."""
    return (table[f"p_adjusted{suffix}"] < ALPHA) & (table[f"gap{suffix}"] < 0)


def of_slides(table: pd.DataFrame) -> pd.Series:
    """Tell of each row of a table of `find_slices` whether its slice is a slide."""
    return table["definition"].str.startswith("slide = ")


def _measure(scored: Scored, slices: Iterable[Slice], threshold: Threshold, beta: float) -> pd.DataFrame:
    """Measure every metric of every slice with enough support; `p` is not corrected yet."""
    predictions = scored.predictions
    label = predictions.labels.astype(bool)
    patch = np.arange(len(label))
    # Chosen on this very split it flatters the level, alike inside and outside: `threshold_split` says so in each row.
    called = predictions.score >= threshold.value
    by_group = Judged(label, predictions.score, called, patch if scored.groups is None else scored.groups, beta)
    by_patch = Judged(label, predictions.score, called, patch, beta)
    rows: list[dict[str, object]] = []
    of_slides: dict[str, list[tuple[int, Gap]]] = {metric: [] for metric in METRICS}
    for part in slices:
        counts = [int((side & kind).sum()) for side in (part.inside, ~part.inside) for kind in (label, ~label)]
        if min(counts) < SUPPORT:
            continue
        # One slide is one group: its own error can only come from the spread of its patches.
        judged = by_patch if part.is_slide else by_group
        for metric in METRICS:
            gap = gap_of(metric, judged, part.inside)
            if part.is_slide:
                of_slides[metric].append((len(rows), gap))
            rows.append(
                {
                    "slice": part.name,
                    "definition": part.definition,
                    "split": predictions.split,
                    "n": int(part.inside.sum()),
                    "n_positive": counts[0],
                    "metric": metric,
                    "value": gap.value,
                    "low": gap.low,
                    "high": gap.high,
                    "rest_value": gap.rest_value,
                    "gap": gap.gap,
                    "p_adjusted": np.nan,
                    "threshold_split": "" if metric == "roc_auc" else threshold.split or "",
                    "p": gap.p,
                    "is_slide": part.is_slide,
                }
            )
    for found in of_slides.values():
        for (row, _), p in zip(found, beyond_usual([gap for _, gap in found]), strict=True):
            rows[row]["p"] = p
    return pd.DataFrame(rows, columns=[*COLUMNS, "p", "is_slide"]).astype({"is_slide": bool, "p_adjusted": float})


def run(
    predictions: Path | str, data_dir: Path | str, out: Path | str, *, found_on: Path | str | None = None
) -> pd.DataFrame:
    """Find weak slices and write `OUT/slices.csv` and `OUT/gallery.html`.

    Args:
        predictions: a predictions file of any split with labels.
        data_dir: the data it was made on.
        out: the folder to write to.
        found_on: predictions of another split by the same model, normally valid, to search first; those of
            `predictions` then confirm, and the threshold is the one that is cheapest on `found_on`. None:
            `predictions` are searched themselves, nothing is confirmed, and the costs alone imply the threshold.

    Returns:
        The table of `find_slices`.

    Raises:
        DataError: a file is missing or wrong, labels are missing, or predictions and data do not fit.
        StorageError: `out` cannot be written.
    """
    from pcam.evaluation.gallery import ErrorGallery

    config = EvalConfig()
    scored = [_open(path, data_dir) for path in (found_on, predictions) if path is not None]
    if len({part.predictions.split for part in scored}) < len(scored):
        raise DataError(f"{found_on}: holds the split of {predictions} again; search one split and confirm on another")
    shown = scored[-1]
    threshold = decision_threshold(scored[0].predictions if found_on is not None else None, config)
    # Edges need inputs only, so valid fixes them even where no prediction was made on it.
    edges_from = "valid" if "valid" in available_splits(data_dir) else scored[0].predictions.split
    edges = feature_edges(input_features(open_split(data_dir, edges_from)))
    table = find_slices(*scored, threshold=threshold, beta=config.beta, edges=edges, edges_from=edges_from)
    storage.write_text(Path(out) / "slices.csv", table.to_csv(index=False, lineterminator="\n"))
    gallery = ErrorGallery(
        shown.predictions,
        open_split(data_dir, shown.predictions.split),
        threshold,
        features=shown.features,
        slices=slice_masks(shown, edges, edges_from, weak_slices(table)["slice"]),
        suspects=label_suspects(shown.predictions),
    )
    storage.write_text(Path(out) / "gallery.html", gallery.to_page())
    return table


def slice_masks(
    scored: Scored, edges: dict[str, tuple[float, float]], edges_from: str = "valid", pairs: Iterable[str] = ()
) -> dict[str, NDArray[np.bool_]]:
    """Return name → bool (N,) of the slices made from one feature, and of those pairs that are named."""
    named = set(pairs)
    parts = candidates(scored.features, edges, edges_from, distinct=False)
    return {part.name: part.inside for part in parts if not part.is_slide and (not part.parts or part.name in named)}


def _open(path: Path | str, data_dir: Path | str) -> Scored:
    predictions = read_predictions(path)
    split = open_split(data_dir, predictions.split)
    check_labels(predictions, split, path)
    return Scored.of(predictions, split)
