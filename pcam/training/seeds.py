"""All that decides whether a run can be repeated, set by one call and recorded.

The promise: same packages, same kind of processor, same number of threads → the same bits. It needs every
generator seeded (Python, NumPy, torch, CUDA), deterministic algorithms, a fixed cuBLAS workspace (NVIDIA cuBLAS
documentation, "Results reproducibility") and a fixed number of threads, because floating-point sums
depend on their order. Data order and augmentation need no global state: they are pure functions of their seeds.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch.utils import deterministic

from pcam.errors import ConfigError

_MEMORY: Any = deterministic  # its switch is made at run time, where no type checker sees it
_BACKENDS: Any = torch.backends  # likewise
# Whoever lowers these for speed has float32 multiplied as bfloat16 or TF32, wherever the machine can.
_PRODUCTS = (_BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv, _BACKENDS.cuda.matmul)

Control = Literal["initialisation", "order", "augmentation", "library"]
CONTROLS: tuple[Control, ...] = ("initialisation", "order", "augmentation", "library")


@dataclass(frozen=True)
class Seeds:
    """The seed of each source of randomness.

    Attributes:
        initialisation: of the model's first weights.
        order: of the order of patches in each epoch.
        augmentation: of their random changes.
        library: of Python's, NumPy's and torch's own generators while training, such as dropout's.
        off: controls whose seed was drawn from the operating system: such a run cannot be repeated.
    """

    initialisation: int
    order: int
    augmentation: int
    library: int
    off: tuple[Control, ...] = ()

    @classmethod
    def of(cls, seed: int) -> Seeds:
        """Return the seeds of a repeatable run: all are the config's."""
        return cls(seed, seed, seed, seed)

    def switched_off(self, control: Control) -> Seeds:
        """Return these seeds with one control gone: its seed is drawn from the operating system."""
        chance = int.from_bytes(os.urandom(4), "little")
        return replace(self, **{control: chance}, off=(*self.off, control))


def choose_device(name: str) -> torch.device:
    """Return the device that `train.device` asks for; "auto" is a GPU where there is one.

    Raises:
        ConfigError: "cuda" is asked for and torch sees no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device is 'cuda' but torch sees no GPU here; use 'auto' or 'cpu'")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (CPU and every GPU)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def reproducible(seeds: Seeds, deterministic: bool, threads: int) -> Iterator[dict[str, Any]]:
    """Seed every generator and make torch repeatable inside the block; yield a record of what was set.

    The switches are put back afterwards, so that a run never depends on the one before it.

    Args:
        seeds: the generators start from `seeds.initialisation`, for the model that is built first.
        deterministic: only deterministic algorithms; an operation that has none raises an error.
        threads: CPU threads; 0 leaves torch's choice, which is recorded.
    """
    before = (
        torch.get_deterministic_debug_mode(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.get_num_threads(),
        _MEMORY.fill_uninitialized_memory,
        [products.fp32_precision for products in _PRODUCTS],
    )
    # Read by cuBLAS when it starts, so it is set whether or not this run uses a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The same switch as torch.use_deterministic_algorithms, which also loads the compiler: seconds, and unused here.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # Nothing here reads memory that it has not written; to fill all of it first takes 3 % of a step.
    _MEMORY.fill_uninitialized_memory = False
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    for products in _PRODUCTS:
        products.fp32_precision = "ieee"
    if threads:
        torch.set_num_threads(threads)
    seed_generators(seeds.initialisation)
    try:
        yield {
            "seeds": asdict(seeds),
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "float32_products": [products.fp32_precision for products in _PRODUCTS],
            "cublas_workspace": os.environ["CUBLAS_WORKSPACE_CONFIG"],
            "threads": torch.get_num_threads(),
        }
    finally:
        torch.set_deterministic_debug_mode(before[0])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[1:3]
        torch.set_num_threads(before[3])
        _MEMORY.fill_uninitialized_memory = before[4]
        for products, precision in zip(_PRODUCTS, before[5], strict=True):
            products.fp32_precision = precision


def generator_states() -> dict[str, Any]:
    """Return the state of every global generator, in types that `weights_only` loading admits."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        # This process's device only: of several processes the first one saves, and each has a device of its own.
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_generators(states: dict[str, Any]) -> None:
    """Put back what `generator_states` returned."""
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
