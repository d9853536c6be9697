"""ResNet-18 (He et al. 2016, "Deep residual learning for image recognition", arXiv 1512.03385), from random weights.

The network is theirs but for the first convolution: theirs is 7×7, for photographs of 224 pixels; a nucleus at this
magnification is some ten pixels wide, so it is 3×3 here, in the same steps of 2. Patches of 96 pixels then go through
the four stages at sides of 24, 12, 6 and 3.
"""

from __future__ import annotations

import torch
from torch import nn

from pcam.config import ModelConfig
from pcam.models.base import PatchClassifier


class ResNet18(PatchClassifier):
    """Four stages of two residual blocks that begin with `width` channels (theirs: 64) and double them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.width
        self.stem = nn.Sequential(*_convolution(3, channels, 3, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        stages = [_Block(channels, channels), _Block(channels, channels)]
        for _ in range(3):
            stages += [_Block(channels, 2 * channels, stride=2), _Block(2 * channels, 2 * channels)]
            channels *= 2
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(channels, 1)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return logits (B,) of normalised patches float (B, 3, 96, 96)."""
        features = self.stages(self.stem(patches)).float().mean((2, 3))
        logits: torch.Tensor = self.head(self.dropout(features))
        return logits.squeeze(1)


class _Block(nn.Module):
    """Two convolutions beside a shortcut, which is one too where size or channels change."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        first, second = _convolution(inputs, outputs, 3, stride), _convolution(outputs, outputs, 3)
        # The block begins as its shortcut, and learns from there (Goyal et al. 2017, arXiv 1706.02677).
        nn.init.zeros_(second[1].weight)
        self.body = nn.Sequential(*first, nn.ReLU(inplace=True), *second)
        changes = stride > 1 or inputs != outputs
        self.shortcut = nn.Sequential(*_convolution(inputs, outputs, 1, stride)) if changes else nn.Identity()
        self.last = nn.ReLU(inplace=True)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        sums: torch.Tensor = self.last(self.body(maps) + self.shortcut(maps))
        return sums


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution, nn.BatchNorm2d(outputs)
