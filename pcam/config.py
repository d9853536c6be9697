"""The experiment as one frozen, typed tree, and its one way in and out of a file.

A preset (`configs/NAME.yaml`) or any YAML file states what differs from the defaults below; `key=value`
overrides come on top. Everything is checked before anything runs: an unknown key, a wrong type, a NaN or
a value out of range is an error that names the key and the mend. The canonical hash of the tree is the
first part of a run's identity, so it must not depend on the machine, the key order or how a number was
spelt (`1e-3` and `0.001` are the same number).
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.resolver import VersionedResolver

from pcam.errors import ConfigError, clip, did_you_mean

# The networks of pcam.models.MODELS: named here too, so that a wrong name is refused before torch is loaded.
ModelName = Literal["cnn", "mlp", "p4m", "resnet18"]

_MAX_CHARACTERS = 65_536  # of one YAML document: a config takes a few hundred
_MAX_DEPTH = 16
_ECHO = reprlib.Repr()  # repeats what was given, however long or deep it is, in about a line
_ECHO.maxstring = _ECHO.maxother = _ECHO.maxlong = 80


class _Section(BaseModel):
    # Strict: "3" is not 3 and True is not 1. Frozen: a run's config cannot drift while it is running.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class DataConfig(_Section):
    """Which patches are read, and how."""

    train_split: Literal["train", "valid", "test"] = Field("train", description="what is learned from")
    valid_split: Literal["train", "valid", "test"] = Field("valid", description="what each epoch is judged on")
    max_train: int | None = Field(None, ge=2, description="use only this many training patches, drawn by seed")
    workers: int = Field(0, ge=0, le=64, description="loader processes; the order of patches does not depend on it")
    block: int = Field(1, ge=1, description="shuffle blocks of so many neighbours, for files in chunks; 1: fully")
    balance: bool = Field(False, description="draw both classes equally often, instead of each patch once an epoch")
    values: Literal["exact", "round"] = Field("exact", description="refuse or round what is no integer in 0..255")


class ModelConfig(_Section):
    """The network. A field that a model does not use has no effect on it."""

    name: ModelName = Field("cnn", description="the network")
    width: int = Field(32, ge=1, le=1024, description="channels of stage one (cnn, resnet18), fields per layer (p4m)")
    depth: int = Field(3, ge=1, le=5, description="stages, each of half the side (cnn, p4m)")
    hidden: int = Field(128, ge=1, le=65536, description="hidden units (mlp)")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of features left out before the last layer")


class AugmentConfig(_Section):
    """Random changes of training patches; valid and test are never changed."""

    flip: bool = Field(False, description="mirror left to right, every second patch")
    rotate: bool = Field(False, description="quarter turns; with flip, the 8 symmetries of the square")
    shift: int = Field(0, ge=0, le=16, description="most pixels that a patch moves along each axis; 4 keep its centre")
    color: float = Field(0.0, ge=0, le=1, description="strength of brightness, contrast and saturation jitter")
    stain: float = Field(0.0, ge=0, le=1, description="strength of the jitter of each dye's amount")


class TrainConfig(_Section):
    """The optimisation."""

    epochs: int = Field(10, ge=1, le=10_000, description="passes over the training patches")
    batch_size: int = Field(64, ge=1, le=65_536, description="patches a step")
    lr: float = Field(1e-3, gt=0, le=100, description="the highest learning rate of the schedule")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd has Nesterov momentum")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd; adamw keeps its own")
    weight_decay: float = Field(0.01, ge=0, le=10, description="of matrices and filters, not of biases")
    schedule: Literal["constant", "step", "cosine", "one_cycle", "plateau"] = Field(
        "one_cycle", description="how the learning rate goes over the run"
    )
    warmup: float = Field(0.0, ge=0, lt=1, description="share of all steps with a rising rate")
    grad_clip: float | None = Field(None, gt=0, description="largest global gradient norm; null: no clipping")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="a label 1 counts as 1 less half of this")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the network while training")
    compile: bool = Field(False, description="fuse the network's kernels with torch.compile; for a GPU")
    augment: AugmentConfig = AugmentConfig()
    deterministic: bool = Field(True, description="only algorithms that give the same bits again")
    threads: int = Field(0, ge=0, le=1024, description="CPU threads; 0: the machine's choice, recorded in the run")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one")
    checkpoint_every: int = Field(1, ge=1, description="epochs between checkpoints")
    average: float = Field(0.0, ge=0, lt=1, description="decay of a mean of the weights, used instead; 0: none")
    patience: int | None = Field(None, ge=1, description="stop after this many epochs without a better valid loss")
    log_every: int = Field(1, ge=1, description="steps between logged steps")


class EvalConfig(_Section):
    """How predictions are judged."""

    beta: float = Field(2.0, gt=0, le=100, description="of F-beta: recall counts beta times as much as precision")
    cost_fn: float = Field(5.0, gt=0, description="cost of a missed tumour, in units of cost_fp")
    cost_fp: float = Field(1.0, gt=0, description="cost of a false alarm")
    symmetries: bool = Field(False, description="score a patch by the mean over its 8 turned and mirrored forms")
    bootstrap: int = Field(1000, ge=100, le=100_000, description="resamples behind each interval")


class Config(_Section):
    """All that determines a run, besides the data and the code."""

    seed: int = Field(0, ge=0, le=2**32 - 1, description="of weights, order, augmentation and subset")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvalConfig = EvalConfig()


def project_root() -> Path:
    """Return the folder that holds `configs/` and `notebooks/`: the checkout that the package was installed from.

    Raises:
        ConfigError: the package was installed without its project beside it.
    """
    for root in (Path(__file__).resolve().parent.parent, Path.cwd()):
        if (root / "configs" / "journal.yaml").is_file():
            return root
    raise ConfigError("no configs/journal.yaml beside the package: run from a checkout of the project")


def preset_names() -> list[str]:
    """Return the names of the presets in `configs/`, sorted; `journal` is the plan of runs, not a preset."""
    return sorted(p.stem for p in (project_root() / "configs").glob("*.yaml") if p.stem != "journal")


class _Yaml12(VersionedResolver):
    """YAML 1.2 whatever the document says: a line `%YAML 1.1` would bring 1.1's traps back."""

    @property
    def processing_version(self) -> tuple[int, int]:
        return 1, 2


def parse_yaml(text: str, where: str) -> Any:
    """Read one YAML 1.2 document without YAML 1.1's traps.

    `1e-3` is a number, `no` is a word, `010` is ten, a key given twice is an error, and no tag makes an object.

    Args:
        text: the document.
        where: a file or flag, named in errors.

    Raises:
        ConfigError: the text is not YAML, is too long or too deep for a config, or a key is repeated.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ConfigError(f"{where}: {len(text)} characters are too many for a config; is it the right file?")
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = _Yaml12
    try:
        depth = 0
        for event in yaml.parse(text):
            # Before anything is built of it: deep nesting takes the reader seconds and ends in a RecursionError.
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise ConfigError(f"{where}: nested more than {_MAX_DEPTH} deep: mend the YAML")
        return yaml.load(text)
    except MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{line}: {error.problem or error.context}: mend the YAML") from error
    except YAMLError as error:
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}: mend the YAML") from error
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
        # What ruamel lets out where a scalar is not what its form or its tag promises, such as 2020-13-45.
        raise ConfigError(f"{where}: a value cannot be read ({clip(str(error))}): mend the YAML") from error


def load_config(preset_or_path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Build the config from a preset's name or a YAML file, then apply `key=value` overrides.

    Args:
        preset_or_path: a name in `configs/`, or a path that ends in .yaml or .yml.
        overrides: such as `"train.lr=3e-4"`; the value is read as YAML.

    Raises:
        ConfigError: unknown preset, unreadable file, unknown key, wrong type or value out of range.
    """
    path = Path(preset_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if str(preset_or_path) not in preset_names():
            word = clip(str(preset_or_path))
            raise ConfigError(f"unknown preset '{word}'{did_you_mean(word, preset_names())}")
        path = project_root() / "configs" / f"{preset_or_path}.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a config ({error}); give a preset name or a YAML file") from error
    tree = parse_yaml(text, str(path))
    return build_config({} if tree is None else tree, overrides, where=str(path))


def build_config(tree: object, overrides: Sequence[str] = (), where: str = "config") -> Config:
    """Check a plain nested mapping, with overrides on top, and return it as a `Config`.

    Raises:
        ConfigError: as `load_config`, or one split is to be learned from and judged on.
    """
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected a mapping such as 'train: {{lr: 1e-3}}', found {type(tree).__name__}")
    config = _checked(tree, where)
    for override in overrides:
        # Checked one by one, so that a mistake is told of the override that makes it, not of the file below.
        tree = _with_override(tree, override)
        config = _checked(tree, f"override '{clip(override)}'")
    # Of the whole, not of each override: two of them may exchange the splits.
    if config.data.train_split == config.data.valid_split:
        raise ConfigError(
            f"{where}: data.train_split and data.valid_split are both '{config.data.train_split}': a run is judged on "
            "patches that it has not learned from; name two splits"
        )
    return config


def _checked(tree: dict[str, Any], where: str) -> Config:
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_problem(error)}") from error


def _with_override(tree: dict[str, Any], override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    where = f"override '{clip(override)}'"
    if not equals or not key.strip() or not text.strip():
        raise ConfigError(f"{where}: write it as key=value, such as train.lr=3e-4")
    value = parse_yaml(text, where)
    new = leaf = dict(tree)
    *sections, name = key.strip().split(".")
    for section in sections:
        below = leaf.get(section, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{where}: '{clip(section)}' is a value, not a section")
        leaf[section] = leaf = dict(below)
    leaf[name] = value
    return new


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    first = problems[0]
    location = clip(".".join(str(part) for part in first["loc"]))
    if first["type"] == "extra_forbidden":
        section: Any = Config
        for part in first["loc"][:-1]:
            section = section.model_fields[part].annotation
        text = f"unknown key '{location}'{did_you_mean(clip(str(first['loc'][-1])), section.model_fields)}"
    else:
        text = f"'{location}' is {_ECHO.repr(first['input'])}: {first['msg'][0].lower()}{first['msg'][1:]}"
    return text + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")


def config_leaves(config: Config) -> dict[str, Any]:
    """Return the tree as flat `{"train.lr": 0.001, …}`, in the order of the fields."""

    def walk(tree: dict[str, Any], prefix: str) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in tree.items():
            flat.update(walk(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
        return flat

    return walk(config.model_dump(), "")


def config_hash(config: Config) -> str:
    """Return the SHA-256 (64 hex digits) of the canonical JSON of every leaf, defaults included."""
    canonical = json.dumps(config.model_dump(), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def dump_yaml(config: Config) -> str:
    """Return the whole tree as YAML that `load_config` reads back to an equal config."""
    out = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(config.model_dump(), out)
    return out.getvalue()
