"""Candidates: the slices that are tried, each defined on what a patch looks like or where it comes from.

For each input feature there are two: the fifth of the patches with the lowest and the fifth with the highest value.
The edges are numbers, fixed on the patches of one split (valid) and used as they are on another, so that a slice means
the same everywhere. Then each slide is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam.evaluation.features import FEATURES

SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Slice:
    """A named part of a split; `inside` is bool (N,)."""

    name: str
    definition: str
    inside: NDArray[np.bool_]
    is_slide: bool = False


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
    features: pd.DataFrame, edges: dict[str, tuple[float, float]], edges_from: str = "valid"
) -> Iterator[Slice]:
    """Yield the slices of a split: two for each feature, then one for each slide.

    Args:
        features: the input features of its N patches.
        edges: see `feature_edges`.
        edges_from: the split that the edges come from, for the definition.
    """
    for feature in FEATURES:
        values, (low, high) = features[feature.name].to_numpy(), edges[feature.name]
        for name, sign, edge, inside in (
            (feature.low, "≤", low, values <= low),
            (feature.high, "≥", high, values >= high),
        ):
            # Ties (patches that are all tissue) can fill the split; then there is no such slice.
            if inside.mean() <= 0.5:
                unit = f" {feature.unit}" if feature.unit else ""
                yield Slice(name, f"{feature.name} {sign} {edge:.4g}{unit} (a fifth of {edges_from})", inside)
    if "slide" in features:
        slides = features["slide"].to_numpy()
        for slide in np.unique(slides):
            yield Slice(f"slide {slide}", f"slide = {slide}", slides == slide, is_slide=True)
