"""Everything found is shown: contact sheets, pairs side by side with what they share, broken pixels, the trigger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pcam.audit.report import AuditReport
from pcam.audit.symmetry import SYMMETRIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHARED = "#d55e00"  # Okabe-Ito: tells from both stains
_INCH = 0.95  # per patch: hardly more pixels than it has
_MARGIN = 3  # pixels between an outline and the few that it is about, which it would cover
_SHORT = {
    "exact_duplicate": "exact",
    "symmetry_duplicate": "symmetry",
    "near_duplicate": "near",
    "pixel_overlap": "overlap",
}
_SAMPLED = 64  # patches read again for the map of broken pixels


def contact_sheet(report: AuditReport, issues: tuple[str, ...], per_issue: int = 8) -> Figure:
    """Draw the first patches of each issue, one row an issue; what is broken in a part of a patch is outlined.

    Args:
        report: the audit.
        issues: names of issues; those without findings are left out.
        per_issue: the most patches of each.

    Raises:
        ValueError: none of the issues was found.
    """
    rows = [(issue, report.findings.of(issue).patch[:per_issue]) for issue in issues]
    rows = [(issue, patches) for issue, patches in rows if len(patches)]
    if not rows:
        raise ValueError(f"no findings of {', '.join(issues)} to show")
    figure, axes = _grid(len(rows), max(len(patches) for _, patches in rows))
    for line, (issue, patches) in zip(axes, rows, strict=True):
        for place, patch, pixels in zip(line, patches, report.scan.read(patches), strict=False):
            _show(place, pixels, _name(report, patch))
            for y, x, height, width in _boxes(report, issue, int(patch)):
                _outline(place, y - _MARGIN, x - _MARGIN, height + 2 * _MARGIN, width + 2 * _MARGIN)
        line[0].set_ylabel(issue.replace("_", " "), visible=True)
    return figure


def ranked_sheet(report: AuditReport, issue: str, limit: int = 16) -> Figure:
    """Draw the patches of an issue with the highest scores, highest first, eight in a row, each with its score.

    Raises:
        ValueError: the issue was not found.
    """
    rows = report.findings.of(issue)
    if not len(rows):
        raise ValueError(f"no findings of {issue} to show")
    order = np.argsort(-rows.score, kind="stable")[:limit]
    patches, scores = rows.patch[order], rows.score[order]
    columns = min(8, len(patches))
    figure, axes = _grid(-(-len(patches) // columns), columns, extra=0.35)
    shown = zip(axes.ravel().tolist(), patches, scores, report.scan.read(patches), strict=False)
    for rank, (place, patch, score, pixels) in enumerate(shown, 1):
        _show(place, pixels, f"{rank}. {_name(report, patch)}\nscore {score:.3f}")
    return figure


def pair_sheet(report: AuditReport, issues: tuple[str, ...], per_issue: int = 3, *, across: bool = False) -> Figure:
    """Draw pairs side by side, with the pixels that they share outlined and the relation above.

    Args:
        report: the audit.
        issues: names of issues of pairs; those without findings are left out.
        per_issue: the most pairs of each, the most certain ones of every split first.
        across: only pairs across two splits.

    Raises:
        ValueError: none of the issues was found.
    """
    shown: list[tuple[str, int, int, float]] = []
    for issue in issues:
        found = report.findings.of(issue)
        if across:
            keep = report.scan.split[found.patch] != report.scan.split[found.partner]
        else:
            keep = np.ones(len(found), dtype=bool)
        pairs = zip(found.patch[keep], found.partner[keep], found.score[keep], strict=True)
        shown += [(issue, int(a), int(b), float(score)) for a, b, score in list(pairs)[:per_issue]]
    if not shown:
        raise ValueError(f"no pairs of {', '.join(issues)} to show")
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes = _grid(lines, 2 * columns, extra=0.5)
    figure.suptitle(" ", fontsize=8)  # room for the headings of the first line
    places = axes.reshape(lines, columns, 2).reshape(-1, 2)
    for (left, right), (issue, a, b, score) in zip(places, shown, strict=False):
        first, second = report.scan.read([a, b])
        _show(left, first, _name(report, a))
        _show(right, second, _name(report, b))
        text = f"{_SHORT[issue]}: {_relation(report, issue, a, b, score)}"
        heading = left.annotate(text, (0, 1.2), xycoords="axes fraction", fontsize=7, weight="bold")
        heading.set_in_layout(False)  # it reaches over the partner, and must not widen its own column
        shift = _shift(report, a, b) if issue == "pixel_overlap" else None
        if shift:
            _outline(left, *(max(0, s) for s in shift), *(96 - abs(s) for s in shift))
            _outline(right, *(max(0, -s) for s in shift), *(96 - abs(s) for s in shift))
    return figure


def broken_map(report: AuditReport) -> Figure:
    """Draw where values are NaN or out of range: how many patches at each pixel, and some of the patches.

    Raises:
        ValueError: no patch has such values.
    """
    import matplotlib.pyplot as plt

    rows = report.findings.of("nan", "out_of_range")
    if not len(rows):
        raise ValueError("no NaN or out-of-range values to show")
    chosen = np.unique(rows.patch)[:_SAMPLED]
    broken = np.stack([_broken(report, int(patch)) for patch in chosen])
    figure, axes = plt.subplots(1, 4, figsize=(8, 2.3), layout="constrained", width_ratios=(1.5, 1, 1, 1))
    image = axes[0].imshow(broken.sum(axis=0), cmap="cividis", interpolation="nearest")
    axes[0].set(xlabel="column (pixel)", ylabel="row (pixel)")
    axes[0].set_title(f"where {len(chosen)} patches are broken", fontsize=8)
    bar = figure.colorbar(image, ax=axes[0], label="patches broken here")
    bar.ax.yaxis.get_major_locator().set_params(integer=True)
    for place, patch, mask in zip(axes[1:], chosen, broken, strict=False):
        place.set(xticks=[], yticks=[])
        _show(place, report.scan.read([patch])[0], _name(report, patch))
        _outline(place, *_around(mask))
    for place in axes[1 + len(chosen) :]:
        place.set_axis_off()
    return figure


def trigger_sheet(report: AuditReport, per_trigger: int = 6) -> Figure:
    """Draw each trigger: its pixels, enlarged, and patches that hold it, with its place outlined.

    Raises:
        ValueError: no trigger was found.
    """
    if not report.triggers:
        raise ValueError("no trigger to show")
    figure, axes = _grid(len(report.triggers), per_trigger + 1)
    for line, mark in zip(axes, report.triggers, strict=True):
        pattern = np.where(mark.mask[..., None], mark.pattern, 127).astype(np.uint8)
        _show(line[0], pattern, f"pixels, {mark.mask.shape[0]}×{mark.mask.shape[1]}")
        patches = mark.patches[:per_trigger]
        for place, patch, (y, x), pixels in zip(
            line[1:], patches, mark.places.tolist(), report.scan.read(patches), strict=False
        ):
            _show(place, pixels, _name(report, patch))
            _outline(place, y, x, *mark.mask.shape)
    return figure


def _grid(rows: int, columns: int, extra: float = 0.2) -> tuple[Figure, NDArray[np.object_]]:
    import matplotlib.pyplot as plt

    size = (columns * _INCH + 0.3, rows * (_INCH + extra))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(h_pad=extra / 4)
    for place in axes.flat:
        place.set(xticks=[], yticks=[])
        place.spines[:].set_visible(False)
    return figure, axes


def _show(place: Axes, pixels: NDArray[np.uint8], title: str) -> None:
    place.imshow(pixels, interpolation="nearest")
    place.spines[:].set(visible=True, linewidth=0.5, color="#999999")  # or a white patch would be nothing
    place.set_title(title, fontsize=6.5, pad=2)


def _outline(place: Axes, y: float, x: float, height: float, width: float) -> None:
    from matplotlib.patches import Rectangle

    place.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, edgecolor=SHARED, linewidth=1.5))


def _name(report: AuditReport, patch: int | np.integer) -> str:
    label = {0: "normal", 1: "tumour"}.get(int(report.scan.label[patch]), "no label")
    return f"{report.scan.name(int(patch))} {report.scan.index[patch]}, {label}"


def _relation(report: AuditReport, issue: str, a: int, b: int, score: float) -> str:
    if issue == "pixel_overlap":
        shift = _shift(report, a, b)
        return f"shift {shift[0]}, {shift[1]} px" if shift else f"shares {score:.0%}"
    if issue == "symmetry_duplicate":
        rows = report.symmetries
        which = rows[(rows[:, 0] == a) & (rows[:, 1] == b), 2]
        return SYMMETRIES[int(which[0])] if len(which) else "turned"
    return f"correlation {score:.3f}" if issue == "near_duplicate" else "the same bytes"


def _shift(report: AuditReport, a: int, b: int) -> tuple[int, int] | None:
    """The shift (dy, dx) of a pair; None for a copy of one that was compared."""
    found = report.overlaps
    row = np.flatnonzero((found.pairs == (a, b)).all(axis=1))
    return (int(found.dy[row[0]]), int(found.dx[row[0]])) if len(row) else None


def _boxes(report: AuditReport, issue: str, patch: int) -> list[tuple[float, float, float, float]]:
    """Where an issue of a part of a patch lies in it: top, left, height, width; none for what fills it."""
    if issue in ("nan", "out_of_range"):
        return [_around(_broken(report, patch))]
    marks = report.triggers if issue == "trigger" else ()
    places = [(mark.mask.shape, place) for mark in marks for place in mark.places[mark.patches == patch].tolist()]
    return [(y, x, height, width) for (height, width), (y, x) in places]


def _around(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    y, x = np.nonzero(mask)
    return float(y.min()), float(x.min()), float(np.ptp(y)) + 1, float(np.ptp(x)) + 1


def _broken(report: AuditReport, patch: int) -> NDArray[np.bool_]:
    """bool (96, 96): pixels with a value that is NaN or out of range."""
    split = report.scan.splits[int(report.scan.split[patch])]
    raw = split.read_raw([int(report.scan.index[patch])])[0]
    with np.errstate(invalid="ignore"):
        return np.asarray((~(raw >= 0) | (raw > 255)).any(axis=-1))
