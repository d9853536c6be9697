"""A DenseNet that gives a patch, turned or mirrored, the same score: the network that PCam was published with.

After Veeling et al. 2018 ("Rotation equivariant CNNs for digital pathology", arXiv 1806.03962): densely connected
blocks (Huang et al. 2017, arXiv 1608.06993) of convolutions on the group p4m. What differs from theirs: the mean over
many positions ends it, as it ends the `cnn`, where theirs shrinks its maps to a single position by leaving the rim
out; that one learns thousands of patches by heart. For the sake of processors without a GPU, the first convolution is
the mean of its 2×2 neighbours at once (6×6 in steps of 2), a block has the more convolutions the smaller its maps
are, and normalisation follows a convolution instead of leading it, so that each map is normalised once and can be
folded for scoring. Sides are halved by maxima.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import max_pool2d

from pcam.config import ModelConfig
from pcam.models.base import PatchClassifier
from pcam.models.groups import FieldNorm, GroupConv, invariants


class P4M(PatchClassifier):
    """`depth` dense blocks at sides 48, 24, 12 …; `dropout` acts before the last layer.

    The first block has one convolution, the second two, and so on; each adds `width` fields.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        fields = max(1, config.width // 2)
        self.stem = _convolution([3], fields, 6, stride=2, padding=2, lifting=True)  # 96 → 48
        self.blocks = nn.ModuleList()
        for layers in range(1, config.depth + 1):
            self.blocks.append(DenseBlock(fields, config.width, layers, last=layers == config.depth))
            fields += layers * config.width
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(fields, 1)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return logits (B,) of normalised patches float (B, 3, 96, 96)."""
        logits: torch.Tensor = self.head(self.dropout(invariants(self.features(patches))))
        return logits.squeeze(1)

    def features(self, patches: torch.Tensor) -> torch.Tensor:
        """Return the last fields (B, 8·F, H, H), see `pcam.models.groups`."""
        maps: torch.Tensor = self.stem(patches)
        for block in self.blocks:
            maps = block(maps)
        return maps


class DenseBlock(nn.Module):
    """Convolutions that each see the block's input and all that those before them added; then all are mixed.

    Maps (B, 8·fields, H, H) become (B, 8·(fields + layers·width), H/2, H/2), or H where it is the `last`.
    """

    def __init__(self, fields: int, width: int, layers: int, last: bool) -> None:
        super().__init__()
        parts = [fields]
        self.grow, self.last = nn.ModuleList(), last
        for _ in range(layers):
            self.grow.append(_convolution(parts, width, 3, padding=1))
            parts = [*parts, width]
        self.mix = _convolution(parts, sum(parts), 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Add fields, halve the side, mix."""
        parts = [maps]
        for grow in self.grow:
            parts.append(grow(torch.cat(parts, dim=1)))
        if not self.last:  # before the mixing, which then costs a quarter
            parts = [max_pool2d(part, 2) for part in parts]
        mixed: torch.Tensor = self.mix(torch.cat(parts, dim=1))
        return mixed


def _convolution(
    inputs: list[int], outputs: int, size: int, stride: int = 1, padding: int = 0, lifting: bool = False
) -> nn.Sequential:
    convolution = GroupConv(inputs, outputs, size, stride, padding, lifting)
    # Not in place: on the view that the normalisation returns, the gradient of a ReLU in place takes six times as long.
    return nn.Sequential(convolution, FieldNorm(outputs), nn.ReLU())
