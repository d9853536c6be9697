"""Slices on the page: the figure that compares them, the table that lists them, and the control of the search.

The control answers what a page without findings leaves open: would the search have seen a weak slice? It makes one,
by shuffling the scores of some patches of a slice among themselves, and searches again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam.errors import DataError
from pcam.evaluation.candidates import AND, candidates, feature_edges
from pcam.evaluation.features import FEATURES
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.slices import SUPPORT, Scored, is_weak, of_slides

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe-Ito.
WEAK, FINE, REST = "#d55e00", "#0072b2", "#7f7f7f"
NAMES = {
    "roc_auc": "ROC-AUC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f_beta": "F-beta",
    "f_beta_all_positive": "F-beta if all are called positive",
}


def feature_guide() -> pd.DataFrame:
    """Return what each input feature is: feature, unit, meaning."""
    return pd.DataFrame([{"feature": f.name, "unit": f.unit or "none", "meaning": f.text} for f in FEATURES])


def candidate_table(edges_from: Scored, *others: Scored) -> pd.DataFrame:
    """Return the slices of one feature, and how many patches of each split they hold; pairs and slides are left out.

    Args:
        edges_from: the split that fixes the edges.
        others: splits that the same edges are used on.
    """
    edges, first = feature_edges(edges_from.features), edges_from.predictions.split
    counted: dict[str, dict[str, str | int]] = {}
    for scored in (edges_from, *others):
        for part in candidates(scored.features, edges, first):
            if not part.is_slide and not part.parts:
                row = counted.setdefault(part.name, {"slice": part.name, "definition": part.definition})
                row[f"n on {scored.predictions.split}"] = int(part.inside.sum())
    return pd.DataFrame(list(counted.values()))


def metric_table(table: pd.DataFrame, split: str, metric: str, *, slides: int | None = None) -> pd.DataFrame:
    """Return one metric of every slice of a split, for a page.

    Args:
        table: of `find_slices`.
        split: which split.
        metric: one of its metrics.
        slides: None: the slices made from features, and of the pairs those that are weak on some split; else this many
            slides, those with the lowest value first.

    Returns:
        slice, n, positives, the metric with its interval, its value on the rest, gap and corrected p-value.
    """
    rows = _worth_a_line(table) if slides is None else table[of_slides(table)]
    rows = rows[(rows["split"] == split) & (rows["metric"] == metric)].round({"low": 3, "high": 3})
    if slides is not None:
        rows = rows.sort_values("value", kind="stable").head(slides)
    columns = {
        "slice": "slice",
        "n": "n",
        "n_positive": "positives",
        "value": NAMES[metric],
        "low": "low",
        "high": "high",
        "rest_value": "rest",
        "gap": "gap",
        "p_adjusted": "p corrected",
    }
    return rows.assign(p_adjusted=rows["p_adjusted"].map(_p_text))[list(columns)].rename(columns=columns)


def _p_text(p: float) -> str:
    if np.isnan(p):
        return "not tested"
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def claims_table(claims: pd.DataFrame) -> pd.DataFrame:
    """Return what `weak_slices` claims, for a page; one row of "none" where it claims nothing."""
    if claims.empty:
        return pd.DataFrame([{"slice": "none", "metric": "none", "verdict": "nothing was found"}])
    columns = {
        "slice": "slice",
        "metric": "metric",
        "n": "n",
        "gap": "gap",
        "p_adjusted": "p corrected",
        "n_again": "n again",
        "gap_again": "gap again",
        "p_adjusted_again": "p again",
        "verdict": "verdict",
        "within": "shares patches with",
    }
    texts = {name: claims[name].map(_p_text) for name in ("p_adjusted", "p_adjusted_again")}
    shown = claims.assign(**texts)[list(columns)].rename(columns=columns)
    return shown.assign(metric=shown["metric"].map(NAMES), **{"n again": shown["n again"].astype("Int64")})


def prevalence_table(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return F-beta of every slice of one feature beside what moves it, the share of positives.

    Args:
        table: of `find_slices`.
        split: which split.

    Returns:
        slice, n, share positive, F-beta, F-beta if all are called positive, ROC-AUC; sorted by the share.

    Raises:
        DataError: no slice of one feature was tried.
    """
    wide = _of_one_feature(table, split).pivot(index=["slice", "n", "n_positive"], columns="metric", values="value")
    wide = wide.rename_axis(columns=None).reset_index()
    wide["share positive"] = wide["n_positive"] / wide["n"]
    shown = wide.rename(columns=NAMES)
    columns = ["slice", "n", "share positive", NAMES["f_beta"], NAMES["f_beta_all_positive"], NAMES["roc_auc"]]
    return shown[columns].sort_values("share positive", kind="stable")


def worst_slice(table: pd.DataFrame, split: str, metric: str = "roc_auc") -> pd.Series:
    """Return the row of the slice of one feature with the lowest value of a metric on a split.

    Raises:
        DataError: no slice of one feature was tried.
    """
    rows = _of_one_feature(table, split)
    return rows.loc[rows.loc[rows["metric"] == metric, "value"].idxmin()]


def _of_one_feature(table: pd.DataFrame, split: str) -> pd.DataFrame:
    rows = table[(table["split"] == split) & ~of_slides(table) & ~_of_pairs(table)]
    if rows.empty:
        raise DataError(f"no slice of {split} and its rest hold {SUPPORT} patches of each class; use more patches")
    return rows


def _of_pairs(table: pd.DataFrame) -> pd.Series:
    return table["slice"].str.contains(AND, regex=False) & ~of_slides(table)


def _worth_a_line(table: pd.DataFrame) -> pd.DataFrame:
    """Return the slices of one feature, and of pairs those that are weak on some split and metric."""
    weak = table.loc[is_weak(table), "slice"]
    return table[~of_slides(table) & (~_of_pairs(table) | table["slice"].isin(weak))]


def slice_figure(table: pd.DataFrame, metric: str = "roc_auc") -> Figure:
    """Draw a metric of every slice with its 95 % interval, one panel for each split.

    Args:
        table: of `find_slices`.
        metric: one of its metrics.

    Returns:
        A figure: slices from the most doubtful down; a dot is the slice, an orange diamond where it is weaker than
        the rest after correction; a grey tick is the rest of the split. Of slides and pairs, only weak ones are drawn.
        The axis begins below the lowest value; an interval that goes on below it ends in an arrowhead.
    """
    import matplotlib.pyplot as plt

    weak = is_weak(table)
    drawn = weak | table.index.isin(_worth_a_line(table).index)
    rows = table[(table["metric"] == metric) & drawn].assign(weak=weak)
    splits = list(dict.fromkeys(rows["split"]))
    names = list(dict.fromkeys(rows["slice"]))
    figure, panels = plt.subplots(
        1, max(len(splits), 1), sharex=True, sharey=True, squeeze=False, layout="constrained",
        figsize=(8.4, 1.2 + 0.26 * len(names)),
    )  # fmt: skip
    # A slice of two slides has an interval of almost all values; drawn whole, it would press all others together.
    start = np.floor(20 * (rows[["value", "rest_value"]].min(axis=None) - 0.15)) / 20 if len(rows) else 0.0
    start = max(0.0, float(start))
    for panel, split in zip(panels[0], splits, strict=False):
        part = rows[rows["split"] == split]
        for row in part.itertuples():
            y = names.index(row.slice)
            colour = WEAK if row.weak else FINE
            panel.plot([max(row.low, start), row.high], [y, y], color=colour, linewidth=1.6)
            if row.low < start:
                panel.plot(start, y, "<", color=colour, markersize=6, clip_on=False)
            panel.plot(row.value, y, "D" if row.weak else "o", color=colour, markersize=5)
            panel.plot(row.rest_value, y, "|", color=REST, markersize=10, markeredgewidth=1.8)
            panel.annotate(
                f"{row.n:,} ({row.n_positive:,})", (1.01, y), xycoords=("axes fraction", "data"), fontsize=8,
                va="center", color="#555555",
            )  # fmt: skip
        for y in set(range(len(names))) - {names.index(name) for name in part["slice"]}:
            panel.annotate("too few of a class", (0.02, y), xycoords=("axes fraction", "data"), fontsize=8,
                           va="center", color="#555555")  # fmt: skip
        role = "slices are searched" if split == splits[0] else "findings are tried again"
        panel.set_title(f"{split}, where {role}", fontsize=10, loc="left")
        panel.text(1.01, 1.015, "n (positive)", transform=panel.transAxes, fontsize=8, color="#555555")
        panel.set_xlabel(NAMES[metric])
        panel.set_xlim(start, 1.0 + 0.03 * (1.0 - start))
        panel.grid(axis="x", alpha=0.3)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_yticks(range(len(names)), names, fontsize=8.5)
    panels[0][0].set_ylim(len(names) - 0.4, -0.6)
    marks = [
        plt.Line2D([], [], color=FINE, marker="o", label="slice, 95 % interval"),
        plt.Line2D([], [], color=WEAK, marker="D", label="weaker than the rest (corrected)"),
        plt.Line2D([], [], color=REST, marker="|", linestyle="", markersize=10, markeredgewidth=1.8, label="the rest"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    return figure


def spoiled(scored: Scored, inside: NDArray[np.bool_], share: float, seed: int) -> Scored:
    """Return predictions that are worse on one slice and untouched elsewhere.

    Args:
        scored: N predictions.
        inside: bool (N,), the slice to spoil.
        share: how many of its patches exchange their scores among themselves, 0 to 1.
        seed: decides which.
    """
    p, rng = scored.predictions, np.random.default_rng(seed)
    struck = np.flatnonzero(inside)
    struck = rng.choice(struck, round(share * len(struck)), replace=False)
    score = p.score.copy()
    score[struck] = score[rng.permutation(struck)]
    return Scored(Predictions(p.split, p.index, p.label, score), scored.features, scored.groups)
