"""Where chance can enter this pipeline, how each way in is closed, and the test that proves it.

The table is checked as it is made: a test that is named and not there is said to be missing.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from pcam.config import project_root


@dataclass(frozen=True)
class Source:
    """One source of non-determinism.

    Attributes:
        name: the source.
        control: how it is controlled here.
        tests: `file::function` of the tests that prove it, below `tests/`; none: not proved.
        unproved: what they leave open, if anything.
    """

    name: str
    control: str
    tests: tuple[str, ...]
    unproved: str = ""

    def missing_tests(self, folder: Path) -> list[str]:
        """Return those of its tests that are not in the folder."""
        return [test for test in self.tests if not _has_test(folder, test)]

    def verdict(self, folder: Path | None = None) -> str:
        """Return "tested", "in part: …", "stated, not tested", or which test the folder (default: tests/) lacks."""
        if not self.tests:
            return "stated, not tested"
        missing = self.missing_tests(folder or project_root() / "tests")
        if missing:
            return f"missing: {', '.join(missing)}"
        return f"in part: {self.unproved}" if self.unproved else "tested"


SOURCES = (
    Source(
        "initialisation of the weights",
        "torch seeded before the model is built",
        ("test_models.py::test_same_seed_same_weights", "test_training.py::test_each_control_matters"),
    ),
    Source(
        "sampling and shuffling",
        "the order is a pure function of (seed, epoch)",
        ("test_loader.py::test_order_is_pure_and_knows_seed_and_epoch",),
    ),
    Source(
        "augmentation",
        "a generator of its own for every (seed, epoch, step)",
        ("test_augment.py::test_same_generator_same_change_other_step_other_change",),
    ),
    Source(
        "worker processes",
        "workers read, they draw nothing; batches keep their order",
        ("test_loader.py::test_same_batches_with_any_number_of_workers",),
    ),
    Source(
        "library generators (Python, NumPy, torch, CUDA)",
        "seeded by one call, saved in every checkpoint",
        ("test_seeds.py::test_every_generator_is_seeded", "test_seeds.py::test_states_go_through_a_weights_only_file"),
    ),
    Source(
        "what ran before in the process",
        "switches set for the run and put back; generators seeded anew",
        (
            "test_training.py::test_twin_ends_in_the_same_bits",
            "test_seeds.py::test_switches_are_put_back_after_an_error",
            "test_seeds.py::test_products_are_float32_whatever_was_set_before",
        ),
    ),
    Source(
        "interruption",
        "all state is in the checkpoint",
        (
            "test_training.py::test_interrupted_after_any_step_ends_in_the_same_bits",
            "faults/test_kill.py::test_killed_anywhere_ends_in_the_same_bits",
        ),
    ),
    Source(
        "GPU kernels",
        "deterministic algorithms, fixed cuBLAS workspace, no cuDNN benchmark",
        ("test_seeds.py::test_switches_are_set_recorded_and_put_back",),
        "the switches are tested, the bits that a GPU gives are not",
    ),
    Source(
        "floating-point order (CPU threads)",
        "the number of threads is set, or recorded in the run",
        ("test_seeds.py::test_switches_are_set_recorded_and_put_back",),
    ),
    Source(
        "several processes",
        "each takes its rows of the same batches; sums over all of them",
        ("test_distributed.py::test_two_processes_have_the_loss_curve_of_one",),
    ),
    Source("hardware and library versions", "not controlled: recorded in the run, versions pinned by a lock", ()),
)


def _has_test(folder: Path, test: str) -> bool:
    name, _, function = test.partition("::")
    path = folder / name
    if not path.exists():
        return False
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in ast.walk(tree))
