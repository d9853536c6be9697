"""One call makes a block repeatable, records what it set, and puts it back."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from pcam.errors import ConfigError
from pcam.training.seeds import (
    CONTROLS,
    Seeds,
    choose_device,
    generator_states,
    reproducible,
    restore_generators,
    seed_generators,
)


def draw() -> tuple[float, float, float]:
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_every_generator_is_seeded() -> None:
    seed_generators(3)
    first = draw()
    seed_generators(3)
    assert draw() == first
    seed_generators(4)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_states_go_through_a_weights_only_file(tmp_path) -> None:
    seed_generators(1)
    np.random.normal()  # leaves a cached second value, which is part of the state
    torch.save(generator_states(), tmp_path / "state.pt")
    first = draw()
    restore_generators(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draw() == first


@pytest.mark.parametrize("deterministic", [True, False])
def test_switches_are_set_recorded_and_put_back(deterministic: bool) -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    assert torch.utils.deterministic.fill_uninitialized_memory
    with reproducible(Seeds.of(7), deterministic, threads=1) as record:
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert torch.get_num_threads() == 1
        assert draw() == pytest.approx(seeded_draw(7))
    assert (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()) == before
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert json.loads(json.dumps(record)) == {
        "seeds": {"initialisation": 7, "order": 7, "augmentation": 7, "library": 7, "off": []},
        "deterministic_algorithms": deterministic,
        "cudnn_deterministic": deterministic,
        "cudnn_benchmark": not deterministic,
        "float32_products": ["ieee", "ieee", "ieee"],
        "cublas_workspace": ":4096:8",
        "threads": 1,
    }


def seeded_draw(seed: int) -> tuple[float, float, float]:
    seed_generators(seed)
    return draw()


def test_switches_are_put_back_after_an_error() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    with pytest.raises(KeyError), reproducible(Seeds.of(0), not before, threads=0):
        raise KeyError
    assert torch.are_deterministic_algorithms_enabled() is before


def test_products_are_float32_whatever_was_set_before() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")  # bfloat16, where the processor has it
    try:
        with reproducible(Seeds.of(0), True, threads=0):
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("control", CONTROLS)
def test_one_control_off_leaves_the_others(control: str) -> None:
    seeds = Seeds.of(5).switched_off(control)
    assert seeds.off == (control,)
    assert {name: getattr(seeds, name) for name in CONTROLS if name != control} == dict.fromkeys(
        set(CONTROLS) - {control}, 5
    )
    assert getattr(seeds, control) != getattr(Seeds.of(5).switched_off(control), control)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there() -> None:
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"train\.device is 'cuda' but torch sees no GPU"):
        choose_device("cuda")
