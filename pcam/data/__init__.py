"""PatchCamelyon data: the contract, the public record, packing, the synthetic sample and the loader."""

from pcam.data.format import (
    PATCH_SHAPE,
    SPLITS,
    Fault,
    Split,
    available_splits,
    data_kind,
    open_split,
    split_path,
    validate,
)

__all__ = [
    "PATCH_SHAPE",
    "SPLITS",
    "Fault",
    "Split",
    "available_splits",
    "data_kind",
    "open_split",
    "split_path",
    "validate",
]
