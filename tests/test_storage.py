"""Storage: whole or not at all, and one owner at a time."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pcam import storage
from pcam.errors import StorageError


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_write_and_read_json(tmp_path: Path) -> None:
    path = storage.write_json(tmp_path / "new" / "a.json", {"b": 1, "a": [0.5, None]})
    assert storage.read_json(path, "file") == {"b": 1, "a": [0.5, None]}
    assert names(path.parent) == ["a.json"]


def test_json_refuses_nan_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = storage.write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(path, float("nan"))
    assert path.read_text() == "1\n"


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(RuntimeError, match="half way"), storage.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half way")
    assert names(tmp_path) == []


def test_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half way"), storage.atomic_path(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("x")
        raise RuntimeError("half way")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EACCES, "permission denied; choose a folder"),
        (errno.EROFS, "read-only; choose another folder"),
    ],
)
def test_system_error_is_one_line_with_a_mend(
    code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(StorageError, match=f"cannot write .*a.txt: .*{message}"):
        storage.write_text(path, "new")
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_full_disk_for_real(tmp_path: Path) -> None:
    # A file size limit of the process stands for a full disk: the write itself fails half way.
    code = (
        "import resource, signal, sys; from pcam.storage import write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_bytes(sys.argv[1], b'x' * 100_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True)
    assert "StorageError: cannot write" in done.stderr
    assert names(tmp_path) == []


def test_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot write"):
        storage.write_text(tmp_path / "file" / "a.txt", "new")


def test_kill_in_the_middle_of_writing_leaves_no_half_file(tmp_path: Path) -> None:
    code = (
        "import os, sys, signal; from pcam.storage import atomic_path\n"
        "with atomic_path(sys.argv[1]) as t:\n"
        "    t.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "a.txt"
    subprocess.run([sys.executable, "-c", code, str(path)])
    assert not path.exists()


def test_sha256_of_a_file(tmp_path: Path) -> None:
    path = storage.write_bytes(tmp_path / "a", b"abc")
    # The digest of "abc" from FIPS 180-2, appendix B.1.
    assert storage.sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_missing_and_damaged_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"run status .*none\.json is missing"):
        storage.read_json(tmp_path / "none.json", "run status")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(StorageError, match=r"run status .*bad\.json cannot be read"):
        storage.read_json(tmp_path / "bad.json", "run status")


def test_claim_is_exclusive_and_released(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    with (
        storage.claim(path),
        pytest.raises(storage.ClaimedError, match=f"process {os.getpid()} .* is at work on it"),
        storage.claim(path),
    ):
        pass
    assert names(tmp_path) == []
    with storage.claim(path):
        assert path.exists()


def test_a_claim_can_wait_for_its_turn(tmp_path: Path) -> None:
    path, holding, order = tmp_path / "claim", threading.Event(), []

    def first() -> None:
        with storage.claim(path):
            holding.set()
            time.sleep(0.2)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    holding.wait()
    with storage.claim(path, wait=60):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    with (
        storage.claim(path),
        pytest.raises(storage.ClaimedError, match="is at work on it; wait for it"),
        storage.claim(path, wait=0.1),
    ):
        pass


def test_claim_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    code = "import os, sys, signal; from pcam.storage import claim\nwith claim(sys.argv[1]): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(path)])
    assert path.exists()
    with storage.claim(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells a dead process from a living one")
def test_claim_of_a_dead_process_whose_parent_did_not_ask_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    code = "import sys; from pcam.storage import claim\nwith claim(sys.argv[1]): print(flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(path)], **pipes) as child:
        child.stdout.readline()
        with pytest.raises(storage.ClaimedError, match="is at work on it; wait for it"):
            storage.claim(path).__enter__()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # until it is dead, and keeps its pid
        with storage.claim(path):
            assert json.loads(path.read_text())["pid"] == os.getpid()


def test_strays_go_but_not_what_others_write_to_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half, sync = tmp_path / "deep" / ".model.1-ab.tmp.safetensors", os.fsync
    half.parent.mkdir()
    half.touch()

    def swept(handle: int) -> None:
        storage.remove_strays(tmp_path)  # by the process that holds the claim, just when another writes its own
        sync(handle)

    monkeypatch.setattr(os, "fsync", swept)
    with storage.claim(tmp_path / "claim"):
        assert not half.exists()


@pytest.mark.parametrize("moment", ["link", "unlink", "fsync", "replace"])
def test_what_is_left_of_a_dead_claim_goes(moment: str, tmp_path: Path) -> None:
    code = f"""
import os, sys, pathlib
from pcam import storage
owner = pathlib.Path if {moment!r} in ("unlink", "replace") else os
setattr(owner, {moment!r}, lambda *args, **more: os.kill(os.getpid(), 9))
with storage.claim(sys.argv[1]): pass"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "claim")])
    assert names(tmp_path) != []
    with storage.claim(tmp_path / "other"):
        storage.remove_strays(tmp_path, held=False)
        assert names(tmp_path) == ["other"]


def test_claim_of_a_container_that_has_this_hosts_name_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with monkeypatch.context() as container, storage.claim(tmp_path / "own"):
        container.setattr(storage, "_this_host", lambda: "0123abcd")
        container.setattr(os, "getpid", lambda: gone.pid)  # a number that nobody has here
        theirs = storage.claim(tmp_path / "claim")
        theirs.__enter__()
    with pytest.raises(storage.ClaimedError, match="claimed it; if it no longer runs, remove"):
        storage.claim(tmp_path / "claim").__enter__()
    theirs.__exit__(None, None, None)


def test_claims_that_may_be_alive_are_left(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "claim", {"pid": 1, "host": "elsewhere", "start": 0})
    (tmp_path / "claim.1-0123abcd-00").touch()
    (tmp_path / f"claim.{os.getpid()}-{storage._this_host()}-00").touch()
    before = names(tmp_path)
    storage.remove_strays(tmp_path)
    assert names(tmp_path) == before


@pytest.mark.parametrize("content", ["", "[]", "7", "{}"])
def test_a_claim_that_names_nobody_is_reported(content: str, tmp_path: Path) -> None:
    path = storage.write_text(tmp_path / "claim", content)
    with pytest.raises(storage.ClaimedError, match=r"process \? on \? claimed it; if it no longer runs, remove"):
        storage.claim(path).__enter__()


def test_claim_of_another_host_is_reported_with_its_mend(tmp_path: Path) -> None:
    path = storage.write_json(tmp_path / "claim", {"pid": 1, "host": "elsewhere", "start": 0})
    message = "process 1 on elsewhere claimed it; if it no longer runs, remove"
    with pytest.raises(storage.ClaimedError, match=message), storage.claim(path):
        pass


def test_one_of_many_claims_wins(tmp_path: Path) -> None:
    path, start, won = tmp_path / "claim", threading.Barrier(8), []

    def work() -> None:
        start.wait()
        try:
            with storage.claim(path):
                won.append(1)
                done.wait(5)
        except storage.ClaimedError:
            refused.append(1)
            if len(refused) == 7:
                done.set()

    refused: list[int] = []
    done = threading.Event()
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 7)


def test_append_lines(tmp_path: Path) -> None:
    storage.append_lines(tmp_path / "log", ["a", "b"])
    storage.append_lines(tmp_path / "log", ["c"])
    assert (tmp_path / "log").read_text() == "a\nb\nc\n"


def test_a_place_is_checked_before_the_work(tmp_path: Path) -> None:
    storage.check_folder(tmp_path / "new" / "deeper")
    storage.check_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            StorageError, match=r"cannot write .*file.*: a part of the path is a file; choose another path"
        ):
            storage.check_folder(path)


def test_a_place_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # these tests may run as root, who may write anywhere
    with pytest.raises(StorageError, match=r"cannot write .*new: permission denied; choose a folder"):
        storage.check_folder(tmp_path / "new")


def test_a_name_that_is_too_long_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the name is too long; choose a shorter one"):
        storage.write_text(tmp_path / ("a" * 300), "")
