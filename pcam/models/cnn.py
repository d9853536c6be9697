"""A plain convolutional network: stages of two 3×3 convolutions, halving the side and doubling the channels.

Each convolution is followed by batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167) and ReLU; the
mean over all positions (global average pooling, Lin et al. 2013, arXiv 1312.4400) feeds one linear unit.
"""

from __future__ import annotations

import torch
from torch import nn

from pcam.config import ModelConfig
from pcam.models.base import PatchClassifier


class CNN(PatchClassifier):
    """`depth` stages that begin with `width` channels; `dropout` acts before the last layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # The first convolution steps by 2: at the full 96×96 the activations cost more time than all the rest.
        layers = [*_convolution(3, config.width, stride=2), *_convolution(config.width, config.width)]
        channels = config.width
        for _ in range(config.depth - 1):
            layers += [
                nn.MaxPool2d(2),
                *_convolution(channels, channels * 2),
                *_convolution(channels * 2, channels * 2),
            ]
            channels *= 2
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(channels, 1)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return logits (B,) of normalised patches float (B, 3, 96, 96)."""
        features = self.body(patches).float().mean((2, 3))
        logits: torch.Tensor = self.head(self.dropout(features))
        return logits.squeeze(1)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    # No bias: the batch normalisation that follows has its own.
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
