"""Augmentation keeps what it must: labels' pixels under a symmetry, bytes when off, the range of values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pcam.config import AugmentConfig
from pcam.data.augment import (
    apply_shifts,
    apply_symmetries,
    augment,
    jitter_color,
    jitter_stain,
    normalise,
    to_channels_first,
)
from pcam.data.loader import augment_generator


@pytest.fixture
def patches() -> torch.Tensor:
    return torch.randint(0, 256, (16, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_nothing_on_changes_nothing(patches: torch.Tensor) -> None:
    values = augment(patches, AugmentConfig(), augment_generator(0, 0, 0))
    assert torch.equal(values, to_channels_first(patches))
    assert values.dtype == torch.float32
    assert values.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        (AugmentConfig(flip=True, rotate=True), range(8)),
        (AugmentConfig(rotate=True), range(4)),
        (AugmentConfig(flip=True), (0, 4)),
    ],
    ids=["both", "rotate", "flip"],
)
def test_each_patch_is_one_of_its_symmetries(patches: torch.Tensor, config: AugmentConfig, kinds: range) -> None:
    values = augment(patches, config, augment_generator(0, 1, 2))
    every = [to_channels_first(apply_symmetries(patches, torch.full((len(patches),), kind))) for kind in kinds]
    for i, value in enumerate(values):
        assert any(torch.equal(value, symmetric[i]) for symmetric in every)
    assert not torch.equal(values, to_channels_first(patches))


def test_the_eight_symmetries_differ_and_four_turns_are_none(patches: torch.Tensor) -> None:
    one = patches[:1]
    seen = {apply_symmetries(one, torch.tensor([kind])).numpy().tobytes() for kind in range(8)}
    assert len(seen) == 8
    turned = one
    for _ in range(4):
        turned = apply_symmetries(turned, torch.tensor([1]))
    assert torch.equal(turned, one)


def test_input_is_not_changed(patches: torch.Tensor) -> None:
    before = patches.clone()
    augment(patches, AugmentConfig(flip=True, rotate=True, color=0.5), augment_generator(0, 0, 0))
    assert torch.equal(patches, before)


def test_same_generator_same_change_other_step_other_change(patches: torch.Tensor) -> None:
    config = AugmentConfig(flip=True, rotate=True, color=0.3)
    first, again, later = (augment(patches, config, augment_generator(5, 2, step)) for step in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_shares_of_a_batch_are_changed_as_the_whole_is(patches: torch.Tensor) -> None:
    config = AugmentConfig(flip=True, rotate=True, color=0.3)
    whole = augment(patches, config, augment_generator(5, 2, 7))
    for first, last in ((0, 5), (5, 6), (6, 16)):
        share = augment(patches[first:last], config, augment_generator(5, 2, 7), batch_size=16, first=first)
        torch.testing.assert_close(share, whole[first:last], atol=1e-4, rtol=0)


def test_switching_colour_off_leaves_the_symmetries(patches: torch.Tensor) -> None:
    grey = patches[..., :1].expand(-1, -1, -1, 3).contiguous()
    plain = augment(grey, AugmentConfig(flip=True, rotate=True), augment_generator(0, 0, 0))
    weak = augment(grey, AugmentConfig(flip=True, rotate=True, color=1e-6), augment_generator(0, 0, 0))
    torch.testing.assert_close(plain, weak, atol=0.01, rtol=0)


LUMA = 0.299 * 100 + 0.587 * 50 + 0.114 * 200  # brightness of the pixel below


@pytest.mark.parametrize(
    ("strength", "expected"),
    [
        ((0.0, 0.0, 0.0), (100.0, 50.0, 200.0)),
        ((0.1, 0.0, 0.0), (110.0, 55.0, 220.0)),
        ((0.0, 0.2, 0.0), tuple(1.2 * x - 0.2 * LUMA for x in (100, 50, 200))),
        ((0.0, 0.0, -1.0), (LUMA, LUMA, LUMA)),
    ],
    ids=["none", "brightness", "contrast", "grey"],
)
def test_colour_of_one_pixel(strength: tuple[float, ...], expected: tuple[float, ...]) -> None:
    pixel = torch.tensor([100.0, 50.0, 200.0]).view(1, 3, 1, 1)
    changed = jitter_color(pixel, torch.tensor([strength]))
    torch.testing.assert_close(changed.flatten(), torch.tensor(expected), atol=1e-3, rtol=0)


def test_values_stay_in_range(patches: torch.Tensor) -> None:
    values = augment(patches, AugmentConfig(color=1.0), augment_generator(0, 0, 0))
    assert values.min() >= 0
    assert values.max() <= 255


@pytest.mark.parametrize("given", [False, True])
def test_normalised_patches(patches: torch.Tensor, given: bool) -> None:
    mean, std = torch.tensor([100.0, 120.0, 140.0]), torch.tensor([50.0, 60.0, 70.0])
    out = torch.empty(patches.shape) if given else None
    values = normalise(patches, mean, std, out)
    expected = (to_channels_first(patches) - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)
    assert values.is_contiguous(memory_format=torch.channels_last)
    assert out is None or values.data_ptr() == out.data_ptr()
    torch.testing.assert_close(normalise(patches.float(), mean, std), values)


def dyed(haematoxylin: float, eosin: float) -> torch.Tensor:
    """A patch of one colour, float32 (1, 3, 4, 4): the light that the two dyes let through."""
    density = haematoxylin * torch.tensor([0.65, 0.70, 0.29]) + eosin * torch.tensor([0.07, 0.99, 0.11])
    return (256 * torch.exp(-density) - 1).view(1, 3, 1, 1).expand(1, 3, 4, 4).contiguous()


@pytest.mark.parametrize(("h", "e"), [(1.0, 0.0), (0.0, 1.0), (0.6, 0.4)])
def test_stain_jitter_scales_each_dye(h: float, e: float) -> None:
    changed = jitter_stain(dyed(h, e), torch.tensor([[0.3, -0.2, 0.5]]))
    torch.testing.assert_close(changed, dyed(1.3 * h, 0.8 * e), atol=1e-2, rtol=0)


def test_stain_jitter_leaves_glass_and_strength_zero_alone() -> None:
    glass = torch.full((2, 3, 4, 4), 255.0)
    torch.testing.assert_close(jitter_stain(glass, torch.tensor([[0.5, -0.5, 0.5]] * 2)), glass, atol=1e-3, rtol=0)
    values = torch.randint(0, 256, (2, 3, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    torch.testing.assert_close(jitter_stain(values, torch.zeros(2, 3)), values, atol=1e-2, rtol=0)


def test_stain_jitter_is_another_for_each_patch_and_keeps_the_range(patches: torch.Tensor) -> None:
    same = patches[:1].expand(4, -1, -1, -1).contiguous()
    config = AugmentConfig(stain=1.0)
    values = augment(same, config, augment_generator(0, 0, 0))
    assert values.min() >= 0 and values.max() <= 255
    assert len({value.numpy().tobytes() for value in values}) == 4
    assert torch.equal(values, augment(same, config, augment_generator(0, 0, 0)))
    share = augment(same[2:], config, augment_generator(0, 0, 0), batch_size=4, first=2)
    assert torch.equal(share, values[2:]), "a process with a share of the batch changes it alike"


def test_stain_jitter_moves_no_other_draw(patches: torch.Tensor) -> None:
    both = AugmentConfig(flip=True, rotate=True, color=0.2)
    plain = augment(patches, both, augment_generator(0, 0, 0))
    weak = augment(patches, both.model_copy(update={"stain": 1e-7}), augment_generator(0, 0, 0))
    torch.testing.assert_close(weak, plain, atol=1e-2, rtol=0)


@pytest.mark.parametrize("kinds", [[5, 0, 3, 5, 7, 1, 0, 2, 6, 4], [6, 6], []])
def test_each_patch_of_a_batch_is_turned_by_its_own_symmetry_and_keeps_its_place(kinds: list[int]) -> None:
    shape = (len(kinds), 96, 96, 3)
    patches = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    moved = apply_symmetries(patches, torch.tensor(kinds, dtype=torch.int64))
    assert moved.shape == shape
    for patch, kind, one in zip(patches.numpy(), kinds, moved.numpy(), strict=True):
        turned = np.rot90(patch, kind % 4)
        assert np.array_equal(one, turned[:, ::-1] if kind >= 4 else turned)


def test_a_shift_moves_whole_pixels_and_mirrors_the_rim() -> None:
    patches = torch.randint(0, 256, (5, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([[0, 0], [4, -4], [-3, 2], [0, 1], [-4, -4]])
    wide = np.pad(patches.numpy(), ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    moved = apply_shifts(patches, shift, 4)
    for patch, (down, right), one in zip(wide, shift.tolist(), moved.numpy(), strict=True):
        assert np.array_equal(one, patch[4 + down : 100 + down, 4 + right : 100 + right])


def test_shifts_are_all_drawn_and_leave_the_other_changes_as_they_were() -> None:
    patches = torch.zeros(512, 96, 96, 3, dtype=torch.uint8)
    patches[:, 48, 48] = 255
    moved = augment(patches, AugmentConfig(shift=2), augment_generator(0, 0, 0))
    _, y, x = moved[:, 0].nonzero().unbind(1)
    assert {(int(a), int(b)) for a, b in zip(y, x, strict=True)} == {
        (a, b) for a in range(46, 51) for b in range(46, 51)
    }
    share = augment(patches[100:300], AugmentConfig(shift=2), augment_generator(0, 0, 0), batch_size=512, first=100)
    assert torch.equal(share, moved[100:300])
    grey = torch.full((8, 96, 96, 3), 90, dtype=torch.uint8)
    still, shifted = (AugmentConfig(flip=True, rotate=True, color=0.5, shift=n) for n in (0, 3))
    assert torch.equal(*(augment(grey, c, augment_generator(0, 0, 0)) for c in (still, shifted)))
