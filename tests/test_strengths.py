"""Changes made stronger step by step, and the strength from which on a guard sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pcam.config import load_config
from pcam.data import open_split
from pcam.evaluation.deployment import pen_mark
from pcam.evaluation.monitor import fit_monitor, known_colours, watch_split
from pcam.evaluation.strengths import LADDERS, first_alarm, some_marked, strength_figure, strength_table
from pcam.models import build


@pytest.fixture(scope="module")
def table(tiny: Path) -> pd.DataFrame:
    model = build(load_config("mlp").model).eval()
    train, test = open_split(tiny, "train"), open_split(tiny, "test")
    known = known_colours(train)
    monitor = fit_monitor(watch_split(np.linspace(0, 1, len(train)), train, known), window=16)
    canary = train.read(slice(0, 4))
    return strength_table(model, test.read(slice(None)), test.labels, monitor, known, canary)


def test_every_ladder_begins_with_nothing_changed(table: pd.DataFrame) -> None:
    for ladder in LADDERS:
        rows = table[table["change"] == ladder.name]
        assert rows["strength"].tolist() == [ladder.none, *ladder.strengths]
        assert set(rows["risk"]) == {ladder.risk} and rows["canary"].iloc[0] == "no"
    firsts = table.groupby("change").first()[["roc_auc", "alarm_rate", "outliers"]]
    assert (firsts == firsts.iloc[0]).all().all()
    lost = table[table["risk"] == "silent degradation"]
    assert (lost["canary"].iloc[1:] == "yes").all()


def test_marks_are_on_the_share_asked_for_and_stay(tiny: Path) -> None:
    patches = open_split(tiny, "test").read(slice(None))
    few, many = (np.any(some_marked(patches, share) != patches, axis=(1, 2, 3)) for share in (0.25, 0.5))
    assert few.sum() == 6 and many.sum() == 12 and not (few & ~many).any()
    assert np.array_equal(some_marked(patches, 0.25)[few], pen_mark(patches)[few])


@pytest.mark.parametrize(
    ("rates", "expected"),
    [([0, 0.2, 0.6, 0.9], 2.0), ([0, 0.6, 0.4, 0.9], 3.0), ([0, 0.9, 0.9, 0.5], None), ([1, 1, 1, 1], 0.0)],
)
def test_the_first_alarm_is_where_alarms_stay(rates: list[float], expected: float | None) -> None:
    rows = pd.DataFrame({"risk": "drift", "strength": np.arange(4.0), "alarm_rate": rates})
    found = first_alarm(rows, "drift")
    assert (None if found is None else found["strength"]) == expected


def test_the_figure_has_a_panel_a_ladder_and_a_line_a_guard(table: pd.DataFrame) -> None:
    panels = strength_figure(table).axes
    assert [axes.get_xlabel() for axes in panels] == [ladder.name for ladder in LADDERS]
    for axes, ladder in zip(panels, LADDERS, strict=True):
        rows = table[table["change"] == ladder.name]
        alarms, refused, canary, area = axes.lines
        assert alarms.get_ydata().tolist() == rows["alarm_rate"].tolist()
        assert refused.get_ydata().tolist() == rows["outliers"].tolist()
        assert set(canary.get_ydata()) <= {0.0, 1.0} and area.get_ydata().tolist() == rows["roc_auc"].tolist()
