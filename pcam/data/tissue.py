"""Lay out and paint H&E-like lymph-node tissue.

A region is painted in two fields: haematoxylin (nuclei) and eosin (cytoplasm, fibres), each an optical density,
which `pcam.data.stain` then turns into light. Lymphoid tissue, stroma, fat, germinal centres and glass are laid
out by smooth noise; a tumour is a blob on top of them. The same seed paints the same bytes on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pcam.data.nuclei import DIRECTIONS, Field, scatter, smooth_noise, sprites, uniform
from pcam.data.stain import Slide, scan, soften

MARGIN = 10  # pixels painted around a region, so that its edge cuts through nuclei
CENTRE = 32  # side of the central square that PCam's label looks at

LYMPHOID, STROMA, FAT, GERMINAL, GLASS, TUMOUR = range(6)
# How often each of the benign kinds is the main one of a region.
SHARES = ((LYMPHOID, 0.36), (STROMA, 0.24), (FAT, 0.17), (GERMINAL, 0.14), (GLASS, 0.09))


def tumour_field(rng: np.random.Generator, side: int, centres: list[tuple[int, int]], touch: bool) -> Field:
    """Lay out a tumour: positive inside. It reaches every centre square if `touch`, none otherwise.

    Args:
        rng: the source.
        side: of the region in pixels.
        centres: top left corners of the `CENTRE`² squares.
        touch: True paints a tumour into each of them, False one that stays outside of them.

    Returns:
        Float64 (side, side), about the signed distance to the outline in pixels.
    """
    axis = np.arange(side, dtype=np.float64)
    middle_y, middle_x = (sum(c[k] for c in centres) / len(centres) + CENTRE / 2 for k in (0, 1))
    cos, sin = DIRECTIONS[int(rng.random() * len(DIRECTIONS))]
    sign = 1 if rng.random() < 0.5 else -1
    if touch:
        radius, away = uniform(rng, 20, 75), uniform(rng, 0, 1)
        away *= 0.6 * radius
    else:
        radius = uniform(rng, 24, 50)
        away = radius + uniform(rng, 22, 34)
    y = axis[:, None] - (middle_y + sign * away * sin)
    x = axis[None, :] - (middle_x + sign * away * cos)
    field = radius - np.sqrt(y * y + x * x) + 9 * smooth_noise(rng, side, 18)
    for top, left in centres:
        if touch:  # at least an eighth of each centre
            square = field[top : top + CENTRE, left : left + CENTRE].ravel()
            rank = square.size * 7 // 8
            field = field + max(0.0, 1e-3 - float(np.partition(square, rank)[rank]))
        else:  # and a clear margin around it
            square = field[top - 3 : top + CENTRE + 3, left - 3 : left + CENTRE + 3]
            field = field - max(0.0, 1e-3 + float(square.max()))
    return field


def paint(rng: np.random.Generator, side: int, slide: Slide, tumour: Field | None) -> NDArray[np.uint8]:
    """Paint one region.

    Args:
        rng: the source; it alone decides the picture.
        side: height and width in pixels.
        slide: stain and scanner.
        tumour: (side, side), positive where there is tumour; None for none.

    Returns:
        Uint8 (side, side, 3), RGB.
    """
    full = side + 2 * MARGIN
    mass = np.full((full, full), -99.0) if tumour is None else np.pad(tumour, MARGIN, mode="edge")
    kinds = _layout(rng, full)
    kinds[mass > 0] = TUMOUR
    direction = int(rng.random() * len(DIRECTIONS))
    haematoxylin, eosin = (soften(field) for field in _ground(rng, full, kinds, direction))
    nuclei = _stamp_nuclei(rng, full, kinds, direction)
    if rng.random() < 0.2:
        _stamp(rng, eosin, (kinds == LYMPHOID) | (kinds == STROMA), "erythrocyte", 12, 0.3)
    inner = slice(MARGIN, MARGIN + side)
    nuclei, haematoxylin, eosin = (f[inner, inner] for f in (nuclei, haematoxylin, eosin))
    eosin = eosin * (1 - 0.45 * np.minimum(nuclei, 1))
    return scan(rng, haematoxylin + nuclei, eosin, slide)


def _layout(rng: np.random.Generator, full: int) -> NDArray[np.intp]:
    """Give each pixel its kind of tissue: mostly one, often with a second one beside it."""
    first, second = _draw_kind(rng), _draw_kind(rng)
    if first == GLASS and second == GLASS:
        second = LYMPHOID  # bare glass alone is not cut from a slide
    share = uniform(rng, -0.9, 0.1) if first != GLASS else uniform(rng, -0.3, 0.3)
    field = smooth_noise(rng, full, full * 0.6) + 0.25 * smooth_noise(rng, full, 14)
    return np.where(field < share, second, first).astype(np.intp)


def _draw_kind(rng: np.random.Generator) -> int:
    draw = float(rng.random())
    for kind, share in SHARES:
        draw -= share
        if draw < 0:
            return kind
    return LYMPHOID


def _ground(rng: np.random.Generator, full: int, kinds: NDArray[np.intp], direction: int) -> tuple[Field, Field]:
    """Paint what lies between the nuclei; returns haematoxylin and eosin densities, (full, full) each."""
    coarse, fine = smooth_noise(rng, full, 22), smooth_noise(rng, full, 3.2)
    grain = smooth_noise(rng, full, 1.7)
    haematoxylin = np.zeros((full, full))
    eosin = np.zeros((full, full))
    present = np.bincount(kinds.ravel(), minlength=TUMOUR + 1)

    def lay(kind: int, h: Field, e: Field) -> None:
        here = kinds == kind
        haematoxylin[here], eosin[here] = h[here], e[here]

    if present[LYMPHOID]:
        gaps = np.clip(0.75 + 1.1 * fine + 0.4 * coarse + 0.5 * grain, 0.08, 1.1)
        lay(LYMPHOID, 0.10 * gaps, (0.36 + 0.12 * coarse) * gaps)
    if present[STROMA]:
        lay(STROMA, *_stroma(rng, full, coarse, grain, direction))
    if present[FAT]:
        lay(FAT, *_fat(rng, full, coarse, fine))
    if present[GLASS]:
        lay(GLASS, 0.004 + 0.004 * grain, 0.008 + 0.006 * coarse)
    if present[GERMINAL]:
        gaps = np.clip(0.8 + 0.7 * fine + 0.5 * grain, 0.15, 1.1)
        lay(GERMINAL, 0.09 * gaps, (0.32 + 0.1 * coarse) * gaps)
    if present[TUMOUR]:
        borders = np.clip(0.8 + 0.7 * fine + 0.5 * grain, 0.2, 1.1)
        lay(TUMOUR, (0.11 + 0.05 * coarse) * borders, (0.36 + 0.1 * coarse) * borders)
    return np.maximum(haematoxylin, 0), np.maximum(eosin, 0)


def _stroma(rng: np.random.Generator, full: int, coarse: Field, grain: Field, direction: int) -> tuple[Field, Field]:
    """Wavy collagen: noise that is stretched along a direction, with clefts where it is low."""
    cos, sin = DIRECTIONS[direction]
    axis = np.arange(full, dtype=np.float64)
    across = axis[:, None] * cos - axis[None, :] * sin + 9 * smooth_noise(rng, full, 34)
    along = axis[:, None] * sin + axis[None, :] * cos
    lattice = rng.random((64, 64)) * 2 - 1
    fibre = _sample(lattice, across / 2.8 + 512, along / 26 + 512) * 0.7
    fibre = fibre + _sample(lattice, across / 9 + 530, along / 60 + 520) * 0.6
    body = np.clip(0.8 + 1.1 * fibre, 0.03, 1.25)
    return 0.05 * body, (0.46 + 0.12 * coarse + 0.14 * grain) * body


def _sample(lattice: Field, y: Field, x: Field) -> Field:
    """Interpolate a periodic lattice at (y, x), both positive."""
    count = len(lattice)
    top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    t, s = y - top, x - left
    t, s = t * t * (3 - 2 * t), s * s * (3 - 2 * s)
    top, left = top % count, left % count
    below, right = (top + 1) % count, (left + 1) % count
    upper = lattice[top, left] * (1 - s) + lattice[top, right] * s
    lower = lattice[below, left] * (1 - s) + lattice[below, right] * s
    return upper * (1 - t) + lower * t


def _fat(rng: np.random.Generator, full: int, coarse: Field, fine: Field) -> tuple[Field, Field]:
    """Fat cells: empty, with a thin membrane where the two nearest cells are equally far away."""
    spacing = uniform(rng, 30, 52)
    axis = np.arange(full, dtype=np.float64)
    warp_y, warp_x = (5 * smooth_noise(rng, full, 16) for _ in range(2))
    nearest, next_nearest, third = (np.full((full, full), 1e9) for _ in range(3))
    for cy, cx in scatter(rng, full, spacing, jitter=0.4):
        dy, dx = axis[:, None] - cy + warp_y, axis[None, :] - cx + warp_x
        distance = np.sqrt(dy * dy + dx * dx)
        farther = np.maximum(nearest, distance)
        third = np.minimum(third, np.maximum(next_nearest, farther))
        next_nearest = np.minimum(next_nearest, farther)
        nearest = np.minimum(nearest, distance)
    width = uniform(rng, 0.3, 1.7) * (1 + 0.8 * fine)
    membrane = np.clip(width + 0.5 - 0.5 * (next_nearest - nearest), 0, 1)
    corner = np.clip(uniform(rng, 0.5, 4.5) - 0.5 * (third - nearest), 0, 1)  # tissue lies where three cells meet
    density = np.maximum(membrane, corner) * np.clip(0.75 + 0.7 * coarse + 0.5 * fine, 0.15, 1.2)
    return 0.1 * density + 0.003, 0.36 * density + 0.01


def _stamp_nuclei(rng: np.random.Generator, full: int, kinds: NDArray[np.intp], direction: int) -> Field:
    """Stamp the nuclei of each tissue; returns haematoxylin (full, full)."""
    canvas = np.zeros((full, full))
    present = np.bincount(kinds.ravel(), minlength=TUMOUR + 1)
    crowd = uniform(rng, 6.9, 10)
    if present[LYMPHOID]:
        _stamp(rng, canvas, kinds == LYMPHOID, "lymphocyte", crowd, 0.93)
        _stamp(rng, canvas, kinds == LYMPHOID, "histiocyte", 26, 0.35)
    if present[STROMA]:
        _stamp(rng, canvas, kinds == STROMA, "fibroblast", 13, 0.6, direction)
        _stamp(rng, canvas, kinds == STROMA, "lymphocyte", 24, 0.4)
    if present[FAT]:
        _stamp(rng, canvas, kinds == FAT, "lymphocyte", 40, 0.25)
    if present[GERMINAL]:  # pale and crowded, but small and regular: what a tumour is mistaken for
        _stamp(rng, canvas, kinds == GERMINAL, "centroblast", uniform(rng, 10, 12.5), 0.9)
        _stamp(rng, canvas, kinds == GERMINAL, "lymphocyte", 15, 0.4)
    if present[TUMOUR]:
        _stamp(rng, canvas, kinds == TUMOUR, "lymphocyte", 22, uniform(rng, 0, 0.6))
        _stamp(rng, canvas, kinds == TUMOUR, "tumour", uniform(rng, 12, 17), 0.95, grade=uniform(rng, 0, 1))
    return canvas


def _stamp(
    rng: np.random.Generator,
    canvas: Field,
    where: NDArray[np.bool_],
    name: str,
    spacing: float,
    share: float,
    direction: int | None = None,
    grade: float | None = None,
) -> None:
    """Stamp one kind of nucleus `where` it belongs; `grade` from 0 to 1 prefers the larger ones."""
    points = scatter(rng, len(canvas), spacing)
    draws = rng.random((len(points), 4))
    library = sprites(name)
    full = len(canvas)
    for (cy, cx), (keep, pick, turn, strength) in zip(points.tolist(), draws.tolist(), strict=True):
        y, x = int(cy + 0.5), int(cx + 0.5)
        if keep > share or not (0 <= y < full and 0 <= x < full) or not where[y, x]:
            continue
        if direction is None:
            size = pick if grade is None else (pick + grade) / 2
            sprite = library[int(size * len(library))]
            below, dye = _SYMMETRIES[int(turn * 8)](sprite.keep), _SYMMETRIES[int(turn * 8)](sprite.dye)
        else:
            sprite = library[(2 * direction + int(pick * 20) - 9) % len(library)]
            below, dye = sprite.keep, sprite.dye
        top, left = y - len(below) // 2, x - len(below) // 2
        if top < 0 or left < 0:
            below, dye = below[max(0, -top) :, max(0, -left) :], dye[max(0, -top) :, max(0, -left) :]
            top, left = max(0, top), max(0, left)
        window = canvas[top : top + below.shape[0], left : left + below.shape[1]]
        window *= below[: window.shape[0], : window.shape[1]]
        window += dye[: window.shape[0], : window.shape[1]] * (0.8 + 0.4 * strength)


_SYMMETRIES = (
    lambda a: a,
    lambda a: a[::-1],
    lambda a: a[:, ::-1],
    lambda a: a[::-1, ::-1],
    lambda a: a.T,
    lambda a: a.T[::-1],
    lambda a: a.T[:, ::-1],
    lambda a: a.T[::-1, ::-1],
)
