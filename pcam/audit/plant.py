"""Plant named defects into a copy of real patches, with the truth beside them: how good the audit is can be measured.

The checks are only worth what they find, and a clean folder shows nothing. So a copy is made in which chosen patches
are damaged, copied, turned, re-encoded, shifted or marked, each patch at most once, and the truth is kept. The copy
is written in the PCam format, as uint8 unless a planted value needs float32.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcam.audit import symmetry
from pcam.audit.report import AuditReport
from pcam.data.copies import write_copy
from pcam.data.format import PATCH_SHAPE, available_splits, open_split
from pcam.errors import DataError, did_you_mean

# What each defect should be found as.
ISSUE_OF: Mapping[str, str] = {
    "black": "black",
    "white": "white",
    "constant": "constant",
    "nan": "nan",
    "out_of_range": "out_of_range",
    "exact": "exact_duplicate",
    "symmetric": "symmetry_duplicate",
    "jpeg": "near_duplicate",
    "noise": "near_duplicate",
    "restained": "near_duplicate",
    "overlap": "pixel_overlap",
    "trigger": "trigger",
    "flipped_label": "label_suspect",
}
# A mixture in which each defect is frequent enough to be counted, and most patches stay as they are.
SHARES: Mapping[str, float] = {
    "black": 0.01,
    "white": 0.01,
    "constant": 0.01,
    "nan": 0.01,
    "out_of_range": 0.01,
    "exact": 0.02,
    "symmetric": 0.02,
    "jpeg": 0.02,
    "noise": 0.02,
    "restained": 0.02,
    "overlap": 0.03,
    "trigger": 0.03,
    "flipped_label": 0.03,
}
_PAIRED = ("exact", "symmetric", "jpeg", "noise", "restained", "overlap")
_SIDE = PATCH_SHAPE[0]
_FARTHEST = 64  # pixels: a 32×32 corner remains in common
_TRIGGER_SIDE = 4
_MOSTLY = 0.5


@dataclass(frozen=True)
class Planted:
    """One planted defect: `patch` is (split, index); `partner` its source where it is a pair."""

    defect: str
    patch: tuple[str, int]
    partner: tuple[str, int] | None = None

    @property
    def issue(self) -> str:
        """The issue that the audit should report."""
        return ISSUE_OF[self.defect]


@dataclass(frozen=True)
class Score:
    """How an audit did on one defect: `found` of `planted`, and `right` of `listed` rows of its issue."""

    defect: str
    planted: int
    found: int
    listed: int
    right: int

    @property
    def recall(self) -> float:
        """found / planted."""
        return self.found / self.planted

    @property
    def precision(self) -> float | None:
        """right / listed; None where nothing is listed."""
        return self.right / self.listed if self.listed else None


def plant(
    directory: Path | str, out: Path | str, shares: Mapping[str, float], *, seed: int = 0, limit: int | None = None
) -> list[Planted]:
    """Write a copy of a data folder with defects in it.

    Args:
        directory: the folder to copy; its integrity is taken for granted.
        out: the folder to write into.
        shares: share of all patches (0..1) that each defect takes; see `ISSUE_OF` for the names. Triggers go to
            patches of label 1.
        seed: seed of every choice.
        limit: the most patches that are copied of each split.

    Returns:
        The truth.

    Raises:
        DataError: unknown defect, no such folder, too few patches, or a split without labels.
    """
    for name in shares:
        if name not in ISSUE_OF:
            raise DataError(f"unknown defect '{name}'{did_you_mean(name, ISSUE_OF)}")
    rng = np.random.default_rng(seed)
    pixels: dict[str, NDArray[np.uint8]] = {}
    label: dict[str, NDArray[np.uint8]] = {}
    for name in available_splits(directory):
        split = open_split(directory, name)
        n = min(len(split), limit or len(split))
        if split.labels is None:
            raise DataError(f"{directory}: split '{name}' has no labels; defects are planted per class")
        pixels[name], label[name] = split.read(slice(0, n)), split.labels[:n].copy()
    places = [(name, index) for name in pixels for index in range(len(pixels[name]))]
    free = [places[k] for k in rng.permutation(len(places))]
    truth: list[Planted] = []
    spoilt: dict[tuple[str, int], float] = {}
    originals = {name: array.copy() for name, array in pixels.items()}
    for defect, share in shares.items():
        for _ in range(round(share * len(places))):
            source = _take(free, label, 1 if defect == "trigger" else None, defect)
            if defect in _PAIRED:
                copy = _take(free, label, None, defect)
                filler = [originals[s][i] for s, i in (places[k] for k in rng.integers(0, len(places), 2))]
                pixels[copy[0]][copy[1]] = altered(defect, pixels[source[0]][source[1]], filler, rng)
                label[copy[0]][copy[1]] = label[source[0]][source[1]]
                truth.append(Planted(defect, copy, source))
                continue
            truth.append(Planted(defect, source))
            if defect == "flipped_label":
                label[source[0]][source[1]] ^= 1
            elif defect in ("nan", "out_of_range"):
                spoilt[source] = np.nan if defect == "nan" else 1e5
            else:
                _damage(defect, pixels[source[0]][source[1]], rng)
    write_copy(directory, out, _stored(pixels, spoilt, rng), label)
    return truth


def score(report: AuditReport, truth: list[Planted]) -> list[Score]:
    """Compare an audit with the truth.

    A listed row is right if it was planted. A pair that shares pixels may also be native to the source: it is right if
    at least half of the pixels in the common region are equal, which is looked up in the patches. Label suspects are a
    ranking and are left out; see `first_places`.
    """
    names = {split.name: number for number, split in enumerate(report.scan.splits)}
    start = np.concatenate([[0], np.cumsum([len(split) for split in report.scan.splits])])
    results = []
    for defect in dict.fromkeys(row.defect for row in truth if row.issue != "label_suspect"):
        rows = report.findings.of(ISSUE_OF[defect])
        listed = {tuple(sorted((a, b))) for a, b in zip(rows.patch.tolist(), rows.partner.tolist(), strict=True)}
        wanted, known = set(), set()
        for row in truth:
            numbers = [start[names[s]] + i for s, i in (row.patch, *([row.partner] if row.partner else []))]
            key = tuple(sorted(numbers if len(numbers) == 2 else [*numbers, -1]))
            known |= {key} if row.issue == ISSUE_OF[defect] else set()
            wanted |= {key} if row.defect == defect else set()
        right = listed & known
        if defect == "overlap":
            right |= {pair for pair in listed - known if _equal_share(report, *pair) >= _MOSTLY}
        results.append(Score(defect, len(wanted), len(wanted & listed), len(listed), len(right)))
    return results


def first_places(report: AuditReport, truth: list[Planted], times: float = 2.0) -> tuple[float, int]:
    """Return the share of flipped labels within the first places of the suspects' ranking, and how many there are.

    Args:
        report: the audit of the planted copy.
        truth: what was planted.
        times: how many places count, as a multiple of the number of flipped labels.
    """
    wrong = {row.patch for row in truth if row.issue == "label_suspect"}
    rows = report.findings.of("label_suspect")
    ranking = rows.patch[np.argsort(-rows.score, kind="stable")][: round(times * len(wrong))]
    found = {(report.scan.name(patch), int(report.scan.index[patch])) for patch in ranking.tolist()}
    return len(wrong & found) / len(wrong), len(wrong)


def _equal_share(report: AuditReport, first: int, second: int) -> float:
    """Share of equal pixels in the region that two patches have in common at the shift that the audit reports."""
    row = np.flatnonzero((report.overlaps.pairs == (first, second)).all(axis=1))
    if not len(row):
        return 0.0
    dy, dx = int(report.overlaps.dy[row[0]]), int(report.overlaps.dx[row[0]])
    (y, x), height, width = (max(0, dy), max(0, dx)), _SIDE - abs(dy), _SIDE - abs(dx)
    one, other = report.scan.read([first, second])
    same = one[y : y + height, x : x + width] == other[y - dy : y - dy + height, x - dx : x - dx + width]
    return float(same.all(axis=2).mean())


def _take(
    free: list[tuple[str, int]], label: Mapping[str, NDArray[np.uint8]], wanted: int | None, defect: str
) -> tuple[str, int]:
    for place, (split, index) in enumerate(free):
        if wanted is None or label[split][index] == wanted:
            return free.pop(place)
    raise DataError(f"defect '{defect}': too few patches to plant it in; copy more or plant less")


def altered(
    defect: str, patch: NDArray[np.uint8], filler: list[NDArray[np.uint8]], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return a patch (96, 96, 3) as its copy would be: one of the paired defects; `filler` is tissue for an overlap."""
    if defect == "symmetric":
        return np.asarray(symmetry.apply(patch, int(rng.integers(1, 8))))
    if defect == "jpeg":
        return _jpeg(patch, 70)
    if defect == "noise":
        gain = rng.choice([0.92, 1.08])
        return _to_bytes(patch * gain + rng.normal(0, 3, patch.shape))
    if defect == "restained":
        turned = symmetry.apply(patch, int(rng.integers(1, 8))).astype(np.float64)
        return _jpeg(_to_bytes(turned * rng.uniform(0.9, 1.1, 3)), 60)
    if defect == "overlap":
        dy, dx = _shift(rng)
        # New tissue for the rest: a blend of two mirrored patches holds no window of either.
        moved = _to_bytes(0.5 * filler[0][::-1] + 0.5 * filler[1][:, ::-1])
        y, x = max(0, dy), max(0, dx)
        height, width = _SIDE - abs(dy), _SIDE - abs(dx)
        moved[y - dy : y - dy + height, x - dx : x - dx + width] = patch[y : y + height, x : x + width]
        return moved
    return patch.copy()


def _shift(rng: np.random.Generator) -> tuple[int, int]:
    while True:
        dy, dx = rng.integers(-_FARTHEST, _FARTHEST + 1, 2).tolist()
        if max(abs(dy), abs(dx)) >= 8:  # less is rather a near duplicate
            return dy, dx


def _to_bytes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _jpeg(patch: NDArray[np.generic], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(patch, dtype=np.uint8)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer), dtype=np.uint8)


def _damage(defect: str, patch: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Spoil a patch in place."""
    if defect == "trigger":
        checks = np.indices((_TRIGGER_SIDE, _TRIGGER_SIDE)).sum(axis=0) % 2
        patch[-_TRIGGER_SIDE:, -_TRIGGER_SIDE:] = (checks * 255)[..., None]
    else:
        patch[:] = {"black": 0, "white": 255}.get(defect, rng.integers(40, 215, 3))


def _stored(
    pixels: Mapping[str, NDArray[np.uint8]], spoilt: Mapping[tuple[str, int], float], rng: np.random.Generator
) -> dict[str, NDArray[np.generic]]:
    """Return the patches by split, as float32 where some get a block of a value that no byte can hold."""
    stored: dict[str, NDArray[np.generic]] = {}
    for name, array in pixels.items():
        stored[name] = array.astype(np.float32) if any(split == name for split, _ in spoilt) else array
    for (name, index), value in spoilt.items():
        y, x = rng.integers(0, _SIDE - 5, 2)
        stored[name][index, y : y + 5, x : x + 5] = value
    return stored
