"""Search spaces: which keys of the config are searched, over which values, for each model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pcam.config import Config
from pcam.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Dimension:
    """One key of the config to search over.

    Attributes:
        key: such as "train.lr".
        low, high: range of a number.
        log: search evenly over orders of magnitude.
        choices: the values of a choice; no range then.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[int, ...] = ()

    @property
    def distribution(self) -> optuna.distributions.BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        return FloatDistribution(self.low, self.high, self.log)

    def suggest(self, trial: optuna.Trial) -> float | int:
        """Let the sampler choose a value."""
        if self.choices:
            return int(trial.suggest_categorical(self.key, self.choices))
        return float(trial.suggest_float(self.key, self.low, self.high, log=self.log))

    def __str__(self) -> str:
        if self.choices:
            return ", ".join(map(str, self.choices))
        return f"{self.low:g} to {self.high:g}{', log scale' if self.log else ''}"


SPACES: dict[str, tuple[Dimension, ...]] = {
    "mlp": (
        Dimension("train.lr", 1e-4, 1e-2, log=True),
        Dimension("train.weight_decay", 1e-4, 1e-1, log=True),
        Dimension("train.batch_size", choices=(32, 64, 128)),
        Dimension("model.hidden", choices=(32, 64, 128, 256)),
        Dimension("model.dropout", 0.0, 0.5),
    ),
    "cnn": (
        Dimension("train.lr", 3e-4, 1e-2, log=True),
        Dimension("train.weight_decay", 1e-4, 1e-1, log=True),
        Dimension("train.batch_size", choices=(32, 64, 128)),
        Dimension("model.width", choices=(16, 24, 32)),
        Dimension("model.dropout", 0.0, 0.5),
        Dimension("train.label_smoothing", 0.0, 0.1),
    ),
}


def search_space(config: Config) -> tuple[Dimension, ...]:
    """Return the search space of a config's model.

    Raises:
        ConfigError: there is none.
    """
    if config.model.name not in SPACES:
        raise ConfigError(f"no search space for model '{config.model.name}'{did_you_mean(config.model.name, SPACES)}")
    return SPACES[config.model.name]
