"""The ablation as a page shows it: a table, one figure, and what its intervals say."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np

from pcam.evaluation.curves import PALETTE
from pcam.evaluation.intervals import LEVEL

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TICKS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999)
_ROW_INCHES = 0.27
_COLUMNS = {
    "variant": "idea",
    "against": "against",
    "seeds": "seeds",
    "valid_auc": "valid",
    "valid_gap": "gap on valid",
    "test_auc": "test",
    "test_gap": "gap on test",
    "core_seconds": "core-s",
    "weights": "weights",
}


def sets_of(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows of each set of common overrides, the set with most rows first, the best on valid on top."""
    if table.empty:
        return []
    found = [rows.sort_values("valid_auc", ascending=False) for _, rows in table.groupby("overrides")]
    return sorted(found, key=len, reverse=True)


def set_name(rows: pd.DataFrame) -> str:
    """Return what holds for every run of a set, in words."""
    common = str(rows["overrides"].iloc[0])
    return f"every preset with {common}" if common else "every preset as it is"


def best_of(table: pd.DataFrame) -> dict[str, Any]:
    """Return the row with the highest mean ROC-AUC on valid."""
    return dict(table.loc[table["valid_auc"].idxmax()])


def shown_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that a page shows, under their names for readers."""
    against = rows["against"].where(rows["variant"] != rows["against"], "(reference)")
    gaps = {f"{split}_gap": [_gap(row, split) for row in rows.to_dict("records")] for split in ("valid", "test")}
    return rows.assign(against=against, **gaps)[list(_COLUMNS)].rename(columns=_COLUMNS)


def _gap(row: dict[str, Any], split: str) -> str:
    """Write a gap with its interval; nothing for a reference, or where no seeds are shared with it."""
    value, low, high = (row[f"{split}_gap{end}"] for end in ("", "_low", "_high"))
    if row["variant"] == row["against"] or np.isnan(value):
        return ""
    return f"{value:+.4f} ({low:.4f}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{high:.4f})"  # two lines of a narrow cell


def verdicts(rows: pd.DataFrame, split: str = "valid") -> dict[str, list[str]]:
    """Return which ideas "gain", "lose" or stay "open" against what they are compared with, by the interval over seeds.

    Args:
        rows: of one set of overrides.
        split: by whose ROC-AUC.
    """
    said: dict[str, list[str]] = {"gain": [], "lose": [], "open": []}
    for row in rows[(rows["variant"] != rows["against"]) & rows[f"{split}_gap"].notna()].to_dict("records"):
        low, high = row[f"{split}_gap_low"], row[f"{split}_gap_high"]
        said["gain" if low > 0 else "lose" if high < 0 else "open"].append(row["variant"])
    return said


def expected_by_chance(rows: pd.DataFrame) -> float:
    """Return how many of the intervals would leave out zero if no idea did anything."""
    return (1 - LEVEL) * sum(map(len, verdicts(rows).values()))


def ablation_figure(table: pd.DataFrame) -> Figure:
    """Draw each variant's mean ROC-AUC on valid and test with its interval over seeds, beside what it costs.

    The axis goes by the logarithm of 1 - ROC-AUC, so that halving what is wrong is the same step everywhere. Each
    set of overrides is a block, sorted by valid; a line marks the cnn, what most ideas are compared with.
    """
    import matplotlib.pyplot as plt

    blocks = sets_of(table)
    height = _ROW_INCHES * (len(table) + 2 * len(blocks)) + 0.9
    figure, (axes, costs) = plt.subplots(
        1, 2, figsize=(9, height), sharey=True, width_ratios=(3, 1.15), layout="constrained"
    )
    place, labels = 0, {}
    for rows in blocks:
        heading: dict[str, Any] = {"va": "center", "fontsize": 8, "fontweight": "bold"}
        name = axes.text(0.0, place, shorten(set_name(rows), 76), transform=axes.get_yaxis_transform(), **heading)
        name.set_in_layout(False)  # a long one may reach into the next panel
        costs.text(0.4, place, "core-s", ha="right", **heading)
        costs.text(1.0, place, "weights", ha="right", **heading)
        top = place
        for row in rows.to_dict("records"):
            place += 1
            labels[place] = row["variant"]
            _draw_row(axes, row, place)
            costs.text(0.4, place, f"{row['core_seconds']:,.0f}", ha="right", va="center", fontsize=8)
            costs.text(1.0, place, f"{row['weights']:,}", ha="right", va="center", fontsize=8)
        for reference in rows.loc[rows["variant"] == "cnn", "valid_auc"]:
            axes.plot(
                [reference] * 2, [top + 0.5, place + 0.5], color=PALETTE[7], linestyle="--", linewidth=1, zorder=1
            )
        place += 2
    _finish(axes, costs, labels, place)
    return figure


def _draw_row(axes: Axes, row: dict[str, Any], place: int) -> None:
    for split, shift, colour, marker, fill in (
        ("valid", -0.14, PALETTE[0], "o", PALETTE[0]),
        ("test", 0.14, PALETTE[1], "s", "white"),
    ):
        mean, low, high = (row[f"{split}_auc{end}"] for end in ("", "_low", "_high"))
        if np.isnan(mean):
            continue
        # Student's interval does not know that no ROC-AUC is above 1.
        axes.plot([low, min(high, 1 - 1e-6)], [place + shift] * 2, color=colour, linewidth=1.2, zorder=2)
        label = f"{split}, n = {row[f'{split}_n']:,}" if place == 1 else None
        axes.plot(
            mean, place + shift, marker, color=colour, mfc=fill, markersize=5, linestyle="", label=label, zorder=3
        )


def _finish(axes: Axes, costs: Axes, labels: dict[int, str], rows: int) -> None:
    axes.set_xscale("function", functions=(_wrong_to_axis, _axis_to_wrong))
    ends = np.concatenate([line.get_xdata() for line in axes.lines])
    means = np.concatenate([line.get_xdata() for line in axes.lines if line.get_linestyle() == "None"])
    # Of two seeds an interval may reach anywhere; the means decide what is worth showing.
    reach = max(0.2, np.ptp(_wrong_to_axis(means)))
    least = max(_wrong_to_axis(ends).min(), _wrong_to_axis(means).min() - reach) - 0.02
    most = min(_wrong_to_axis(ends).max(), _wrong_to_axis(means).max() + reach) + 0.02
    axes.set_xlim(*_axis_to_wrong(np.array([least, most])))
    ticks = [tick for tick in _TICKS if least <= _wrong_to_axis(tick) <= most]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
    axes.set_yticks(list(labels), labels.values(), fontsize=8)
    axes.set_ylim(rows - 1.2, -0.8)
    axes.set_xlabel("ROC-AUC, mean and 95 % interval over seeds (dashed: the cnn on valid)")
    axes.grid(visible=True, axis="x", color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    costs.set_xlim(0, 1)
    costs.axis("off")


def _wrong_to_axis(auc: np.ndarray | float) -> np.ndarray:
    return -np.log10(np.clip(1 - np.asarray(auc, dtype=np.float64), 1e-9, None))


def _axis_to_wrong(place: np.ndarray) -> np.ndarray:
    return 1 - 10 ** -np.asarray(place, dtype=np.float64)
