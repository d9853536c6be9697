"""The orbit key is equal for the eight forms of a patch and for nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from tissue import textured

from pcam.audit.scan import pack
from pcam.audit.symmetry import SYMMETRIES, apply, orbit_key, relation


@pytest.mark.parametrize("symmetry", range(8), ids=SYMMETRIES)
def test_key_and_relation_of_each_form(symmetry: int) -> None:
    patch = textured(1)[0]
    turned = np.ascontiguousarray(apply(patch, symmetry))
    keys = orbit_key(pack(np.stack([patch, turned])))
    assert keys[0] == keys[1]
    assert relation(patch, turned) == symmetry


def test_forms_are_all_different() -> None:
    patch = textured(1)[0]
    assert len({apply(patch, k).tobytes() for k in range(8)}) == 8


def test_key_feels_one_grey_level_and_one_exchange() -> None:
    patch = textured(1)[0]
    brighter, exchanged = patch.copy(), patch.copy()
    brighter[10, 20, 1] ^= 1
    exchanged[[3, 50]] = exchanged[[50, 3]]
    keys = orbit_key(pack(np.stack([patch, brighter, exchanged])))
    assert len(set(keys.tolist())) == 3
    assert relation(patch, brighter) is None


def test_half_a_flip_is_no_symmetry() -> None:
    # The key alone is fooled by it; that is why a pair is read again before it is listed.
    patch = textured(1)[0]
    half = patch.copy()
    half[:, :48] = half[::-1, :48]
    half[:, 48:] = patch[:, 48:]
    assert relation(patch, half) is None
