"""The ablation on a page: rows in order, verdicts by the intervals, a figure that shows every row."""

from __future__ import annotations

import pandas as pd
import pytest

from pcam.evaluation.ablation import Measured, ablation_table
from pcam.evaluation.ablation_pages import (
    ablation_figure,
    best_of,
    expected_by_chance,
    set_name,
    sets_of,
    shown_rows,
    verdicts,
)

SHORT = ("train.epochs=1",)


def measured(name: str, valid: float, overrides: tuple[str, ...] = (), **more: float) -> list[Measured]:
    noise = (-0.001, 0.0, 0.0015)
    return [
        Measured(name, overrides, seed, "run", valid + e * more.get("spread", 1), valid - 0.01 + e, 600, 700, 9, 2.0)
        for seed, e in enumerate(noise)
    ]


@pytest.fixture
def table() -> pd.DataFrame:
    ideas = {"cnn": 0.95, "cnn_long": 0.97, "mlp": 0.8, "p4m": 0.951}
    rows = [m for name, valid in ideas.items() for m in measured(name, valid, spread=8 if name == "p4m" else 1)]
    return ablation_table([*rows, *measured("cnn", 0.9, SHORT), *measured("stain jitter", 0.99, SHORT)])


def test_each_set_is_sorted_by_valid(table: pd.DataFrame) -> None:
    whole, short = sets_of(table)
    assert whole["variant"].tolist() == ["cnn_long", "p4m", "cnn", "mlp"]
    assert short["variant"].tolist() == ["stain jitter", "cnn"]
    assert [set_name(rows) for rows in (whole, short)] == ["every preset as it is", "every preset with train.epochs=1"]
    assert best_of(table)["variant"] == "stain jitter"
    assert sets_of(ablation_table([])) == []


def test_verdicts_are_of_the_paired_intervals(table: pd.DataFrame) -> None:
    whole, short = sets_of(table)
    assert verdicts(whole) == {"gain": ["cnn_long"], "lose": ["mlp"], "open": ["p4m"]}
    assert verdicts(short)["gain"] == ["stain jitter"]
    assert expected_by_chance(whole) == pytest.approx(0.15)


def test_the_reference_is_marked_in_the_table(table: pd.DataFrame) -> None:
    shown = shown_rows(sets_of(table)[0]).set_index("idea")
    assert shown["against"].tolist() == ["cnn", "cnn", "(reference)", "cnn"]
    assert shown.loc["cnn_long", "gap on valid"] == "+0.0200 (0.0200\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}0.0200)"
    assert shown.loc["cnn", ["gap on valid", "gap on test"]].tolist() == ["", ""]


def test_the_figure_shows_every_row_within_its_limits(table: pd.DataFrame) -> None:
    figure = ablation_figure(table)
    axes, costs = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["cnn_long", "p4m", "cnn", "mlp", "stain jitter", "cnn"]
    left, right = axes.get_xlim()
    points = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert len(points) == 2 * len(names)
    assert all(left < line.get_xdata()[0] < right for line in points)
    references = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert references == pytest.approx([0.95 + 0.0005 / 3, 0.9 + 0.0005 / 3])
    said = [text.get_text() for text in costs.texts]
    assert said.count("2") == said.count("9") == 6
    figure.canvas.draw()
    bottom, top = axes.get_ylim()
    assert bottom > top, "the best is on top"
