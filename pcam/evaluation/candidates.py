"""Candidates: the slices that are tried, each defined on what a patch looks like or where it comes from.

For each input feature there are two: the fifth of the patches with the lowest and the fifth with the highest value.
The edges are numbers, fixed on the patches of one split (valid) and used as they are on another, so that a slice means
the same everywhere. What two of these share, if they are of two features, is a slice as well: a weakness may need both,
dark and blurred, and hide in either alone. Then each slide is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam.evaluation.features import FEATURES

SHARE = 0.2
AND = " + "
# A pair that holds nearly all of one of its two slices says nothing that the slice alone does not say.
SAME = 0.8


@dataclass(frozen=True, eq=False)
class Slice:
    """A named part of a split; `inside` is bool (N,), `parts` are the two slices that a pair is made of."""

    name: str
    definition: str
    inside: NDArray[np.bool_]
    is_slide: bool = False
    parts: tuple[str, ...] = ()


def feature_edges(features: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return, for each feature, the values below and above which its lowest and highest fifth lie."""
    return {
        feature.name: (
            float(features[feature.name].quantile(SHARE)),
            float(features[feature.name].quantile(1 - SHARE)),
        )
        for feature in FEATURES
    }


def candidates(
    features: pd.DataFrame, edges: dict[str, tuple[float, float]], edges_from: str = "valid", *, distinct: bool = True
) -> Iterator[Slice]:
    """Yield the slices of a split: two for each feature, then their pairs, then one for each slide.

    Args:
        features: the input features of its N patches.
        edges: see `feature_edges`.
        edges_from: the split that the edges come from, for the definition.
        distinct: leave out pairs that hold nearly all of one of their slices.
    """
    singles: list[tuple[str, Slice]] = []
    for feature in FEATURES:
        values, (low, high) = features[feature.name].to_numpy(), edges[feature.name]
        for name, sign, edge, inside in (
            (feature.low, "≤", low, values <= low),
            (feature.high, "≥", high, values >= high),
        ):
            # Ties (patches that are all tissue) can fill the split; then there is no such slice.
            if inside.mean() <= 0.5:
                unit = f" {feature.unit}" if feature.unit else ""
                part = Slice(name, f"{feature.name} {sign} {_written(edge)}{unit} (a fifth of {edges_from})", inside)
                singles.append((feature.name, part))
                yield part
    for (name, one), (other, two) in combinations(singles, 2):
        both = one.inside & two.inside
        alike = both.sum() > SAME * min(one.inside.sum(), two.inside.sum())
        if name != other and not (distinct and alike):
            definition = f"{one.definition} and {two.definition}"
            yield Slice(f"{one.name}{AND}{two.name}", definition, both, parts=(one.name, two.name))
    if "slide" in features:
        slides = features["slide"].to_numpy()
        for slide in np.unique(slides):
            yield Slice(f"slide {slide}", f"slide = {slide}", slides == slide, is_slide=True)


def _written(edge: float) -> str:
    # Four digits, but never 1.884e+04.
    return f"{edge:.0f}" if abs(edge) >= 1000 else f"{edge:.4g}"
