"""Checkpoints are read only if they are what was written; else the one before, or a refusal."""

from __future__ import annotations

import hashlib
import io
import pickle
import resource
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from pcam.config import ModelConfig
from pcam.errors import RunError
from pcam.models import MODELS, build
from pcam.storage import sha256_file
from pcam.training.checkpoint import (
    checkpoint_folders,
    load_checkpoint,
    load_last,
    read_weights,
    save_checkpoint,
    weights_bytes,
)
from pcam.training.model_file import load_model_file

CONFIG = ModelConfig(name="mlp")


def write(folder: Path, step: int) -> Path:
    weights = {"w": torch.full((3, 2), float(step)), "b": torch.arange(2)}
    return save_checkpoint(folder, step, weights, None, {"position": {"step": step}}, CONFIG)


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes({"empty": b"", "cut": content[:-7], "flipped bit": flipped}[how])


def test_round_trip(tmp_path: Path) -> None:
    path = write(tmp_path, 4)
    weights, best, state = load_checkpoint(path)
    assert torch.equal(weights["w"], torch.full((3, 2), 4.0))
    assert best is None
    assert state["position"] == {"step": 4}
    sums = dict(line.split("  ")[::-1] for line in (path / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: sha256_file(path / name) for name in ("weights.safetensors", "state.pt")}


def test_best_weights_travel_along(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"w": torch.ones(1)}, {"w": torch.zeros(1)}, {}, CONFIG)
    assert torch.equal(load_checkpoint(path)[1]["w"], torch.zeros(1))


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 30, 100):
        write(tmp_path, step)
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["step-00000030", "step-00000100"]


def test_equal_weights_are_equal_bytes() -> None:
    weights = {"b": torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last), "a": torch.zeros(2)}
    turned = {name: weights[name].contiguous() for name in ("a", "b")}
    assert weights_bytes(weights, CONFIG) == weights_bytes(turned, CONFIG)


def test_none_yet(tmp_path: Path) -> None:
    assert load_last(tmp_path) is None


def test_a_damaged_one_takes_no_sound_ones_place(tmp_path: Path) -> None:
    for step in (60, 120):
        write(tmp_path, step)
    damage(tmp_path / "step-00000120" / "state.pt", "cut")
    with pytest.warns(UserWarning, match="going on from .*step-00000060"):
        load_last(tmp_path)
    for step in (70, 80):
        write(tmp_path, step)
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["step-00000070", "step-00000080"]


@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt", "SHA256SUMS"])
@pytest.mark.parametrize("how", ["empty", "cut", "flipped bit"])
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path, name: str, how: str) -> None:
    write(tmp_path, 1)
    damage(write(tmp_path, 2) / name, how)
    with pytest.warns(UserWarning, match=r"step-00000002.*going on from .*step-00000001 instead"):
        _, _, state = load_last(tmp_path)
    assert state["step"] == 1


@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt", "SHA256SUMS"])
def test_no_sound_one_left(tmp_path: Path, name: str) -> None:
    (write(tmp_path, 1) / name).unlink()
    with pytest.raises(RunError, match=r"no sound checkpoint: .*step-00000001"):
        load_last(tmp_path)


def forge(path: Path, name: str, content: bytes) -> None:
    """Replace a file and its sum: an attacker's, or a bug's, but no accident."""
    (path / name).write_bytes(content)
    sums = [
        f"{hashlib.sha256((path / f).read_bytes()).hexdigest()}  {f}\n" for f in ("state.pt", "weights.safetensors")
    ]
    (path / "SHA256SUMS").write_text("".join(sums))


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.target),)  # type: ignore[return-value]

    def __init__(self, target: Path) -> None:
        self.target = str(target)


@pytest.mark.parametrize("way", ["torch", "pickle"])
def test_a_pickle_is_never_run(tmp_path: Path, way: str) -> None:
    path, target = write(tmp_path / "c", 1), tmp_path / "touched"
    if way == "torch":
        torch.save({"format": 1, "x": Malicious(target)}, tmp_path / "evil.pt")
    else:
        (tmp_path / "evil.pt").write_bytes(pickle.dumps({"format": 1, "x": Malicious(target)}))
    forge(path, "state.pt", (tmp_path / "evil.pt").read_bytes())
    with pytest.raises(RunError, match=r"state\.pt holds more than tensors and numbers"):
        load_checkpoint(path)
    assert not target.exists()


def with_header(header: str) -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + bytes(64)


def tensor(shape: list[int], begin: int, end: int) -> str:
    return f'{{"dtype": "F32", "shape": {shape}, "data_offsets": [{begin}, {end}]}}'


ABSURD = {
    "nothing": b"",
    "length 2^64 - 1": b"\xff" * 8,
    "length 2^60": (2**60).to_bytes(8, "little") + b"{}",
    "length 10^9": (10**9).to_bytes(8, "little") + b"{",
    "no mapping": b"\x02" + b"\0" * 7 + b"[]",
    "brackets": with_header('{"__metadata__":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "huge shape": with_header('{"a": ' + tensor([2**40], 0, 64) + "}"),
    "shape that overflows": with_header('{"a": ' + tensor([2**62, 4], 0, 0) + "}"),
    "overlap": with_header('{"a": ' + tensor([8], 0, 32) + ', "b": ' + tensor([8], 16, 48) + "}"),
    "backwards": with_header('{"a": ' + tensor([8], 64, 32) + "}"),
    "a name twice": with_header('{"a": ' + tensor([16], 0, 64) + ', "a": ' + tensor([16], 0, 64) + "}"),
    "a million names": with_header("{" + ", ".join(f'"{i}": {tensor([0], 0, 0)}' for i in range(100_000)) + "}"),
}


@pytest.mark.parametrize("content", ABSURD.values(), ids=ABSURD)
def test_an_absurd_safetensors_header_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(RunError, match="is not a safetensors file"):
        read_weights(path, sha256_file(path))
    with pytest.raises(RunError, match="not a readable safetensors file"):
        load_model_file(path)
    assert time.process_time() - began < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100 * 1024  # KiB


def test_a_file_that_only_seems_long_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no place on the disk
    with pytest.raises(RunError, match="not a readable safetensors file"):
        load_model_file(path)


@pytest.mark.parametrize("model", [{"name": "mlp", "hidden": 65_536}, {"name": "resnet18", "width": 1024}])
def test_a_few_bytes_that_name_a_huge_model_are_refused(tmp_path: Path, model: dict[str, Any]) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights_bytes({"w": torch.zeros(1)}, ModelConfig(**model)))
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(RunError, match="its weights do not fit the model that it names"):
        load_model_file(path)
    assert time.process_time() - began < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100 * 1024  # KiB


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_is_read_from_its_file_alone(tmp_path: Path, name: str) -> None:
    config = ModelConfig(name=name, width=4, hidden=8)
    model = build(config).eval()
    (tmp_path / "model.safetensors").write_bytes(weights_bytes(model.state_dict(), config))
    patches = torch.randint(0, 256, (3, 96, 96, 3), dtype=torch.uint8)
    loaded = load_model_file(tmp_path / "model.safetensors")
    assert torch.equal(loaded.predict_logits(patches), model.predict_logits(patches))


def repacked(content: bytes, pickled: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a state.pt with another pickle in it."""
    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name in source.namelist():
            archive.writestr(name, pickled if name.endswith("data.pkl") else source.read(name))
    return target.getvalue()


ATTACKS = {
    "call": b"\x80\x02cos\nsystem\n.",
    "half a call": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "empty stack": b"\x80\x020.",
    "long string": b"\x80\x02X\xff\xff\xff\x7f.",
    "brackets": b"\x80\x02" + b"]" * 50_000 + b".",
    "a number": b"\x80\x02K\x05.",
    "nothing": b"",
}


@pytest.mark.parametrize("pickled", ATTACKS.values(), ids=ATTACKS)
def test_a_forged_state_is_refused(tmp_path: Path, pickled: bytes) -> None:
    path = write(tmp_path, 1)
    forge(path, "state.pt", repacked((path / "state.pt").read_bytes(), pickled))
    began = time.process_time()
    with pytest.raises(RunError, match=r"state\.pt holds (more than tensors and numbers|no training state)"):
        load_checkpoint(path)
    assert time.process_time() - began < 5


def test_a_state_that_unpacks_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    bomb = repacked((path / "state.pt").read_bytes(), bytes(50_000_000), zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    forge(path, "state.pt", bomb)
    with pytest.raises(RunError, match=r"state\.pt holds more than .*it unpacks to 50,"):
        load_checkpoint(path)


def test_a_checkpoint_of_another_run_gives_way_to_the_one_before(tmp_path: Path) -> None:
    for step, run in ((1, "mine"), (2, "other")):
        save_checkpoint(tmp_path, step, {"w": torch.ones(1)}, None, {}, CONFIG, run)
    with pytest.warns(UserWarning, match=r"step-00000002 belongs to run other, not to mine.*going on from .*00000001"):
        assert load_last(tmp_path, "mine")[2]["step"] == 1
    with pytest.raises(RunError, match=r"no sound checkpoint: .*belongs to run other, not to third"):
        load_last(tmp_path, "third")


def test_a_checkpoint_that_names_no_run_gives_way_to_the_one_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"w": torch.ones(1)}, None, {}, CONFIG, "mine")
    path = write(tmp_path, 2)
    torch.save({"format": 1, "step": 2}, tmp_path / "nameless.pt")
    forge(path, "state.pt", (tmp_path / "nameless.pt").read_bytes())
    with pytest.warns(UserWarning, match=r"step-00000002 belongs to run None, not to mine.*going on from .*00000001"):
        assert load_last(tmp_path, "mine")[2]["step"] == 1


def test_a_kill_while_an_old_one_is_removed_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        write(tmp_path, step)

    def killed(path: Path) -> None:
        (path / "state.pt").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr("pcam.training.checkpoint.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 3)
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["step-00000002", "step-00000003"]


def test_a_kill_before_the_oldest_is_removed_leaves_it_no_longer_than_till_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("pcam.training.checkpoint._remove", lambda _: None)
        for step in (1, 2, 3, 4):
            last = write(tmp_path, step)
    damage(last / "state.pt", "cut")
    with pytest.warns(UserWarning, match=r"going on from .*step-00000003 instead"):
        assert load_last(tmp_path)[2]["step"] == 3
    assert [path.name[-1] for path in checkpoint_folders(tmp_path)] == ["2", "3", "4"]


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    torch.save({"format": 99}, tmp_path / "new.pt")
    forge(path, "state.pt", (tmp_path / "new.pt").read_bytes())
    with pytest.raises(RunError, match="has checkpoint format 99, this version reads 1; update pcam"):
        load_checkpoint(path)


def test_nothing_half_written_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from pcam.errors import StorageError

    write(tmp_path, 1)
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no space")))
    for step in (2, 1):  # the same step comes again where a run was stopped between an epoch's last step and its end
        with pytest.raises(StorageError, match="the disk is full; free some space"):
            write(tmp_path, step)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    load_checkpoint(tmp_path / "step-00000001")
