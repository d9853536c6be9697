"""Random changes of training patches, for a whole batch at once.

A tumour stays a tumour when its patch is mirrored or turned, and when the stain is a little paler: these
changes keep the label; a shift keeps it as long as it is small beside the centre that is labelled. Shifts and the
eight symmetries move bytes, so they act on the uint8 patches; colour is an affine
map of each patch's RGB values, so one batched matrix product does brightness, contrast and saturation together.
The amounts of the dyes scale the optical density, where their colours add up, so there it is another such product.
All random numbers come from one small CPU generator: the same patch is changed in the same way on any device.
"""

from __future__ import annotations

import math

import torch

from pcam.config import AugmentConfig
from pcam.data.buffers import sent
from pcam.data.color import DIAMINOBENZIDINE, EOSIN, HAEMATOXYLIN, LUMA


def augment(
    patches: torch.Tensor,
    config: AugmentConfig,
    generator: torch.Generator,
    *,
    batch_size: int | None = None,
    first: int = 0,
) -> torch.Tensor:
    """Return a changed copy of a batch, or of a process's share of one, in the form that a model takes.

    Args:
        patches: uint8 (B, H, H, 3), RGB.
        config: which changes, and how strong.
        generator: a CPU generator; the numbers drawn from it do not depend on which changes are on.
        batch_size: of the whole batch, where these patches are a share of it; None: they are all of it.
        first: which row of the whole batch the first of these patches is. Processes that share a batch change
            each patch as one process with all of it would.

    Returns:
        float32 (B, 3, H, H) in 0..255, in channels-last memory order.
    """
    n, rows = batch_size or len(patches), slice(first, first + len(patches))
    # Drawn always and together, so that switching one change off leaves the others as they were.
    symmetry = torch.randint(8, (n,), generator=generator)[rows]
    jitter, stain, shift = (torch.rand(n, 3, generator=generator)[rows] * 2 - 1 for _ in range(3))
    if not config.rotate:
        symmetry = symmetry - symmetry % 4
    if not config.flip:
        symmetry = symmetry % 4
    if config.shift:
        most = config.shift
        patches = apply_shifts(patches, (shift[:, :2] * (most + 0.5)).round().long().clamp_(-most, most), most)
    if config.flip or config.rotate:
        patches = apply_symmetries(patches, symmetry)
    values = to_channels_first(patches)
    if config.stain:
        values = jitter_stain(values, stain * config.stain)
    return jitter_color(values, jitter * config.color) if config.color else values


def to_channels_first(patches: torch.Tensor) -> torch.Tensor:
    """Return uint8 (B, H, W, 3) as float32 (B, 3, H, W) in 0..255: channels-last order, so nothing is moved."""
    return patches.permute(0, 3, 1, 2).float()


def normalise(
    patches: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Return (x - mean) / std per channel, as x · (1 / std) - mean / std.

    Each row of pixels is W·3 values with constants of the same length beside it: three constants, one a channel, would
    make loops of three steps, and constants for a whole patch do not stay in a core's nearest cache.

    Args:
        patches: uint8 or float32 (B, H, W, 3) in 0..255.
        mean: float32 (3,).
        std: float32 (3,), not 0.
        out: float32 (B, H, W, 3), written to, and may be `patches`; None: a new one.

    Returns:
        float32 (B, 3, H, W), in channels-last memory order.
    """
    n, height, width, channels = patches.shape
    scale = (1 / std).repeat(width)
    shift = (-mean / std).repeat(width)
    rows = patches.reshape(n * height, width * channels)
    if out is None:
        values = torch.addcmul(shift, rows.float(), scale)
    else:
        values = out.view(rows.shape)
        if out is not patches:  # copied first: of two types in one step the library would make a converted copy itself
            values.copy_(rows)
        torch.addcmul(shift, values, scale, out=values)
    return values.view(n, height, width, channels).permute(0, 3, 1, 2)


def apply_symmetries(patches: torch.Tensor, symmetry: torch.Tensor) -> torch.Tensor:
    """Return a copy of each patch under one of the eight symmetries of the square.

    Args:
        patches: (B, H, H, 3).
        symmetry: int64 (B,), on the CPU: value % 4 quarter turns, then mirrored left to right where it is 4 or more.
    """
    # Sorted, the patches of one kind lie together and move in one piece; picked out and put back by a mask for each
    # kind, they take three times as long.
    order = symmetry.argsort()
    counts = torch.bincount(symmetry, minlength=8).tolist()
    parts = []
    for kind, part in enumerate(patches.index_select(0, sent(order, patches.device)).split(counts)):
        turned = torch.rot90(part, kind % 4, dims=(1, 2)).contiguous()
        parts.append(turned.flip(2) if kind >= 4 else turned)
    return torch.cat(parts).index_select(0, sent(order.argsort(), patches.device))


def apply_shifts(patches: torch.Tensor, shift: torch.Tensor, most: int) -> torch.Tensor:
    """Return a copy of each patch moved by whole pixels; what comes in at the rim is the patch, mirrored.

    Args:
        patches: (B, H, H, 3).
        shift: int64 (B, 2), on the CPU, from -most to most: what lies at (y, x) comes from (y + first, x + second).
        most: pixels, less than H.
    """
    n, side = patches.shape[:2]
    wide = patches
    for along in (1, 2):
        before = wide.narrow(along, 1, most).flip(along)
        after = wide.narrow(along, side - 1 - most, most).flip(along)
        wide = torch.cat((before, wide, after), along)
    windows = wide.unfold(1, side, 1).unfold(2, side, 1).permute(0, 1, 2, 4, 5, 3)
    down, right = sent(shift + most, patches.device).unbind(1)
    return windows[torch.arange(n, device=patches.device), down, right]


def jitter_stain(values: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Change how much of each dye a patch took up, as laboratories differ in it.

    After Tellez et al. 2018 ("Whole-slide mitosis detection in H&E breast histology using PHH3 as a reference to
    train distilled stain-invariant convolutional networks", IEEE TMI 37:2126), less their shifts, which would colour
    the bare glass as well: a dye's density is multiplied by 1 plus its strength.

    Args:
        values: float32 (B, 3, H, W) in 0..255, channels-last.
        strength: float32 (B, 3) in [-1, 1], on the CPU: of haematoxylin, eosin and the rest, for each patch.
    """
    n, channels, height, width = values.shape
    dyes = torch.tensor((HAEMATOXYLIN, EOSIN, DIAMINOBENZIDINE))
    matrix = sent(torch.linalg.inv(dyes) @ ((1 + strength)[:, :, None] * dyes), values.device)
    density = math.log(256) - torch.log1p(values.permute(0, 2, 3, 1).reshape(n, height * width, channels))
    changed = (256 * torch.exp(-torch.bmm(density, matrix)) - 1).clamp_(0, 255)
    return changed.view(n, height, width, channels).permute(0, 3, 1, 2)


def jitter_color(values: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Change brightness, contrast and saturation of each patch.

    With b, c, s in [-1, 1] times the strength: x ← (1+b)·x; then away from or towards the patch's mean
    brightness by 1+c; then away from or towards each pixel's own brightness by 1+s. Values are kept in 0..255.

    Args:
        values: float32 (B, 3, H, W) in 0..255, channels-last.
        strength: float32 (B, 3), on the CPU: b, c and s of each patch.
    """
    n, channels, height, width = values.shape
    bright, contrast, saturation = sent(1 + strength, values.device).unbind(1)
    luma = sent(torch.tensor(LUMA), values.device)
    mean = values.mean((2, 3)) @ luma * bright
    # Both steps are linear in RGB: scale · (s·I + (1 - s)·[luma luma luma]) with an offset from the mean.
    identity = torch.eye(channels, device=values.device)
    grey = luma[:, None].expand(channels, channels)
    saturate = saturation[:, None, None] * identity + (1 - saturation)[:, None, None] * grey
    matrix = (bright * contrast)[:, None, None] * saturate
    offset = ((1 - contrast) * mean)[:, None, None].expand(n, 1, channels)
    pixels = values.permute(0, 2, 3, 1).reshape(n, height * width, channels)
    changed = torch.baddbmm(offset, pixels, matrix).clamp_(0, 255)
    return changed.view(n, height, width, channels).permute(0, 3, 1, 2)
