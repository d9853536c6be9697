"""A file's size is the product of its terms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tissue import textured, write_folder

from pcam.audit.storage import StorageTerms, explain
from pcam.data.format import open_split

FORMS = {
    "uint8 contiguous": (np.uint8, {}),
    "float32 contiguous": (np.float32, {}),
    "uint8 gzip": (np.uint8, {"chunks": (4, 96, 96, 3), "compression": "gzip"}),
    "padded last chunk": (np.uint8, {"chunks": (8, 96, 96, 3)}),
}


@pytest.mark.parametrize("form", FORMS)
def test_terms_multiply_to_the_file(form: str, tmp_path: Path) -> None:
    dtype, storage = FORMS[form]
    write_folder(tmp_path, {"train": textured(10).astype(dtype)}, **storage)
    terms = explain(open_split(tmp_path, "train"))
    assert terms.logical_bytes == 10 * 27648 * np.dtype(dtype).itemsize
    assert terms.stored_bytes + terms.other_bytes == terms.file_bytes
    assert np.prod(list(terms.factors.values())) == pytest.approx(terms.file_bytes / terms.public_bytes)
    expected = {"uint8 gzip": terms.storage_factor < 1, "padded last chunk": terms.storage_factor == 1.6}
    assert expected.get(form, terms.storage_factor == 1)


def test_the_course_copys_mystery() -> None:
    # 157,286 patches as float32, contiguous: the size that the journals could not explain.
    terms = StorageTerms(
        "train", 157_286, 27_648, "float32", 4, 17_394_573_312, 17_394_573_312, 17_394_575_360, None, None
    )
    assert terms.n * terms.values_per_patch * terms.bytes_per_value == terms.logical_bytes
    assert terms.factors["bytes per value"] == 4
    assert terms.factors["patches"] == pytest.approx(0.6, abs=1e-4)
