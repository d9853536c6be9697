"""The classifiers, and the table of their names."""

from __future__ import annotations

from pcam.config import ModelConfig, ModelName
from pcam.errors import ConfigError, did_you_mean
from pcam.models.base import PatchClassifier
from pcam.models.cnn import CNN
from pcam.models.fold import fold
from pcam.models.memory import keep_freed_memory
from pcam.models.mlp import MLP
from pcam.models.p4m import P4M
from pcam.models.resnet import ResNet18

ModelClass = type[CNN] | type[MLP] | type[P4M] | type[ResNet18]
# A new network is a name in `pcam.config.ModelName` and a line here; a test holds them together.
MODELS: dict[ModelName, ModelClass] = {"cnn": CNN, "mlp": MLP, "p4m": P4M, "resnet18": ResNet18}

__all__ = ["MODELS", "PatchClassifier", "build", "fold", "model_class"]


def model_class(name: str) -> ModelClass:
    """Return the class of a model by its name.

    Raises:
        ConfigError: no model has that name.
    """
    if name not in MODELS:
        raise ConfigError(f"unknown model.name '{name}'{did_you_mean(name, MODELS)}")
    return MODELS[name]


def build(config: ModelConfig) -> PatchClassifier:
    """Make a model with fresh random weights from torch's global generator, and ready this process for its maps.

    Returns:
        a module from normalised float (B, 3, 96, 96) to logits (B,).

    Raises:
        ConfigError: no model has that name.
    """
    chosen = model_class(config.name)
    keep_freed_memory()
    return chosen(config)
