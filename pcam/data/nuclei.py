"""Nuclei as sprites: small haematoxylin patterns that `pcam.data.tissue` stamps onto a region.

Drawing each nucleus anew would take most of the time of a patch, so each kind is drawn once per process, in
enough shapes that turning, mirroring and dyeing them gives no visible repeats. A sprite is an ellipse whose
outline is pushed in and out by smooth noise; the kinds differ in size, regularity and in how the dye lies:
lymphocytes are small, round and dark; fibroblasts thin and long; histiocytes pale and regular; tumour nuclei
large, irregular and pale, with a dark rim and a nucleolus. Only +, −, ×, ÷ and comparisons of float64 touch a
pixel, because those alone give the same bits on every family of CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]

# Rounded, since the last bit of a cosine is the library's choice and would differ between machines.
DIRECTIONS = tuple((round(math.cos(math.pi * k / 32), 9), round(math.sin(math.pi * k / 32), 9)) for k in range(64))


@dataclass(frozen=True)
class Kind:
    """How one kind of nucleus looks; lengths in pixels at about 1 µm a pixel (10×), dye as optical density."""

    radius: tuple[float, float]
    elongation: tuple[float, float]
    irregular: float
    body: tuple[float, float]
    rim: float
    clumps: float
    nucleoli: int
    turned: bool = False


KINDS = {
    "lymphocyte": Kind((2.5, 3.9), (1.0, 1.3), 0.25, (0.72, 1.0), 0.1, 0.4, 0),
    "fibroblast": Kind((1.4, 2.0), (2.6, 4.6), 0.25, (0.7, 1.0), 0.0, 0.2, 0, turned=True),
    "histiocyte": Kind((4.0, 5.2), (1.1, 1.5), 0.2, (0.38, 0.55), 0.18, 0.2, 1),
    "centroblast": Kind((3.8, 5.4), (1.0, 1.35), 0.22, (0.32, 0.52), 0.2, 0.34, 2),
    "tumour": Kind((4.6, 7.6), (1.0, 1.6), 0.34, (0.28, 0.5), 0.22, 0.36, 2),
    "erythrocyte": Kind((2.4, 3.2), (1.0, 1.4), 0.2, (0.7, 0.9), 0.0, 0.1, 0),
}
SPRITES_PER_KIND = 96


@dataclass(frozen=True)
class Sprite:
    """One nucleus: `keep` (h, h) is the share of what lies below that stays, `dye` (h, h) what is added."""

    keep: Field
    dye: Field


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw one number; only `rng.random` is used anywhere, whose stream is the same on every machine."""
    return low + (high - low) * float(rng.random())


def smooth_noise(rng: np.random.Generator, side: int, cell: float) -> Field:
    """Return value noise in about [-1, 1]: a random lattice of pitch `cell` pixels, smoothly interpolated.

    Args:
        rng: the source.
        side: height and width of the field.
        cell: pitch of the lattice in pixels.

    Returns:
        Float64 (side, side).
    """
    count = int(side / cell) + 3
    lattice = rng.random((count, count)) * 2 - 1
    position = (np.arange(side) + float(rng.random()) * cell) / cell
    below = np.floor(position).astype(np.intp)
    t = position - below
    t = t * t * (3 - 2 * t)
    rows = lattice[below] * (1 - t)[:, None] + lattice[below + 1] * t[:, None]
    return rows[:, below] * (1 - t) + rows[:, below + 1] * t


def _draw(kind: Kind, rng: np.random.Generator, direction: int) -> Sprite:
    radius = uniform(rng, *kind.radius)
    stretch = uniform(rng, *kind.elongation)
    root = math.sqrt(stretch)
    long, short = radius * root, radius / root
    if kind.turned:
        long, short = radius * stretch, radius
    half = int(long * (1 + kind.irregular)) + 2
    side = 2 * half + 1
    axis = np.arange(side) - half
    y, x = axis[:, None].astype(np.float64), axis[None, :].astype(np.float64)
    cos, sin = DIRECTIONS[direction]
    u, v = (x * cos + y * sin) / long, (y * cos - x * sin) / short
    outline = 1 + kind.irregular * smooth_noise(rng, side, max(3.0, radius * 0.9))
    level = np.sqrt(u * u + v * v) / outline
    inside = np.clip((1 - level) * short + 0.5, 0, 1)
    body = uniform(rng, *kind.body)
    dye = body + kind.clumps * smooth_noise(rng, side, 1.9)
    if kind.rim:
        dye = dye + kind.rim * np.clip(1 - np.abs(level - 0.88) * 4, 0, 1)
    for _ in range(int(rng.random() * (kind.nucleoli + 1))):
        cy, cx = (uniform(rng, -0.35, 0.35) * radius for _ in range(2))
        spot = np.clip(2.0 - np.sqrt((y - cy) * (y - cy) + (x - cx) * (x - cx)), 0, 1)
        dye = dye + 0.55 * spot
    return Sprite(1 - inside, np.maximum(dye, 0.1) * inside)


@cache
def sprites(name: str) -> tuple[Sprite, ...]:
    """Return the sprites of a kind, from small to large; of a `turned` kind in order of `DIRECTIONS`, two each."""
    kind = KINDS[name]
    number = sorted(KINDS).index(name)
    count = 2 * len(DIRECTIONS) if kind.turned else SPRITES_PER_KIND
    drawn = []
    for serial in range(count):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([number, serial])))
        direction = serial // 2 if kind.turned else int(rng.random() * len(DIRECTIONS))
        drawn.append(_draw(kind, rng, direction))
    return tuple(drawn) if kind.turned else tuple(sorted(drawn, key=lambda sprite: float((1 - sprite.keep).sum())))


def scatter(rng: np.random.Generator, side: int, spacing: float, jitter: float = 0.38) -> NDArray[np.float64]:
    """Return points about `spacing` pixels apart: a turned hexagonal lattice, shaken, so that few touch.

    Returns:
        Float64 (n, 2): y and x, also a little outside of [0, side).
    """
    reach = int(side * 0.75 / spacing) + 2
    k = np.arange(-reach, reach + 1)
    row, column = np.meshgrid(k.astype(np.float64), k.astype(np.float64), indexing="ij")
    y = row * 0.866 * spacing
    x = (column + 0.5 * (k % 2)[:, None]) * spacing
    shake = (rng.random((2, *y.shape)) * 2 - 1) * jitter * spacing
    y, x = y + shake[0], x + shake[1]
    cos, sin = DIRECTIONS[int(rng.random() * len(DIRECTIONS))]
    points = np.stack([y * cos - x * sin, x * cos + y * sin], axis=-1).reshape(-1, 2) + side / 2
    return points[((points > -9) & (points < side + 9)).all(axis=1)]
