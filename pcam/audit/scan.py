"""One streaming pass over the patches: every fact that the audit's questions are then answered from.

Reading is the expensive part (the public training split is 7 GB), so each block of patches is read once and left
behind as a few hundred bytes a patch: flags for broken values, a hash of the bytes, a hash that the eight symmetries
of the square do not change, low spatial frequencies, anchors (hashes of small windows, for pixel overlap) and colour
features. All splits share one numbering, so that a pair within a split and a pair across splits are found alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pcam.audit import anchors, near, symmetry
from pcam.audit.appearance import appearance_features, luminance, planes
from pcam.data.format import PATCH_SHAPE, Split, open_split
from pcam.data.hdf5 import damaged
from pcam.errors import DataError

BLOCK = 128  # patches: 3.5 MB of pixels; the intermediate arrays of a block then stay near the caches
_THREADS = 2
_VALUES = int(np.prod(PATCH_SHAPE))


@dataclass(frozen=True, eq=False)
class Facts:
    """Facts of B patches; concatenated over blocks and splits.

    Attributes:
        nan: float32 (B,), share of the patch's values that are NaN.
        outside: float32 (B,), share that is below 0 or above 255.
        fractional: float32 (B,), share that is inside the range but not an integer.
        black: bool (B,), every value is 0.
        white: bool (B,), every value is 255.
        blank: bool (B,), as uint8, every pixel has the same colour.
        digest: S32 (B,), SHA-256 of the patch as uint8.
        orbit_key: uint64 (B,), equal for a patch and its rotations and flips.
        spectrum: float32 (B, K, K), low-frequency cosine coefficients of the grey patch.
        features: float32 (B, F), colour and texture of the whole patch and of its centre.
    """

    nan: NDArray[np.float32]
    outside: NDArray[np.float32]
    fractional: NDArray[np.float32]
    black: NDArray[np.bool_]
    white: NDArray[np.bool_]
    blank: NDArray[np.bool_]
    digest: NDArray[np.bytes_]
    orbit_key: NDArray[np.uint64]
    spectrum: NDArray[np.float32]
    features: NDArray[np.float32]

    @property
    def constant(self) -> NDArray[np.bool_]:
        """bool (B,): every pixel has the same colour (black and white included), and no value is broken."""
        return self.blank & (self.nan == 0) & (self.outside == 0)

    @property
    def damaged(self) -> NDArray[np.bool_]:
        """bool (B,): the values themselves are broken, so that nothing is to be learned from the picture."""
        return self.blank | (self.nan > 0) | (self.outside > 0)


@dataclass(frozen=True, eq=False)
class Scan:
    """What one pass over the splits of a folder found; patches are numbered 0 … N-1 through all splits.

    Attributes:
        splits: the opened splits, in the order of the numbering.
        split: int (N,), position in `splits` of each patch.
        index: int64 (N,), index of each patch in its split.
        label: int8 (N,), 0 or 1; -1 where the split has no labels.
        facts: `Facts` of all N patches.
        anchors: the anchors of all N patches.
    """

    splits: tuple[Split, ...]
    split: NDArray[np.int64]
    index: NDArray[np.int64]
    label: NDArray[np.int8]
    facts: Facts
    anchors: anchors.Anchors

    def __len__(self) -> int:
        return len(self.split)

    def name(self, patch: int) -> str:
        """The name of the split that a patch is in."""
        return self.splits[int(self.split[patch])].name

    def read(self, patches: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Read patches (B,) by their number as uint8 (B, 96, 96, 3); broken values become 0 or 255."""
        wanted = np.asarray(patches, dtype=np.int64)
        out = np.empty((len(wanted), *PATCH_SHAPE), dtype=np.uint8)
        for number, split in enumerate(self.splits):
            here = np.flatnonzero(self.split[wanted] == number)
            here = here[np.argsort(self.index[wanted[here]], kind="stable")]
            index = self.index[wanted[here]]
            # A chunk is read and inflated as a whole, so all that is wanted of it is taken at once.
            chunk = index // (split.x.chunks[0] if split.x.chunks else 1)
            for places in np.split(np.arange(len(here)), np.flatnonzero(np.diff(chunk)) + 1) if len(here) else ():
                low, high = index[places[0]], index[places[-1]] + 1
                out[here[places]] = as_bytes(split.read_raw(slice(low, high)))[index[places] - low]
        return out


def as_bytes(raw: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return stored values as uint8: NaN becomes 0, the rest is clipped to 0..255 and rounded."""
    if raw.dtype == np.uint8:
        return np.asarray(raw, dtype=np.uint8)
    return np.rint(np.clip(np.nan_to_num(raw.astype(np.float64), nan=0.0), 0, 255)).astype(np.uint8)


def scan(directory: Path | str, splits: Sequence[str], *, progress: bool = False) -> Scan:
    """Read every patch of the named splits once.

    Args:
        directory: the data folder.
        splits: names of the splits, in the order in which their patches are numbered.
        progress: show a progress bar.

    Raises:
        DataError: a split breaks the contract otherwise than by its pixel values, or cannot be read to its end.
    """
    opened = tuple(open_split(directory, name) for name in splits)
    facts: list[Facts] = []
    found: list[anchors.Anchors] = []
    offset = 0
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(total=sum(map(len, opened)), desc="read", unit="patch", disable=not progress, dynamic_ncols=True) as bar,
    ):
        for split in opened:
            starts = range(0, len(split), BLOCK)
            for block, block_anchors in pool.map(lambda start, split=split: _block(split, start), starts):
                facts.append(block)
                found.append(block_anchors.shifted(offset))
                offset += len(block.black)
                bar.update(len(block.black))
    lengths = [len(split) for split in opened]
    labels = [np.full(len(s), -1, np.int8) if s.labels is None else s.labels.astype(np.int8) for s in opened]
    return Scan(
        splits=opened,
        split=np.repeat(np.arange(len(opened)), lengths),
        index=np.concatenate([np.arange(n) for n in lengths]),
        label=np.concatenate(labels),
        facts=Facts(*(np.concatenate([getattr(f, field.name) for f in facts]) for field in fields(Facts))),
        anchors=anchors.concatenate(found),
    )


def _block(split: Split, start: int) -> tuple[Facts, anchors.Anchors]:
    raw = read_block(split, start)
    patches = as_bytes(raw)
    nan, outside, fractional = _broken_values(raw)
    rows = patches.reshape(len(patches), -1)
    pixels = pack(patches)
    blank = (pixels == pixels[:, :1, :1]).all(axis=(1, 2))
    sound = blank & (nan == 0) & (outside == 0)
    colour = planes(patches)
    grey = luminance(colour)
    facts = Facts(
        nan=nan,
        outside=outside,
        fractional=fractional,
        black=sound & (rows[:, :3] == 0).all(axis=1),
        white=sound & (rows[:, :3] == 255).all(axis=1),
        blank=blank,
        digest=digest(patches),
        orbit_key=symmetry.orbit_key(pixels),
        spectrum=near.spectrum(grey),
        features=appearance_features(colour, grey),
    )
    return facts, anchors.find(pixels)


def read_block(split: Split, start: int) -> NDArray[np.generic]:
    """Return up to `BLOCK` patches (B, 96, 96, 3) from `start` on, in the stored dtype, not to be written to.

    Raises:
        DataError: a part of the file is damaged.
    """
    x = split.x
    offset = None if x.chunks or x.compression or x.external else x.id.get_offset()
    if offset is None:
        return split.read_raw(slice(start, start + BLOCK))
    # Contiguous values are mapped: no copy, and the threads do not wait for HDF5's one lock.
    count = min(BLOCK, len(split) - start)
    place = offset + start * x.dtype.itemsize * _VALUES
    try:
        return np.asarray(np.memmap(x.file.filename, x.dtype, "r", place, (count, *PATCH_SHAPE)))
    except ValueError as error:  # the file has become shorter than it was when it was opened
        raise DataError(str(damaged(Path(x.file.filename), "x", start))) from error


def digest(patches: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Return the SHA-256 S32 (B,) of uint8 patches (B, 96, 96, 3): equal for exact copies, and for nothing else.

    A hash that cannot collide, by chance or on purpose, needs no second look at the patches. Python computes it outside
    of its lock, so two threads do it twice as fast.
    """
    rows = np.ascontiguousarray(patches).reshape(len(patches), -1)
    return np.array([hashlib.sha256(row.data).digest() for row in rows], dtype="S32")


def pack(patches: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Pack uint8 (B, 96, 96, 3) into one uint32 a pixel (B, 96, 96)."""
    padded = np.zeros((*patches.shape[:3], 4), dtype=np.uint8)
    padded[..., :3] = patches
    return padded.view(np.uint32)[..., 0]


def _broken_values(raw: NDArray[np.generic]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Shares (B,) of values that are NaN, out of 0..255, and fractional."""
    rows = raw.reshape(len(raw), -1)
    none = np.zeros(len(rows), dtype=np.float32)
    if raw.dtype == np.uint8:
        return none, none, none
    nan = np.isnan(rows) if raw.dtype.kind == "f" else np.zeros(rows.shape, dtype=bool)
    with np.errstate(invalid="ignore"):
        outside = (rows < 0) | (rows > 255)  # type: ignore[operator]
        fractional = ~nan & ~outside & (rows != np.rint(rows.astype(np.float64)))
    return (
        nan.mean(axis=1, dtype=np.float32),
        outside.mean(axis=1, dtype=np.float32),
        fractional.mean(axis=1, dtype=np.float32),
    )
