"""Two runs side by side: what differs in their configurations, and what in their results; and has the ground moved?"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, Strict

from pcam.config import Config, config_leaves
from pcam.training.runs import Run

RESULTS = ("train_loss", "valid_loss", "valid_auc", "valid_accuracy")


@dataclass(frozen=True)
class Difference:
    """One value that is not the same in two places.

    Attributes:
        key: its name, such as "train.lr".
        first, second: its value in each.
    """

    key: str
    first: Any
    second: Any

    @property
    def change(self) -> float | None:
        """`second - first` for two numbers, else None."""
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (self.first, self.second))
        return self.second - self.first if numbers else None


@dataclass(frozen=True)
class Leaf:
    """One parameter of the configuration.

    Attributes:
        key: such as "train.lr".
        type: as it is declared, or the words that are allowed.
        default: its value where nothing else is said.
        choices: the allowed words, if it is a choice.
        limits: bounds of a number.
        meaning: what it does.
    """

    key: str
    type: str
    default: Any
    choices: tuple[str, ...]
    limits: str
    meaning: str


def config_difference(first: Config, second: Config) -> list[Difference]:
    """Return the leaves in which two configurations differ, in the order of the fields."""
    other = config_leaves(second)
    return [Difference(key, value, other[key]) for key, value in config_leaves(first).items() if value != other[key]]


def result_difference(first: Run, second: Run) -> list[Difference]:
    """Return the final results of two completed runs, whether they differ or not."""
    return [Difference(name, first.final[name], second.final[name]) for name in RESULTS]


def parameters(section: type[BaseModel] = Config, prefix: str = "") -> list[Leaf]:
    """Return every parameter of the configuration as its one place, `pcam/config.py`, declares it."""
    leaves: list[Leaf] = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            leaves += parameters(kind, f"{prefix}{name}.")
            continue
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        name_of_type = kind.__name__ if isinstance(kind, type) else str(kind)
        limits = ", ".join(_limit(limit) for limit in field.metadata if not isinstance(limit, Strict))
        default = field.get_default(call_default_factory=True)
        type_name = " or ".join(choices) if choices else name_of_type
        leaves.append(Leaf(prefix + name, type_name, default, choices, limits, field.description or ""))
    return leaves


def _limit(limit: object) -> str:
    signs = {"Ge": "≥", "Gt": ">", "Le": "≤", "Lt": "<"}
    name = type(limit).__name__
    return f"{signs[name]} {getattr(limit, name.lower())}" if name in signs else str(limit)


def library_versions() -> dict[str, str]:
    """Return the installed versions of the packages that can move the bits of a model."""
    return {name: metadata.version(name) for name in ("torch", "numpy", "h5py")}


def changed_libraries(recorded: dict[str, str]) -> list[Difference]:
    """Return the packages whose version is not the one that a run recorded.

    Args:
        recorded: `environment["versions"]` of a run.
    """
    return [
        Difference(name, recorded.get(name), version)
        for name, version in library_versions().items()
        if recorded.get(name) != version
    ]
