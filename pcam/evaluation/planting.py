"""Weak slices planted on purpose: what a search for weak slices has to find, and what it must not find without.

The patches, their features, labels and slides are those of a split; only the scores are simulated, so that the truth is
known: every patch is scored equally well but for the slice that is planted. Each slide shifts its scores by an amount
of its own, as stains and scanners do. A search that takes patches for independent is fooled by that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from pcam.data.format import Split
from pcam.errors import DataError, did_you_mean
from pcam.evaluation.candidates import Slice, candidates
from pcam.evaluation.features import FEATURE_NAMES, patch_features
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.slices import SUPPORT, Scored

PLANTS = ("none", "dark", "stain", "pair", "slide")
_ONE = {"dark": "darkest fifth", "stain": "fifth with most eosin"}


def simulated(
    scored: Scored, weak: NDArray[np.bool_], seed: int, *, strength: float = 1.3, weak_strength: float = 0.2
) -> Scored:
    """Return the same patches with simulated scores that tell less on the weak ones.

    A logit is `strength` towards the truth, plus a normal shift of the patch's slide (0.3) and a normal error of the
    patch (1): without the shifts ROC-AUC is Φ(√2 · strength), 0.967 at 1.3 and 0.61 at 0.2.

    Args:
        scored: N labelled patches; their scores are not used.
        weak: bool (N,), where the scores tell little.
        seed: of shifts and errors.
        strength: elsewhere.
        weak_strength: on the weak ones.
    """
    p, rng = scored.predictions, np.random.default_rng(seed)
    n = len(p)
    group = np.arange(n) if scored.groups is None else np.unique(scored.groups, return_inverse=True)[1]
    towards = np.where(weak, weak_strength, strength) * (2.0 * p.labels - 1)
    logit = towards + rng.normal(0, 0.3, group.max() + 1)[group] + rng.normal(size=n)
    return Scored(Predictions(p.split, p.index, p.label, 1 / (1 + np.exp(-logit))), scored.features, scored.groups)


def planted(kind: str, splits: Sequence[Scored], edges: dict[str, tuple[float, float]]) -> tuple[str, list[Slice]]:
    """Choose the slice that a kind of weakness means, and return its name and what it holds of each split.

    Args:
        kind: of `PLANTS`. "dark" and "stain" are a feature's fifth, "pair" is what two fifths share, where
            that is at most half of either, "slide" is a slide of the first split; of several the one with the most
            patches of its rarer class.
        splits: the splits to plant it in, the first of them searched first.
        edges: of the features, see `feature_edges`.

    Raises:
        DataError: there is no such kind, or the patches have no such slice of at least ten patches a class.
    """
    if kind not in PLANTS:
        raise DataError(f"unknown weakness '{kind}'{did_you_mean(kind, PLANTS)}")
    found = [{part.name: part for part in candidates(s.features, edges, distinct=False)} for s in splits]
    empty = [Slice("", "", np.zeros(len(s.predictions), dtype=bool)) for s in splits]
    if kind == "none":
        return "", empty

    def support(name: str) -> int:
        # A slide is in one split only.
        sides = [
            s.predictions.labels[parts[name].inside] for s, parts in zip(splits, found, strict=True) if name in parts
        ]
        there = len(sides) == (1 if kind == "slide" else len(splits))
        return min(int((side == label).sum()) for side in sides for label in (0, 1)) if there else 0

    singles = {part.name: part.inside.sum() for part in found[0].values() if not part.parts}

    def meant(part: Slice) -> bool:
        if kind == "pair":
            return bool(part.parts) and part.inside.sum() <= 0.5 * min(singles[one] for one in part.parts)
        return part.is_slide if kind == "slide" else part.name == _ONE[kind]

    names = [part.name for part in found[0].values() if meant(part)]
    name = max(names, key=support, default="")
    if not name or support(name) < SUPPORT:
        raise DataError(f"a weakness '{kind}' cannot be planted: no such slice holds {SUPPORT} patches of each class")
    return name, [parts.get(name, none) for parts, none in zip(found, empty, strict=True)]


def blurred(scored: Scored, split: Split, slide: str, first: int = 0) -> Scored:
    """Return the patches with the features they would have if one slide had been out of focus.

    Args:
        scored: N patches.
        split: where the slide's pixels are.
        slide: each of its pixels becomes the mean of the 5×5 around it.
        first: the row of `scored` that is patch 0 of `split`.
    """
    struck = np.flatnonzero((scored.features["slide"] == slide).to_numpy())
    pixels = split.read(struck - first)
    soft = uniform_filter(pixels.astype(np.float32), size=(1, 5, 5, 1), mode="nearest")
    measured = scored.features.copy()
    measured.iloc[struck, [measured.columns.get_loc(name) for name in FEATURE_NAMES]] = patch_features(
        np.rint(soft).astype(np.uint8)
    )
    return Scored(scored.predictions, measured, scored.groups)
