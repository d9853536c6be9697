"""A DenseNet that gives a patch, turned or mirrored, the same score: the network that PCam was published with.

After Veeling et al. 2018 ("Rotation equivariant CNNs for digital pathology", arXiv 1806.03962): densely connected
blocks (Huang et al. 2017, arXiv 1608.06993) of convolutions on the group p4m, no padding, so that no map knows how
far the rim is, and a crop where maps of two sizes meet. What differs from theirs, for the sake of processors without
a GPU: the first convolution is the mean of its 2×2 neighbours at once (6×6 in steps of 2), and normalisation follows
a convolution instead of leading it, so that each map is normalised once and can be folded for scoring. Sides are
halved by maxima.
"""

from __future__ import annotations

import torch
from torch import nn

from pcam.config import ModelConfig
from pcam.errors import ConfigError
from pcam.models.base import PatchClassifier
from pcam.models.groups import FieldNorm, GroupConv, crop, halve, invariants

_MAX_DEPTH = 4


class P4M(PatchClassifier):
    """`depth` dense blocks of one convolution that adds `width` fields; `dropout` acts before the last layer.

    Raises:
        ConfigError: more blocks than a patch of 96 pixels has room for.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.depth > _MAX_DEPTH:
            raise ConfigError(f"model.depth is {config.depth}: p4m halves a patch to nothing after {_MAX_DEPTH} blocks")
        fields = max(1, config.width // 2)
        self.stem = _convolution([3], fields, 6, stride=2, lifting=True)  # 96 → 46
        self.grow, self.mix = nn.ModuleList(), nn.ModuleList()
        for _ in range(config.depth):
            self.grow.append(_convolution([fields], config.width, 3))
            self.mix.append(_convolution([fields, config.width], fields + config.width, 1))
            fields += config.width
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(fields, 1)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return logits (B,) of normalised patches float (B, 3, 96, 96)."""
        logits: torch.Tensor = self.head(self.dropout(invariants(self.features(patches))))
        return logits.squeeze(1)

    def features(self, patches: torch.Tensor) -> torch.Tensor:
        """Return the last fields (B, 8·F, H, H), see `pcam.models.groups`."""
        maps = self.stem(patches)
        for grow, mix in zip(self.grow, self.mix, strict=True):  # the sides: 46 → 44 → 22 → 20 → 10 → 8 → 4 → 2 → 1
            maps = mix(torch.cat([halve(crop(maps, 1)), halve(grow(maps))], dim=1))
        return maps


def _convolution(inputs: list[int], outputs: int, size: int, stride: int = 1, lifting: bool = False) -> nn.Sequential:
    convolution = GroupConv(inputs, outputs, size, stride, lifting)
    # Not in place: on the view that the normalisation returns, the gradient of a ReLU in place takes six times as long.
    return nn.Sequential(convolution, FieldNorm(outputs), nn.ReLU())
