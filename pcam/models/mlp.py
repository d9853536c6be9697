"""The baseline: one hidden layer on a shrunken patch.

It sees where colours are and nothing of texture or shape. What a network with convolutions gains is measured
against it.
"""

from __future__ import annotations

import torch
from torch import nn

from pcam.config import ModelConfig
from pcam.data.format import PATCH_SHAPE
from pcam.models.base import PatchClassifier

_POOL = 4  # 96 → 24 pixels a side: 1,728 inputs instead of 27,648


class _Shrink(nn.Module):
    """Mean over blocks of 4×4 pixels of (B, 3, H, W), as `nn.AvgPool2d(4)`.

    That pools pixel by pixel where channels come last: three to six times the time of these sums of whole rows.
    """

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return (B, 3, H // 4, W // 4)."""
        n, channels, height, width = patches.shape
        rows = patches.permute(0, 2, 3, 1).reshape(n, height // _POOL, _POOL, width * channels)
        columns = _sum_of_four(rows, 2).view(n, height // _POOL, width // _POOL, _POOL, channels)
        return (_sum_of_four(columns, 3) / _POOL**2).permute(0, 3, 1, 2)


def _sum_of_four(values: torch.Tensor, dim: int) -> torch.Tensor:
    a, b, c, d = values.unbind(dim)
    return (a + b) + (c + d)


class MLP(PatchClassifier):
    """Mean over 4×4 pixels, then linear, ReLU, dropout, linear; uses `hidden` and `dropout`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        height, width, channels = PATCH_SHAPE
        inputs = (height // _POOL) * (width // _POOL) * channels
        self.body = nn.Sequential(
            _Shrink(),
            nn.Flatten(),
            nn.Linear(inputs, config.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
        )
        self.head = nn.Linear(config.hidden, 1)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return logits (B,) of normalised patches float (B, 3, 96, 96)."""
        logits: torch.Tensor = self.head(self.body(patches))
        return logits.squeeze(1)
