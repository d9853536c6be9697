"""Freed memory stays with a process that has built a network, and can be given back."""

import subprocess
import sys

import pytest

from pcam.models.memory import keep_freed_memory

_COUNT = """
import resource, sys
import torch
from pcam.config import ModelConfig
from pcam.models import build
from pcam.models.memory import give_back_freed_memory

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(24, 2**20)  # 96 MiB, freed at once
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / times

torch.set_num_threads(1)
faults(1)
plain = faults(5)
build(ModelConfig(name="mlp"))
faults(12)  # until a free block is large and lies well
kept = faults(5)
give_back_freed_memory()
print(plain, kept, faults(1))
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="this system's C library has no mallopt")
def test_freed_blocks_are_used_again_once_a_network_is_built() -> None:
    said = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, check=True).stdout
    plain, kept, given_back = map(float, said.split())
    assert kept < plain / 10
    assert given_back > plain / 2
