"""Spikes by the stated rule, and the patches of any step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pcam.config import build_config
from pcam.data import open_split
from pcam.data.loader import Loader, subset_indices
from pcam.errors import RunError
from pcam.training import train
from pcam.training.gradients import compare_schedules, epoch_means, find_spikes, patches_of_step, strongest_step
from pcam.training.seeds import Seeds


def steps(norms: list[float]) -> list[dict]:
    return [{"step": i, "epoch": i // 10, "grad_norm": norm} for i, norm in enumerate(norms)]


def test_a_planted_spike_is_found_and_no_other() -> None:
    norms = list(np.random.default_rng(0).uniform(0.8, 1.2, 60))
    norms[40] = 5.0
    (spike,) = find_spikes(steps(norms), window=20, factor=3)
    assert (spike.step, spike.epoch, spike.norm) == (40, 4, 5.0)
    assert spike.ratio == pytest.approx(5, rel=0.1)
    assert strongest_step(steps(norms)).step == 40
    with pytest.raises(RunError, match="20 steps are too few to set one beside the 20 before it"):
        strongest_step(steps(norms)[:20])


def test_the_start_is_left_out_and_a_slow_fall_is_no_spike() -> None:
    assert find_spikes(steps([50.0, *[1.0] * 19]), window=20) == []
    assert find_spikes(steps([100 * 0.9**i for i in range(60)])) == []


def test_spikes_do_not_raise_the_bar() -> None:
    norms = [1.0] * 20 + [9.0, 9.0, 9.0] + [1.0] * 10
    assert [spike.step for spike in find_spikes(steps(norms))] == [20, 21, 22]


def test_epoch_means() -> None:
    assert epoch_means(steps([1.0] * 10 + [1.0, 3.0])) == {0: 1.0, 1: 2.0}


def test_patches_of_a_step_are_those_the_loader_gave(tiny: Path, tmp_path: Path) -> None:
    tree = {"model": {"name": "mlp", "hidden": 4}, "train": {"epochs": 2, "batch_size": 16, "threads": 1}}
    config = build_config(tree, ["data.max_train=40", "seed=5"])
    run = train(config, tiny, tmp_path, progress=False)
    loader = Loader(open_split(tiny, "train"), 16, indices=subset_indices(48, 40, 5))
    given = [batch.indices.numpy() for epoch in (0, 1) for batch in loader.epoch(5, epoch)]
    assert len(given) == run.final["steps"] == 6
    for step, indices in enumerate(given):
        assert np.array_equal(patches_of_step(run, step), indices)
    with pytest.raises(RunError, match="it has no step 6; its steps are 0 to 5"):
        patches_of_step(run, 6)


def test_an_order_left_to_chance_is_traced_by_the_seed_that_was_drawn(tiny: Path, tmp_path: Path) -> None:
    tree = {"model": {"name": "mlp", "hidden": 4}, "train": {"epochs": 1, "batch_size": 16, "threads": 1}}
    seeds = Seeds.of(0).switched_off("order")
    run = train(build_config(tree), tiny, tmp_path, progress=False, seeds=seeds)
    first = next(Loader(open_split(tiny, "train"), 16).epoch(seeds.order, 0))
    assert np.array_equal(patches_of_step(run, 0), first.indices.numpy())


def test_an_order_in_blocks_is_not_traced_wrongly(tiny: Path, tmp_path: Path) -> None:
    tree = {"model": {"name": "mlp", "hidden": 4}, "train": {"epochs": 1, "batch_size": 16, "threads": 1}}
    run = train(build_config(tree, ["data.block=4"]), tiny, tmp_path, progress=False)
    with pytest.raises(RunError, match="only a full shuffle is traced to its patches"):
        patches_of_step(run, 0)


def test_schedules_are_compared_over_their_seeds(tiny: Path, tmp_path: Path) -> None:
    tree = {"model": {"name": "mlp", "hidden": 4}, "train": {"epochs": 2, "batch_size": 16, "threads": 1}}
    runs = {
        name: [train(build_config(tree, [f"seed={seed}", *how]), tiny, tmp_path, progress=False) for seed in (0, 1)]
        for name, how in {"one_cycle": (), "tiny steps": ("train.lr=1e-9",)}.items()
    }
    table = compare_schedules(runs)
    assert list(table["final valid loss"]) == sorted(table["final valid loss"])
    row = table.set_index("schedule").loc["one_cycle"]
    first, second = (run.final["valid_loss"] for run in runs["one_cycle"])
    assert row["final valid loss"] == pytest.approx((first + second) / 2)
    assert row["sd over seeds"] == pytest.approx(abs(first - second) / 2**0.5)
    assert table.set_index("schedule").loc["tiny steps", "late wobble"] < 1e-6
