"""How a slide is stained and scanned: from densities of two dyes to RGB.

By the Beer–Lambert law a pixel is `blank × 10^−(H·h + E·e)` for each colour, with `H` and `E` the densities of
haematoxylin and eosin and `h` and `e` the slide's own stain vectors (Ruifrok and Johnston 2001, "Quantification of
histochemical staining by color deconvolution"). Slides differ in them, in the colour of blank glass and in focus.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcam.data.nuclei import Field, uniform

_STEPS = 512  # optical density is looked up in steps of 1/_STEPS
# Light let through at each density. Rounded, because the last bit of a power is the library's choice.
_LIGHT: Field = np.array([round(10 ** (-k / _STEPS), 9) for k in range(3 * _STEPS)])


@dataclass(frozen=True)
class Slide:
    """What all patches of a slide share: stain vectors (RGB optical density), glass, strengths and focus."""

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    blank: tuple[float, float, float]
    dye: float
    cytoplasm: float
    blur: int


def draw_slide(rng: np.random.Generator) -> Slide:
    """Draw one slide's stain and scanner: between a violet and a brown hospital, with some spread of its own."""

    def mix(a: tuple[float, ...], b: tuple[float, ...], t: float) -> tuple[float, float, float]:
        red, green, blue = (p + (q - p) * t + uniform(rng, -0.03, 0.03) for p, q in zip(a, b, strict=True))
        return red, green, blue

    brown = uniform(rng, 0, 1)
    return Slide(
        haematoxylin=mix((0.66, 0.94, 0.30), (0.54, 0.80, 0.54), brown),
        eosin=mix((0.20, 0.78, 0.16), (0.13, 0.58, 0.42), brown),
        blank=mix((222.0, 222.0, 228.0), (248.0, 244.0, 240.0), uniform(rng, 0, 1)),
        dye=uniform(rng, 0.48, 1.0),
        cytoplasm=uniform(rng, 0.4, 1.2),
        blur=int(1.8 * uniform(rng, 0, 1) * uniform(rng, 0, 1)),
    )


def scan(rng: np.random.Generator, haematoxylin: Field, eosin: Field, slide: Slide) -> NDArray[np.uint8]:
    """Turn stain densities into light, as the slide's scanner sees them.

    Args:
        rng: of the camera's noise.
        haematoxylin: (h, w), 0 or more.
        eosin: likewise.
        slide: stain and scanner.

    Returns:
        Uint8 (h, w, 3), RGB.
    """
    if slide.blur == 0:  # scanners sharpen what is in focus
        haematoxylin, eosin = (np.maximum(f + 0.6 * (f - soften(f)), 0) for f in (haematoxylin, eosin))
    for _ in range(slide.blur):
        haematoxylin, eosin = soften(haematoxylin), soften(eosin)
    h, e = haematoxylin * slide.dye, eosin * slide.cytoplasm
    grain = rng.random((*h.shape, 3)) * 7 - 3.5
    picture = np.empty((*h.shape, 3), dtype=np.uint8)
    for colour in range(3):
        density = h * slide.haematoxylin[colour] + e * slide.eosin[colour]
        index = np.minimum(density * _STEPS, len(_LIGHT) - 1).astype(np.intp)
        light = slide.blank[colour] * _LIGHT[index] + grain[..., colour]
        picture[..., colour] = np.clip(np.rint(light), 0, 255).astype(np.uint8)
    return picture


def soften(field: Field) -> Field:
    """Blur by the binomial kernel (1 2 1)/4 in both directions; edges repeat."""
    wide = np.pad(field, 1, mode="edge")
    rows = (wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
