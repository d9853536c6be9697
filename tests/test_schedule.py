"""Each schedule's shape, at the steps where it is known."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pcam.config import TrainConfig
from pcam.training.schedule import learning_rate


def rates(schedule: str, total: int = 100, **fields: float) -> list[float]:
    config = TrainConfig(schedule=schedule, lr=1.0, **fields)
    return [learning_rate(config, step, total) for step in range(total)]


def test_constant() -> None:
    assert rates("constant") == [1.0] * 100


def test_step_falls_at_half_and_at_four_fifths() -> None:
    values = rates("step")
    assert values[49] == 1.0
    assert values[50] == values[79] == pytest.approx(0.1)
    assert values[80] == values[99] == pytest.approx(0.01)


def test_cosine_falls_all_the_way() -> None:
    values = rates("cosine")
    assert values[0] == 1.0
    assert values[50] == pytest.approx(0.5)
    assert all(a > b > 0 for a, b in pairwise(values))
    assert values[99] < 1e-3


def test_one_cycle_rises_then_falls() -> None:
    values = rates("one_cycle")
    assert values[0] == pytest.approx(1 / 25)
    assert max(values) == values[30] == 1.0
    assert all(a < b for a, b in pairwise(values[:31]))
    assert all(a > b for a, b in pairwise(values[30:]))
    assert values[99] < 2e-3


def test_plateau_is_the_factor_it_is_given() -> None:
    config = TrainConfig(schedule="plateau", lr=1.0)
    assert learning_rate(config, 5, 10) == 1.0
    assert learning_rate(config, 5, 10, plateau=0.3) == 0.3


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "plateau"])
def test_warmup_rises_to_the_full_rate(schedule: str) -> None:
    values = rates(schedule, warmup=0.1)
    assert values[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert values[10] == 1.0


def test_warmup_is_the_rise_of_one_cycle() -> None:
    values = rates("one_cycle", warmup=0.5)
    assert max(values) == values[50]


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one_cycle", "plateau"])
@pytest.mark.parametrize("total", [1, 2, 7])
def test_short_runs_have_positive_rates(schedule: str, total: int) -> None:
    assert all(rate > 0 for rate in rates(schedule, total, warmup=0.3))
