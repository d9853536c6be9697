"""The error gallery: every kind of mistake on screen, with a threshold to move and its cost in view.

One widget for two homes. In a running Jupyter it is an anywidget: `gallery.threshold` and `gallery.selected` follow
the mouse and move the page when Python sets them. Everywhere else (the book, a file opened from disk) the same ES
module runs on the HTML that the widget also emits: one element that holds its script, its style, the scores and the
patches as one picture, so that it needs no kernel and no network. The same input gives the same bytes.

The counts are always over all predictions; the patches on show are a stated choice of them. They are the file's own
pixels, never normalised: bit for bit up to a hundred patches, compressed where there are more, and the page says by
how much that moved them. What it costs to look behind a score (the training patches most like this
one, the pixels that moved it) is paid only where it is asked for.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import pandas as pd
import traitlets
from numpy.typing import NDArray

from pcam.data.format import Split, open_split
from pcam.errors import DataError
from pcam.evaluation import explain
from pcam.evaluation.features import FEATURE_NAMES, FEATURES, input_features
from pcam.evaluation.gallery_patches import MOST, choose_patches, default_quality, pictures, static_list
from pcam.evaluation.predictions import Predictions, check_labels, read_predictions
from pcam.evaluation.thresholds import Confusion, Threshold, fixed_threshold

if TYPE_CHECKING:
    from pcam.models import PatchClassifier

_HERE = Path(__file__).parent
_SCRIPT = (_HERE / "gallery.js").read_text(encoding="utf-8")
_STYLE = (_HERE / "gallery.css").read_text(encoding="utf-8")

# What the widget's model is where there is no kernel: a place for values that tells who listens.
_SHIM = """
for (const el of document.querySelectorAll('[data-pcam-gallery="%s"]:not([data-ready])')) {
  const values = JSON.parse(el.querySelector("script").textContent), heard = {};
  el.dataset.ready = "";
  const on = (event, hear) => (heard[event] ??= []).push(hear);
  const set = (key, value) => { values[key] = value; (heard["change:" + key] ?? []).forEach((hear) => hear()); };
  render({ model: { get: (key) => values[key], set, on, off() {}, save_changes() {} }, el });
}
"""


class ErrorGallery(anywidget.AnyWidget):
    """Patches with their outcome, a threshold slider, filters and sorting.

    Attributes:
        threshold: a score of this or more is a positive call; follows the slider and moves it.
        selected: index of the patch that is shown large, or None; follows the page and opens or closes it.
    """

    _esm = _SCRIPT
    _css = _STYLE
    content = traitlets.Dict().tag(sync=True)
    threshold = traitlets.Float().tag(sync=True)
    selected = traitlets.Int(None, allow_none=True).tag(sync=True)

    def __init__(
        self,
        predictions: Predictions | Path | str,
        data: Split | Path | str,
        threshold: Threshold | float = 0.5,
        limit: int = 200,
        *,
        features: pd.DataFrame | None = None,
        slices: Mapping[str, NDArray[np.bool_]] | None = None,
        suspects: NDArray[np.bool_] | None = None,
        neighbours: Split | None = None,
        model: PatchClassifier | None = None,
        attribution: bool = False,
        quality: int | None = None,
    ) -> None:
        """Make a gallery.

        Args:
            predictions: N predictions, or their file; without labels, calls are shown instead of outcomes.
            data: the split they were made on, or the data folder.
            threshold: where the slider starts, and returns to on reset.
            limit: the largest number of patches on show; see `choose_patches` for which.
            features: input features of the N patches in the same order; None: measured on those on show.
            slices: name → bool (N,), to filter by.
            suspects: bool (N,), patches whose label is in doubt; see `label_suspects`. None: no such filter.
            neighbours: the training split, to show the three of its patches that are most like the one looked at.
            model: the model that made the predictions; neighbours are then those nearest to its last layer, else
                those nearest in input features.
            attribution: make a map for each patch on show of what moved its score: sixteen gradients of `model` each.
                Of more than 1,000 patches the maps are coarser and the neighbours smaller, and the page says so.
            quality: of the WEBP pictures, 1 to 99; 100: lossless, the file's own values, about 21 kB a patch. None:
                lossless for up to 100 patches, then 90 (7 kB), from 251 on 75, from 1,001 on 50 (4 kB).

        Raises:
            DataError: predictions and data do not fit, features, slices or suspects are not one per prediction, a
                feature is not finite, `limit` is not in 0..25,000 or `quality` not in 1..100, or attribution lacks a
                model.
        """
        p = predictions if isinstance(predictions, Predictions) else read_predictions(predictions)
        split = data if isinstance(data, Split) else open_split(data, p.split)
        if split.name != p.split or (len(p) and p.index[-1] >= len(split)):
            raise DataError(
                f"{len(p)} predictions of '{p.split}' do not fit {split.directory}, split '{split.name}', with "
                f"{len(split)} patches; use the data that they were made on"
            )
        if p.label is not None:
            check_labels(p, split, f"predictions of '{p.split}'")
        for name, rows in {"features": features, "suspects": suspects, **(slices or {})}.items():
            if rows is not None and len(rows) != len(p):
                raise DataError(
                    f"a gallery's {name}: {len(rows)} rows for {len(p)} predictions; give one each, in order"
                )
        if features is not None and not np.isfinite(features[list(FEATURE_NAMES)].to_numpy()).all():
            raise DataError("a gallery's features hold a value that is not finite; measure them with 'input_features'")
        if not 0 <= limit <= MOST:
            raise DataError(f"a gallery's limit is {limit}; it must be in 0..{MOST}")
        if quality is not None and not 1 <= quality <= 100:
            raise DataError(f"a gallery's quality is {quality}; it must be in 1..100, 100 for lossless")
        if attribution and model is None:
            raise DataError("an attribution needs the model that made the predictions; pass it as 'model'")
        cut = threshold if isinstance(threshold, Threshold) else fixed_threshold(threshold)
        chosen = choose_patches(p, cut.value, limit)
        patches = split.read(p.index[chosen])
        beside = quality or min(default_quality(len(chosen)), 75)  # neighbours are shrunk anyway
        quality = quality or default_quality(len(chosen))
        # The surest mistakes come first in the pictures: a page that opens on mistakes decodes few.
        wrongness = p.score[chosen] if p.label is None else np.abs(p.label[chosen] - p.score[chosen])
        first = np.argsort(-wrongness, kind="stable")
        places = np.argsort(first, kind="stable")
        seen = input_features(split, p.index[chosen]) if features is None else features.iloc[chosen]
        masks = list((slices or {}).values())
        slides = None if split.slides is None else split.slides[p.index]
        about: dict[str, Any] | None = None
        near: list[list[list[float]]] = [[] for _ in chosen]
        if neighbours is not None and len(chosen):
            found = explain.find_neighbours(split, p.index[chosen], neighbours, model)
            about, near = explain.neighbour_content(found, neighbours, beside)
        map_side, maps = 0, list[dict[str, Any]]()
        if attribution and model is not None:
            map_side, maps = explain.attribution_content(explain.integrated_gradients(model, patches))
        self._predictions, self._split = p, split
        super().__init__(
            content={
                "split": p.split,
                "kind": split.group_kind,
                "labelled": p.label is not None,
                "threshold": {"value": cut.value, "rule": cut.rule},
                "scores": [_packed(scores) for scores in _by_class(p)],
                "features": [{"name": f.name, "unit": f.unit, "text": f.text} for f in FEATURES],
                "slices": list(slices or {}),
                "suspects": None if suspects is None else int(suspects.sum()),
                "neighbours": about,
                "attribution": {"side": map_side} if attribution else None,
                "pictures": pictures(patches[first], quality),
                "patches": [
                    {
                        "index": int(p.index[row]),
                        "place": int(places[place]),
                        "label": None if p.label is None else int(p.label[row]),
                        "score": float(p.score[row]),
                        "slide": None if slides is None else str(slides[row]),
                        "slices": [number for number, mask in enumerate(masks) if mask[row]],
                        "suspect": bool(suspects is not None and suspects[row]),
                        "near": near[place],
                        "map": maps[place] if attribution else None,
                        "features": [float(f"{seen[f.name].iloc[place]:.4g}") for f in FEATURES],
                    }
                    for place, row in enumerate(chosen)
                ],
            },
            threshold=cut.value,
        )

    @traitlets.validate("threshold")
    def _finite(self, proposal: Any) -> float:
        if not math.isfinite(proposal["value"]):
            raise DataError(f"a gallery's threshold is {proposal['value']}; it must be finite")
        return float(proposal["value"])

    @traitlets.validate("selected")
    def _on_show(self, proposal: Any) -> int | None:
        if proposal["value"] is not None and proposal["value"] not in self.shown:
            raise DataError(f"patch {proposal['value']} is not on show; 'shown' holds the indices of those that are")
        chosen: int | None = proposal["value"]
        return chosen

    def __repr__(self) -> str:
        p = self._predictions
        return f"ErrorGallery({p.split!r}, n={len(p)}, on show={len(self.shown)}, threshold={self.threshold:.3f})"

    @property
    def shown(self) -> list[int]:
        """Indices of the patches that the gallery holds."""
        return [patch["index"] for patch in self.content["patches"]]

    @property
    def counts(self) -> Confusion:
        """Outcomes of all predictions at the present threshold.

        Raises:
            DataError: there are no labels.
        """
        label, called = self._predictions.labels.astype(bool), self._predictions.score >= self.threshold
        tp, fp = int((label & called).sum()), int((~label & called).sum())
        return Confusion(tp, fp, int((~label).sum()) - fp, int(label.sum()) - tp)

    def to_html(self, static: str = "") -> str:
        """Return the gallery as one self-contained HTML element.

        Args:
            static: HTML for readers without scripts.
        """
        state = {"content": self.content, "threshold": self.threshold, "selected": self.selected}
        # No "<" is left in the data, so nothing in it (a slide's name, say) can close the script around it.
        data = json.dumps(state, separators=(",", ":"), sort_keys=True, allow_nan=False).replace("<", "\\u003c")
        name = hashlib.sha256(data.encode()).hexdigest()[:12]
        return (
            f"<style>{_STYLE}</style>\n"
            f'<div data-pcam-gallery="{name}"><script type="application/json">{data}</script>'
            f"<noscript>{html.escape(repr(self))}: this gallery needs JavaScript.{static}</noscript></div>\n"
            f'<script type="module">\n{_SCRIPT}{_SHIM % name}</script>\n'
        )

    def to_page(self) -> str:
        """Return the gallery as a whole HTML page, to be opened from disk; without scripts, it lists mistakes."""
        p = self._predictions
        title = html.escape(f"Error gallery: {p.split}")
        static = "" if p.label is None else static_list(p, self._split, self.threshold, min(8, len(self.shown)))
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>:root{{color-scheme:light dark}}"
            "body{margin:0 auto;max-width:80rem;padding:1rem;background:light-dark(#fff,#14181e)}"
            "@media print{:root{color-scheme:light}}</style>\n"
            "</head>\n<body>\n"
            f"{self.to_html(static)}</body>\n</html>\n"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        live = super()._repr_mimebundle_(**kwargs)
        data, metadata = live if isinstance(live, tuple) else (live or {}, {})
        return {**data, "text/plain": repr(self), "text/html": self.to_html()}, metadata


def _by_class(p: Predictions) -> list[NDArray[np.float64]]:
    """Return the scores of negatives and of positives; without labels, all of them and none."""
    return [p.score, p.score[:0]] if p.label is None else [p.score[p.label == 0], p.score[p.label == 1]]


def _packed(scores: NDArray[np.float64]) -> dict[str, Any]:
    """Return sorted scores as base64 of little-endian floats: the shortest type that loses nothing."""
    kind = "f4" if (scores.astype(np.float32) == scores).all() else "f8"
    return {"kind": kind, "data": base64.b64encode(np.sort(scores).astype(f"<{kind}").tobytes()).decode("ascii")}
