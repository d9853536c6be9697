"""The size mystery: a file's bytes as a product of terms, each set against the public record.

    bytes = N × (96·96·3) × bytes per value × storage + the rest of the file

`storage` is what chunking and compression leave of the logical bytes (1 for a plain array); the rest is HDF5's own
book-keeping. The public record holds uint8, so a copy is larger or smaller than the public split by the product of
its factors, and the factors say why.
"""

from __future__ import annotations

from dataclasses import dataclass

from pcam.data.format import PATCH_SHAPE, Split, split_path

VALUES = PATCH_SHAPE[0] * PATCH_SHAPE[1] * PATCH_SHAPE[2]
# Patches per split and bytes per value of the public record (Zenodo 2546921, Veeling et al. 2018).
PUBLIC_PATCHES = {"train": 262_144, "valid": 32_768, "test": 32_768}
PUBLIC_BYTES_PER_VALUE = 1


@dataclass(frozen=True)
class StorageTerms:
    """The terms of one file's size.

    Attributes:
        split: name of the split.
        n: number of patches N.
        values_per_patch: 96·96·3.
        dtype: the stored type.
        bytes_per_value: its size.
        logical_bytes: N × values × bytes per value.
        stored_bytes: bytes that the dataset takes in the file.
        file_bytes: bytes of the whole file.
        chunks: patches per chunk and the rest of the chunk's shape, or None where the data are contiguous.
        compression: name of the filter, or None.
    """

    split: str
    n: int
    values_per_patch: int
    dtype: str
    bytes_per_value: int
    logical_bytes: int
    stored_bytes: int
    file_bytes: int
    chunks: tuple[int, ...] | None
    compression: str | None

    @property
    def storage_factor(self) -> float:
        """Stored bytes per logical byte: below 1 by compression, above 1 by padding of the last chunk."""
        return self.stored_bytes / self.logical_bytes

    @property
    def other_bytes(self) -> int:
        """Bytes of the file that hold no patch: HDF5's header and index."""
        return self.file_bytes - self.stored_bytes

    @property
    def public_bytes(self) -> int:
        """Bytes of the public split's patches as plain uint8."""
        return PUBLIC_PATCHES[self.split] * VALUES * PUBLIC_BYTES_PER_VALUE

    @property
    def factors(self) -> dict[str, float]:
        """What the file's size over `public_bytes` is the product of."""
        return {
            "patches": self.n / PUBLIC_PATCHES[self.split],
            "bytes per value": self.bytes_per_value / PUBLIC_BYTES_PER_VALUE,
            "storage": self.storage_factor,
            "other": self.file_bytes / self.stored_bytes,
        }


def explain(split: Split) -> StorageTerms:
    """Decompose the size of a split's `x` file."""
    x = split.x
    return StorageTerms(
        split=split.name,
        n=len(split),
        values_per_patch=VALUES,
        dtype=str(x.dtype),
        bytes_per_value=x.dtype.itemsize,
        logical_bytes=x.size * x.dtype.itemsize,
        stored_bytes=int(x.id.get_storage_size()),
        file_bytes=split_path(split.directory, split.name, "x").stat().st_size,
        chunks=x.chunks,
        compression=x.compression,
    )
