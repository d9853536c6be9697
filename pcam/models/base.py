"""What every classifier here shares: the normalisation that it was trained with, and how it scores patches.

The channel means and deviations of the training patches are buffers of the model, saved with its weights:
model and uint8 patch are then all that a score needs, and nobody can forget or repeat the normalisation.
"""

from __future__ import annotations

import torch
from torch import nn

from pcam.data.augment import normalise, to_channels_first


class PatchClassifier(nn.Module):
    """A network from normalised patches to the logit of "tumour in the centre".

    Attributes:
        channel_mean: float32 (3,), mean of R, G, B over the training patches, in 0..255.
        channel_std: float32 (3,), their standard deviation.
    """

    channel_mean: torch.Tensor
    channel_std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("channel_mean", torch.full((3,), 127.5))
        self.register_buffer("channel_std", torch.full((3,), 127.5))

    def set_normalisation(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Keep the statistics (3,) of the training patches; a channel without any spread is only centred."""
        self.channel_mean.copy_(mean)
        self.channel_std.copy_(torch.where(std > 0, std, torch.ones_like(std)))

    def normalise(self, values: torch.Tensor, *, in_place: bool = False) -> torch.Tensor:
        """Return (x - mean) / std per channel of float32 (B, 3, H, W) in 0..255, channels-last.

        In place, values in channels-last order are written over: of a whole batch that is memory traffic saved.
        """
        rows = values.permute(0, 2, 3, 1)
        return normalise(rows, self.channel_mean, self.channel_std, out=rows if in_place else None)

    @torch.inference_mode()
    def predict_logits(self, patches: torch.Tensor) -> torch.Tensor:
        """Score patches as they are in the file.

        Always in float32, however the model was trained: bfloat16 keeps three digits, and ties between
        scores would then be an artefact of the format.

        Args:
            patches: uint8 (B, 96, 96, 3), RGB.

        Returns:
            float32 (B,): logits; their sigmoid is the score.
        """
        if patches.dtype != torch.uint8:
            raise TypeError(f"patches are uint8 in 0..255, not {patches.dtype}: pass them as they are in the file")
        was_training = self.training
        self.eval()
        try:
            logits: torch.Tensor = self(self.normalise(to_channels_first(patches.to(self.channel_mean.device))))
        finally:
            self.train(was_training)
        return logits.float()
