"""The group's table is a group's, and each layer commutes with the eight symmetries, in torch's own convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pcam.models.groups import ORDER, FieldNorm, GroupConv, filter_table, invariants, products, transform

SYMMETRIES = range(ORDER)


def moved(maps: torch.Tensor, symmetry: int) -> torch.Tensor:
    """Fields (B, 8·F, H, W) as they are when the patch is transformed: each map too, and in its new place."""
    fields = transform(maps, symmetry).unflatten(1, (ORDER, -1))
    out = torch.empty_like(fields)
    out[:, products()[symmetry]] = fields
    return out.flatten(1, 2)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_table_is_a_group() -> None:
    table = products()
    assert table[0].tolist() == table[:, 0].tolist() == list(SYMMETRIES), "0 is the identity"
    for rows in (table, table.T):
        assert all(sorted(row.tolist()) == list(SYMMETRIES) for row in rows), "every element once: inverses exist"
    assert torch.equal(table[table], table[:, table]), "(ab)c = a(bc)"
    assert not torch.equal(table, table.T), "turning and mirroring do not commute"


@pytest.mark.parametrize("b", SYMMETRIES)
@pytest.mark.parametrize("a", SYMMETRIES)
def test_the_table_says_what_two_transforms_do(a: int, b: int) -> None:
    image = random(3, 3)
    assert torch.equal(transform(transform(image, b), a), transform(image, int(products()[a, b])))


@pytest.mark.parametrize("orientations", [1, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_each_transformed_filter_holds_every_weight_once(size: int, orientations: int) -> None:
    table = filter_table(size, orientations)
    assert table.shape == (8, orientations, size, size)
    assert all(sorted(row.flatten().tolist()) == list(range(row.numel())) for row in table)
    assert torch.equal(table[0].flatten(), torch.arange(table[0].numel())), "the identity changes nothing"


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize(
    ("size", "stride", "padding", "side"),
    [(1, 1, 0, 5), (3, 1, 0, 8), (3, 1, 1, 8), (6, 2, 2, 12), (6, 2, 0, 12), (3, 2, 0, 7), (2, 2, 0, 6)],
)
def test_lifting_moves_with_the_patch(size: int, stride: int, padding: int, side: int, symmetry: int) -> None:
    layer = GroupConv([3], 2, size, stride, padding, lifting=True).double()
    patches = random(2, 3, side, side)
    torch.testing.assert_close(layer(transform(patches, symmetry)), moved(layer(patches), symmetry))


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize(("size", "padding", "side"), [(1, 0, 4), (3, 0, 6), (3, 1, 6), (2, 0, 5)])
def test_a_group_convolution_moves_with_its_fields(size: int, padding: int, side: int, symmetry: int) -> None:
    layer = GroupConv([3], 2, size, padding=padding).double()
    maps = random(2, 3 * ORDER, side, side)
    torch.testing.assert_close(layer(moved(maps, symmetry)), moved(layer(maps), symmetry))


def test_a_filter_sees_every_orientation_and_place_of_its_input() -> None:
    """Against the definition, sum by sum: out[h, f](x) = Σ w[f](h⁻¹g, h⁻¹y) · in[g](x + y)."""
    layer = GroupConv([2], 3, 3).double()
    maps = random(1, 2 * ORDER, 3, 3)
    got = layer(maps).view(ORDER, 3)
    fields = maps.view(ORDER, 2, 3, 3)
    weight = layer.weight.view(3, 2, ORDER, 3, 3)
    table = products()
    for h in SYMMETRIES:
        want = sum(
            (transform(weight[:, :, g], h) * fields[int(table[h, g])]).sum((1, 2, 3)) for g in SYMMETRIES
        )  # the weight for orientation g meets the field of orientation h·g
        torch.testing.assert_close(got[h], want)


def test_parts_that_were_put_side_by_side_are_read_as_one() -> None:
    parts = GroupConv([2, 3], 4, 1).double()
    whole = GroupConv([5], 4, 1).double()
    whole.weight = parts.weight
    old, new = random(1, 2 * ORDER, 4, 4), random(1, 3 * ORDER, 4, 4)
    fields = torch.cat([old.unflatten(1, (ORDER, -1)), new.unflatten(1, (ORDER, -1))], dim=2)
    torch.testing.assert_close(parts(torch.cat([old, new], dim=1)), whole(fields.flatten(1, 2)))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels_last"])
def test_normalisation_is_shared_by_the_orientations(order: torch.memory_format) -> None:
    norm = FieldNorm(3).double()
    maps = (3 * random(4, 3 * ORDER, 5, 5) + 2).to(memory_format=order)
    fields = norm(maps).unflatten(1, (ORDER, 3))
    assert norm.weight.numel() == norm.running_mean.numel() == 3
    torch.testing.assert_close(fields.mean((0, 1, 3, 4)), torch.zeros(3, dtype=torch.float64))
    want = maps.unflatten(1, (ORDER, 3))
    want = (want - want.mean((0, 1, 3, 4), keepdim=True)) / want.std((0, 1, 3, 4), keepdim=True, correction=0)
    torch.testing.assert_close(fields, want, atol=1e-4, rtol=1e-4)  # the layer adds 1e-5 to the variance


def test_fields_are_looked_at_without_being_moved() -> None:
    """In channels-last memory, from the first convolution to the last."""
    layers = nn.Sequential(GroupConv([3], 2, 2, lifting=True), FieldNorm(2), GroupConv([2], 2, 3), FieldNorm(2))
    maps = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    for layer in layers:
        maps = layer(maps)
        assert maps.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_the_mean_over_orientations_is_invariant(symmetry: int) -> None:
    maps = random(2, 3 * ORDER, 4, 4)
    assert invariants(maps).shape == (2, 3)
    torch.testing.assert_close(invariants(moved(maps, symmetry)), invariants(maps))


@pytest.mark.parametrize("lifting", [True, False])
def test_the_plain_layers_do_the_same(lifting: bool) -> None:
    convolution = GroupConv([3], 2, 3, padding=1, lifting=lifting).double()
    norm = FieldNorm(2).double()
    maps = random(2, 3 if lifting else 3 * ORDER, 6, 6)
    norm(5 * convolution(maps) + 1)  # statistics of its own
    norm.weight.data, norm.bias.data = torch.tensor([[0.5, 2.0], [1.0, -1.0]], dtype=torch.float64)
    norm.eval()
    torch.testing.assert_close(norm.plain()(convolution.plain()(maps)), norm(convolution(maps)))
