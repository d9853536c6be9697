"""Folding: a trained network as one that scores the same patches faster, and cannot be trained further.

While a network scores, a batch normalisation is a fixed scale and shift of each channel, so it goes into the
weights of the convolution before it; and a convolution on a group is an ordinary one whose filters need not be made
anew for each batch. Scores change in their last digits only.
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pcam.models.base import PatchClassifier
from pcam.models.groups import FieldNorm, GroupConv

Model = TypeVar("Model", bound=PatchClassifier)


def fold(model: Model) -> Model:
    """Return a copy for scoring, in evaluation mode, with each pair of convolution and normalisation made one.

    Args:
        model: any model of this package; one without convolutions is copied as it is.
    """
    folded = deepcopy(model).eval()
    for sequence in folded.modules():
        if isinstance(sequence, nn.Sequential):
            for place, (layer, after) in enumerate(pairwise(list(sequence))):
                convolution = layer.plain() if isinstance(layer, GroupConv) else layer
                norm = after.plain() if isinstance(after, FieldNorm) else after
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    sequence[place], sequence[place + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return folded
