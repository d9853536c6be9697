"""The configuration tree: strict, frozen, and with a hash that sees every leaf and nothing else."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pcam.config import (
    Config,
    build_config,
    config_hash,
    config_leaves,
    dump_yaml,
    load_config,
    parse_yaml,
    preset_names,
)
from pcam.errors import ConfigError

LEAVES = config_leaves(Config())


def other_value(key: str, value: Any) -> Any:
    """A valid value of that leaf which is not its default."""
    words = {
        "data.train_split": "test",
        "data.valid_split": "test",
        "data.values": "round",
        "model.name": "mlp",
        "train.optimizer": "sgd",
        "train.schedule": "cosine",
        "train.precision": "bfloat16",
        "train.device": "cpu",
    }
    if key in words:
        return words[key]
    if isinstance(value, bool):
        return not value
    if value is None:
        return 7
    return value + 1 if isinstance(value, int) else value / 2 + 0.125


@pytest.mark.parametrize("key", LEAVES)
def test_hash_changes_with_every_leaf(key: str) -> None:
    changed = build_config({}, [f"{key}={other_value(key, LEAVES[key])}"])
    assert config_leaves(changed)[key] == other_value(key, LEAVES[key])
    assert config_hash(changed) != config_hash(Config())


def test_hash_is_the_same_on_every_machine() -> None:
    # A literal on purpose: the hash names run folders, so a change of it must be a decision.
    code = "from pcam.config import *; print(config_hash(Config()))"
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("0", "1")
    }
    assert hashes == {"e1d087a42df40ac48926563328b31b5275a40c9fb40efcbc5b5517f4634aa533"}


@pytest.mark.parametrize(("spelling", "value"), [("1e-3", 1e-3), ("0.001", 1e-3), ("1E-3", 1e-3), ("1", 1.0)])
def test_spelling_of_a_number_does_not_matter(spelling: str, value: float) -> None:
    config = build_config({}, [f"train.lr={spelling}"])
    assert config.train.lr == value and isinstance(config.train.lr, float)
    assert config_hash(config) == config_hash(build_config({"train": {"lr": value}}))


@pytest.mark.parametrize("name", preset_names())
def test_preset_loads_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    path = tmp_path / "again.yaml"
    path.write_text(dump_yaml(config))
    assert load_config(path) == config


@pytest.mark.parametrize("name", preset_names())
def test_preset_states_cost_result_and_command(name: str, root: Path) -> None:
    comment = (root / "configs" / f"{name}.yaml").read_text().lower()
    for word in ("cost", "expected", f"pcam train {name}"):
        assert word in comment


def test_a_run_is_not_judged_on_what_it_learns_from() -> None:
    told = r"data\.train_split and data\.valid_split are both 'train': a run is judged on patches .* name two splits"
    with pytest.raises(ConfigError, match=told):
        load_config("mlp", ["data.valid_split=train"])
    exchanged = load_config("mlp", ["data.train_split=valid", "data.valid_split=train"]).data
    assert (exchanged.train_split, exchanged.valid_split) == ("valid", "train")


def test_config_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().train.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sed=1", r"unknown key 'sed'; did you mean 'seed'\?"),
        ("tran.lr=1", r"unknown key 'tran'; did you mean 'train'\?"),
        ("train.lrr=1", r"unknown key 'train.lrr'; did you mean 'lr'\?"),
        ("data.worker=1", r"unknown key 'data.worker'; did you mean 'workers'\?"),
        ("model.nme=cnn", r"unknown key 'model.nme'; did you mean 'name'\?"),
        ("train.augment.flp=true", r"unknown key 'train.augment.flp'; did you mean 'flip'\?"),
        ("evaluation.bta=2", r"unknown key 'evaluation.bta'; did you mean 'beta'\?"),
        ("seed=true", r"'seed' is True: input should be a valid integer"),
        ("seed=1.5", r"'seed' is 1.5: input should be a valid integer"),
        ("seed='1'", r"'seed' is '1': input should be a valid integer"),
        ("seed=-1", r"'seed' is -1: input should be greater than or equal to 0"),
        ("train.lr=.nan", r"'train.lr' is nan: input should be a finite number"),
        ("train.lr=.inf", r"'train.lr' is inf: input should be a finite number"),
        ("train.lr=yes", r"'train.lr' is 'yes': input should be a valid number"),
        ("train.deterministic=no", r"'train.deterministic' is 'no': input should be a valid boolean"),
        ("train.schedule=cosin", r"input should be 'constant', 'step', 'cosine'"),
        ("train.lr", r"write it as key=value"),
        ("train.lr=", r"write it as key=value"),
        ("seed.x=1", r"'seed' is \{'x': 1\}"),
        ("train=3", r"'train' is 3: input should be a valid dictionary"),
        ("train.lr=[", r"^override 'train.lr=\[' line 1: .*mend the YAML$"),
        ("train.lr=.nan", r"^override 'train.lr=.nan': 'train.lr' is nan"),
        ("model.name=mpl", r"^override 'model.name=mpl': 'model.name' is 'mpl': input should be 'cnn'"),
        ("seed=2020-13-45", r"^override 'seed=2020-13-45': a value cannot be read \(month .*\): mend the YAML$"),
        ("seed=!!int x", r"^override 'seed=!!int x': a value cannot be read \(invalid literal .*\): mend the YAML$"),
        ("seed=!!int ''", r"a value cannot be read .*: mend the YAML$"),
        ("seed=!!bool x", r"a value cannot be read .*: mend the YAML$"),
        ("seed=" + 5000 * "9", r"^override 'seed=9{72}\.\.\.': a value cannot be read .*: mend the YAML$"),
        ("seed=" + 3000 * "[", r"^override 'seed=\[{72}\.\.\.': nested more than 16 deep: mend the YAML$"),
        ("seed=" + 3000 * "{a: ", r"nested more than 16 deep: mend the YAML$"),
        ("seed=" + 3000 * "a", r"'seed' is 'a+\.\.\.a+': input should be a valid integer"),
        (3000 * "a" + "=1", r"unknown key 'a{77}\.\.\.'; known: data, "),
        ("seed=" + 70_000 * "1", r"70000 characters are too many for a config"),
        ("seed=1\n2", r"^override 'seed=1\\n2'"),
    ],
)
def test_bad_override_names_key_and_mend(override: str, message: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError, match=message) as error:
        build_config({}, [override])
    assert time.process_time() - began < 0.4
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_each_mistake_is_told_of_where_it_was_made(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("seed: 1")
    bad.write_text("seed: x")
    with pytest.raises(ConfigError, match=r"^override 'train\.lr=no': 'train\.lr' is 'no': input should be"):
        load_config(good, ["seed=2", "train.lr=no", "train.epochs=0"])
    with pytest.raises(ConfigError, match=r"bad\.yaml: 'seed' is 'x': input should be"):
        load_config(bad, ["seed=2"])


def test_shared_values_are_not_spelt_out() -> None:
    """Ten aliases of ten, eight levels up: a repr of it would not fit into memory."""
    text = "a0: &a0 [1]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(8))
    with pytest.raises(ConfigError, match="unknown key 'a0'"):
        build_config(parse_yaml(text, "text"))
    tree = parse_yaml(text, "text")
    with pytest.raises(ConfigError, match=r"'seed' is \[\[\["):
        build_config({"seed": tree["a8"]})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1e-3", 1e-3),
        ("a: no", "no"),
        ("a: on", "on"),
        ("a: 010", 10),
        ("a: 1:30", "1:30"),
        ("a: true", True),
        ("%YAML 1.1\n---\na: 010", 10),
        ("%YAML 1.1\n---\na: no", "no"),
    ],
)
def test_yaml_without_traps(text: str, value: object) -> None:
    read = parse_yaml(text, "text")["a"]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", r"line 2: .*duplicate key"),
        ("seed: [1\n", r"mend the YAML"),
        ("seed: !!python/object:os.system x\n", r"could not determine a constructor"),
        ("- 1\n", r"expected a mapping"),
        ("seed\n", r"expected a mapping"),
    ],
)
def test_bad_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_unknown_preset_suggests_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown preset 'cn'; did you mean 'cnn'\?"):
        load_config("cn")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read as a config"):
        load_config(tmp_path / "nothing.yaml")
