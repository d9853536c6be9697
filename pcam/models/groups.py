"""Layers that are equivariant under the eight symmetries of the square: the group p4m of Cohen and Welling.

A feature field has one map for each of the eight orientations (four quarter turns, each also mirrored). Where the
patch is turned or mirrored, its maps are turned or mirrored too and exchange their places; nothing else changes
(Cohen and Welling 2016, "Group equivariant convolutional networks", arXiv 1602.07576). A field learns one filter;
the filters of its other orientations are that one, transformed and with its orientations permuted. All of them
together are the filters of one ordinary convolution.

A batch of F fields is an image tensor (B, 8·F, H, W) whose channel is `orientation·F + field`. In channels-last
memory the fields of one orientation are then neighbours, so that looking at the eight orientations as eight more
positions is a view and moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import nn
from torch.nn.functional import conv2d

ORDER = 8


def transform(values: torch.Tensor, symmetry: int) -> torch.Tensor:
    """Return `values` (…, H, H) after symmetry % 4 quarter turns, mirrored left to right if symmetry is 4 or more."""
    turned = torch.rot90(values, symmetry % 4, dims=(-2, -1))
    return turned.flip(-1) if symmetry >= 4 else turned


def products() -> torch.Tensor:
    """Return the group's table, int64 (8, 8): [a, b] is the symmetry that does what b and then a do."""
    corners = torch.arange(4).view(2, 2)  # each of the eight leaves them in another order
    known = {tuple(transform(corners, s).flatten().tolist()): s for s in range(ORDER)}
    both = [[transform(transform(corners, b), a) for b in range(ORDER)] for a in range(ORDER)]
    return torch.tensor([[known[tuple(image.flatten().tolist())] for image in row] for row in both])


def filter_table(size: int, orientations: int) -> torch.Tensor:
    """Return where each weight of a transformed filter comes from, int64 (8, orientations, size, size).

    Args:
        size: side of the filter.
        orientations: of its input: 8, or 1 where the input is the patch itself.
    """
    places = torch.arange(orientations * size * size).view(orientations, size, size)
    table = torch.empty(ORDER, *places.shape, dtype=torch.int64)
    for symmetry, row in enumerate(products()):
        table[symmetry, row if orientations == ORDER else slice(None)] = transform(places, symmetry)
    return table


class GroupConv(nn.Module):
    """A convolution from the patch (`lifting`) or from fields to fields, without bias.

    Attributes:
        weight: (outputs, inputs, orientations·size·size), one filter for each output field.
        shape: of the filter table, (8, orientations, size, size).
        table: `filter_table`, flat, on the device of the weight.
    """

    def __init__(
        self, inputs: Sequence[int], outputs: int, size: int, stride: int = 1, padding: int = 0, lifting: bool = False
    ) -> None:
        super().__init__()
        self.inputs, self.stride, self.padding = list(inputs), stride, padding
        self.shape = (ORDER, 1 if lifting else ORDER, size, size)
        # Three dimensions: torch's channels-last order is for tensors of four only.
        self.weight = nn.Parameter(torch.empty(outputs, sum(inputs), self.shape[1] * size * size))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        # No buffer: whoever averages or casts a model's buffers would spoil an index. It is computed from values, so it
        # has to have some even where the model is built without memory.
        with torch.device("cpu"):
            self.table = filter_table(size, self.shape[1]).flatten()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.table = self.table.to(self.weight.device)
        return self

    def filters(self) -> torch.Tensor:
        """Return the filters of all orientations, (8·outputs, orientations·inputs, size, size)."""
        chosen = self.weight.index_select(2, self.table).unflatten(2, self.shape)
        parts = chosen.permute(2, 0, 3, 1, 4, 5).flatten(0, 1).split(self.inputs, dim=2)
        return torch.cat([part.flatten(1, 2) for part in parts], dim=1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (B, orientations·inputs, H, W) to fields (B, 8·outputs, H', W')."""
        return conv2d(maps, self.filters(), stride=self.stride, padding=self.padding)

    def plain(self) -> nn.Conv2d:
        """Return the ordinary convolution that does the same."""
        filters = self.filters().detach()
        outputs, inputs, size, _ = filters.shape
        plain = nn.Conv2d(inputs, outputs, size, self.stride, self.padding, bias=False).eval()
        plain.weight.data = filters
        return plain


class FieldNorm(nn.BatchNorm2d):
    """Batch normalisation with one mean, deviation, scale and shift for the eight maps of a field.

    Each orientation with its own would not be exchangeable for the others.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Normalise fields (B, 8·F, H, W)."""
        columns = maps.permute(0, 2, 3, 1).unflatten(3, (ORDER, -1)).flatten(2, 3)  # (B, H, W·8, F)
        normal = super().forward(columns.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return normal.unflatten(2, (-1, ORDER)).flatten(3).permute(0, 3, 1, 2)

    def plain(self) -> nn.BatchNorm2d:
        """Return the ordinary normalisation that does the same while evaluating."""
        plain = nn.BatchNorm2d(self.num_features * ORDER, eps=self.eps).to(self.weight).eval()
        plain.load_state_dict({k: v.repeat(ORDER) if v.ndim else v for k, v in self.state_dict().items()})
        return plain


def invariants(maps: torch.Tensor) -> torch.Tensor:
    """Return the mean (B, F) of each field of (B, 8·F, H, W) over positions and orientations."""
    return maps.unflatten(1, (ORDER, -1)).mean((1, 3, 4))
