"""Changed copies of a data folder: whole, in the contract's form, and of the same kind as their source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pcam.data.copies import write_copy
from pcam.data.format import data_kind, open_split, validate


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_copy_keeps_the_contract_and_its_kind(tiny: Path, tmp_path: Path, dtype: type) -> None:
    split = open_split(tiny, "test")
    assert split.labels is not None
    write_copy(tiny, tmp_path, {"test": split.read(slice(None)).astype(dtype)}, {"test": split.labels})
    assert validate(tmp_path, "test") == []
    assert open_split(tmp_path, "test").fingerprint() == split.fingerprint()
    assert data_kind(tmp_path) == "synthetic"
