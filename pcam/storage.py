"""The only writer of results: a file is there whole, or not at all.

`kill -9` in the middle of a plain write leaves half a file under its final name, and nobody notices until it
is read. So everything is written beside its target, flushed to the disk, and renamed; the rename is atomic
on POSIX file systems. Folders that belong to one process are claimed by creating a file that must not exist.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pcam.errors import StorageError

_AGAIN_SECONDS = 0.05


def _reason(error: OSError) -> str:
    mends = {
        errno.ENOSPC: "the disk is full; free some space and try again",
        errno.EDQUOT: "the disk quota is used up; free some space and try again",
        errno.EACCES: "permission denied; choose a folder that you may write to",
        errno.EPERM: "permission denied; choose a folder that you may write to",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.ENOTDIR: "a part of the path is a file; choose another path",
        errno.EISDIR: "it is a folder; choose another path",
        errno.ENOENT: "no folder can be made there; choose another path",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
        errno.EEXIST: "it exists already; choose another path",
    }
    return mends.get(error.errno or 0, error.strerror or str(error))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` inside the block into a one-line `StorageError` about `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {path}: {_reason(error)}") from error


def make_folder(path: Path) -> Path:
    """Create a folder and its parents, if need be, and return it.

    Raises:
        StorageError: it cannot be created.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def check_folder(path: Path) -> None:
    """Check that a folder can be made or written to, before the work whose result goes there; nothing is made.

    Raises:
        StorageError: a part of the path is a file, or may not be written to.
    """
    with writing(path):
        there = next(part for part in (path, *path.absolute().parents) if os.path.lexists(part))
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "not writable")


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # Without this the rename itself may be lost when the machine, not only the process, dies.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, what was written there becomes `path`.

    Both a file and a folder may be written. When the block raises, nothing is left behind and the old
    `path`, if any, is as it was. A folder replaces only a folder that does not exist or is empty.

    Raises:
        StorageError: the disk is full, the folder cannot be written, and the like.
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise StorageError(f"cannot write {path}: it is in use; choose a new name")
    make_folder(path.parent)
    # Same suffix: libraries such as matplotlib and h5py choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        with writing(path):
            yield temporary
            if temporary.is_file():
                _sync_file(temporary)
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        if os.path.isdir(temporary):  # noqa: PTH112 - Path.is_dir raises where the name is too long
            shutil.rmtree(temporary)
        elif os.path.lexists(temporary):
            temporary.unlink()


def write_bytes(path: Path | str, content: bytes) -> Path:
    """Write a whole file atomically and return its path.

    Raises:
        StorageError: it cannot be written; nothing is left under the final name that was not there before.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_text(path: Path | str, text: str) -> Path:
    """Write a UTF-8 text file atomically; see `write_bytes`."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, value: Any) -> Path:
    """Write JSON atomically, indented, keys in the order given; NaN and infinity are refused.

    Raises:
        StorageError: it cannot be written.
        ValueError: a number is NaN or infinite (an undefined value is null, with a reason beside it).
    """
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str, what: str) -> Any:
    """Read a JSON file that this project wrote.

    Args:
        path: the file.
        what: the file's role, named in errors (such as "run status").

    Raises:
        StorageError: it is missing, unreadable or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StorageError(f"{what} {path} is missing") from error
    except (OSError, ValueError) as error:
        raise StorageError(f"{what} {path} cannot be read ({error}); restore or remove it") from error


def append_lines(path: Path | str, lines: list[str]) -> None:
    """Append whole lines to a log in one write, so that a kill can cut at most the last line.

    Raises:
        StorageError: they cannot be written.
    """
    path = Path(path)
    with writing(path), path.open("ab") as file:
        file.write("".join(f"{line}\n" for line in lines).encode("utf-8"))


def keep(path: Path) -> None:
    """Wait until what was written to a file is on the disk, where a power cut cannot take it any more.

    Raises:
        StorageError: it cannot be written.
    """
    with writing(path):
        _sync_file(path)


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes (64 hex digits), read in bounded memory.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


class ClaimedError(StorageError):
    """Another process holds the claim; `owner` says which, `alive` whether it still runs on this machine."""

    def __init__(self, path: Path, owner: dict[str, Any], alive: bool | None) -> None:
        self.owner, self.alive = owner, alive
        who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
        state = {True: "is at work on it", False: "died at work on it", None: "claimed it"}[alive]
        mend = "wait for it" if alive else f"if it no longer runs, remove {path} and try again"
        super().__init__(f"{path.parent}: {who} {state}; {mend}")


@contextmanager
def claim(path: Path | str, wait: float = 0) -> Iterator[None]:
    """Hold an exclusive claim for the length of the block; the file names the owner (pid, host, start).

    A claim left by a process of this machine, or container, that is gone is taken over: its owner can no longer write.

    Args:
        path: the file of the claim.
        wait: seconds to wait for whoever holds it.

    Raises:
        ClaimedError: another process holds it, and still does after that time.
        StorageError: the file cannot be written.
    """
    path, until = Path(path), time.monotonic() + wait
    make_folder(path.parent)
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "start": _start_time(os.getpid()), "space": _this_host()}
    while True:
        # A hard link of a whole file: the claim appears with its content, and only one process gets it.
        own = write_json(path.with_name(f"{path.name}.{os.getpid()}-{_this_host()}-{secrets.token_hex(4)}"), owner)
        try:
            os.link(own, path)
            break
        except FileExistsError:
            try:
                _take_over_if_dead(path)
            except ClaimedError:
                if time.monotonic() >= until:
                    raise
                time.sleep(_AGAIN_SECONDS)
        except OSError as error:
            raise StorageError(f"cannot claim {path}: {_reason(error)}") from error
        finally:
            own.unlink()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def remove_strays(folder: Path, *, held: bool = True) -> None:
    """Remove what killed processes of this machine left in a folder: claims, half-written files if `held`."""
    for stray in folder.rglob(".*.tmp*") if held else ():
        if not stray.name.startswith(".claim."):  # others may be trying to claim the folder just now
            shutil.rmtree(stray) if stray.is_dir() else stray.unlink()
    for path in (*folder.glob("claim.*"), *folder.glob(".claim.*")):
        pid, _, rest = path.suffix[1:].partition("-")
        if rest.startswith(_this_host()) and _is_alive({"pid": int(pid), "host": socket.gethostname()}) is False:
            with suppress(OSError):  # gone by now, or in a folder that is read-only: it is in nobody's way
                path.unlink()
    with suppress(ClaimedError, OSError):
        _take_over_if_dead(folder / "claim")


def _this_host() -> str:
    """Name where process numbers mean what they mean here: a container may have its host's name and other numbers."""
    space = Path("/proc/self/ns/pid")  # a link on Linux
    numbers = os.readlink(space) if space.is_symlink() else ""  # noqa: PTH115 - it leads to no file
    return hashlib.sha256(f"{socket.gethostname()} {numbers}".encode()).hexdigest()[:8]


def _take_over_if_dead(path: Path) -> None:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return  # released in between: the caller tries again
    except ValueError:
        owner = None
    owner = owner if isinstance(owner, dict) else {}
    if (alive := _is_alive(owner)) is not False:
        raise ClaimedError(path, owner, alive)
    # Two processes may both see a dead owner; only the one whose rename succeeds may go on.
    stale = path.with_name(f".{path.name}.stale-{secrets.token_hex(4)}")
    try:
        path.rename(stale)
    except FileNotFoundError:
        return
    if json.loads(stale.read_text(encoding="utf-8")) != owner:  # somebody was faster and claimed it anew
        with writing(path):
            os.link(stale, path)
    stale.unlink()


def _start_time(pid: int) -> int | None:
    """Return the clock tick at which a process began (Linux), so that a reused pid is not taken for its owner.

    None where it cannot be known, and of a dead process whose pid is kept for a parent that never asks how it ended.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _is_alive(owner: dict[str, Any]) -> bool | None:
    """Return whether a claim's owner still runs; None when it cannot be known from this machine."""
    elsewhere = owner.get("host") != socket.gethostname() or owner.get("space", _this_host()) != _this_host()
    if elsewhere or not isinstance(owner.get("pid"), int):
        return None
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return owner.get("start") in (None, _start_time(owner["pid"]))
