"""Fetching from a real HTTP server on loopback, which breaks off, lies, refuses and knows ranges or not."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pcam.data.fetch import RECORD, fetch
from pcam.data.format import split_path
from pcam.data.manifest import read_manifest, verify
from pcam.errors import DataError, StorageError

META = "camelyonpatch_level_2_split_valid_meta.csv"
X = "camelyonpatch_level_2_split_valid_x.h5.gz"


class Server(ThreadingHTTPServer):
    """Serves `files`; the other attributes say how it misbehaves."""

    files: dict[str, bytes]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.break_after: list[int] = []  # of each coming answer: bytes sent before the line is cut
        self.statuses: list[int] = []  # of each coming answer: an error instead of it
        self.ranges = True
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/files"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        wanted = self.headers.get("Range")
        self.server.requests.append((name, wanted))
        if self.server.statuses:
            self.send_error(self.server.statuses.pop(0))
            return
        if name not in self.server.files:
            self.send_error(404)
            return
        content = self.server.files[name]
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.server.ranges else 0
        if start >= len(content) and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + self.server.break_after.pop(0) if self.server.break_after else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *_: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def record(server: Server, tiny: Path) -> dict[str, str]:
    """A record of two files, taken from the sample; the patches are packed with gzip."""
    server.files = {
        META: split_path(tiny, "valid", "meta").read_bytes(),
        X: gzip.compress(split_path(tiny, "valid", "x").read_bytes(), mtime=0),
    }
    return {name: hashlib.md5(content).hexdigest() for name, content in server.files.items()}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


WHOLE = {META, X.removesuffix(".gz"), "manifest.json"}


def test_the_record_is_the_published_one() -> None:
    assert len(RECORD) == 9
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in RECORD.values())
    assert {
        split_path("", split, part).name for split in ("train", "valid", "test") for part in ("x", "y", "meta")
    } == {name.removesuffix(".gz") for name in RECORD}
    # The public record's own README swaps these two.
    assert RECORD[X] == "d5b63470df7cfa627aeec8b9dc0c066e"


def test_everything_is_fetched_decompressed_and_verified(
    server: Server, record: dict[str, str], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = fetch(tmp_path, server.url, progress=False, record=record)
    assert [path.name for path in paths] == [META, X.removesuffix(".gz")]
    assert paths[1].read_bytes() == split_path(tiny, "valid", "x").read_bytes()
    assert names(tmp_path) == WHOLE
    assert verify(tmp_path) == []
    assert {entry.source_md5 for entry in read_manifest(tmp_path).values()} == set(record.values())
    assert capsys.readouterr().err.splitlines() == [f"fetched {path}" for path in paths]


def test_what_is_there_and_verified_is_not_fetched_again(
    server: Server, record: dict[str, str], tmp_path: Path
) -> None:
    paths = fetch(tmp_path, server.url, progress=False, record=record)
    server.requests.clear()
    assert fetch(tmp_path, server.url, progress=False, record=record) == paths
    assert server.requests == []


def test_a_damaged_file_is_fetched_again(server: Server, record: dict[str, str], tmp_path: Path) -> None:
    path = fetch(tmp_path, server.url, progress=False, record=record)[1]
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    server.requests.clear()
    fetch(tmp_path, server.url, progress=False, record=record)
    assert server.requests == [(X, None)]
    assert verify(tmp_path) == []


def test_a_broken_connection_is_continued_where_it_broke(
    server: Server, record: dict[str, str], tmp_path: Path
) -> None:
    whole = len(server.files[META])
    server.break_after = [whole, 10_000, 20_000]
    fetch(tmp_path, server.url, progress=False, record=record, pause=0.01)
    assert server.requests == [(META, None), (X, None), (X, "bytes=10000-"), (X, "bytes=30000-")]
    assert names(tmp_path) == WHOLE


def test_an_interrupted_fetch_is_continued_by_the_next(server: Server, record: dict[str, str], tmp_path: Path) -> None:
    server.break_after = [len(server.files[META]), 10_000, *[0] * 4]
    with pytest.raises(DataError, match=r"valid_x\.h5\.gz: the connection .*broke off; run the same command again"):
        fetch(tmp_path, server.url, progress=False, record=record, pause=0.01)
    assert names(tmp_path) == {META, "manifest.json", f"{X}.part"}
    server.break_after, server.requests = [], []
    fetch(tmp_path, server.url, progress=False, record=record)
    assert server.requests == [(X, "bytes=10000-")]
    assert names(tmp_path) == WHOLE


def test_ctrl_c_leaves_no_half_file_under_a_final_name(
    server: Server, record: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pcam.data.fetch.sha256_file", interrupt)  # the file is unpacked, and not yet renamed
        fetch(tmp_path / "data", server.url, progress=False, record=record, pause=0)
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_ranges_sends_all_of_it(server: Server, record: dict[str, str], tmp_path: Path) -> None:
    server.ranges = False
    server.break_after = [len(server.files[META]), 10_000]
    fetch(tmp_path, server.url, progress=False, record=record, pause=0.01)
    assert [name for name, _ in server.requests] == [META, X, X]
    assert verify(tmp_path) == []


@pytest.mark.parametrize("part", [b"", b"rubbish" * 40, b"x" * 10_000_000])
def test_a_part_of_something_else_is_replaced(
    server: Server, record: dict[str, str], tmp_path: Path, part: bytes
) -> None:
    (tmp_path / f"{X}.part").write_bytes(part)
    fetch(tmp_path, server.url, progress=False, record=record, pause=0.01)
    assert verify(tmp_path) == []
    assert names(tmp_path) == WHOLE


def test_a_part_that_is_already_whole_is_used(server: Server, record: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / f"{X}.part").write_bytes(server.files[X])
    fetch(tmp_path, server.url, progress=False, record=record)
    assert server.requests[-1] == (X, f"bytes={len(server.files[X])}-")
    assert verify(tmp_path) == []


def test_other_content_is_refused_and_leaves_nothing(server: Server, record: dict[str, str], tmp_path: Path) -> None:
    content = bytearray(server.files[X])
    content[100] ^= 1
    server.files[X] = bytes(content)
    with pytest.raises(DataError, match=rf"valid_x\.h5\.gz: its md5 is not {record[X]}; .*try another --base-url"):
        fetch(tmp_path, server.url, progress=False, record=record)
    assert names(tmp_path) == {META, "manifest.json"}


def test_a_right_md5_of_a_file_that_is_no_gzip(server: Server, tmp_path: Path) -> None:
    server.files = {X: b"plain"}
    with pytest.raises(DataError, match="not a whole gzip file"):
        fetch(tmp_path, server.url, progress=False, record={X: hashlib.md5(b"plain").hexdigest()})
    assert names(tmp_path) == set()


def test_a_busy_server_is_asked_again(server: Server, record: dict[str, str], tmp_path: Path) -> None:
    server.statuses = [503, 429]
    fetch(tmp_path, server.url, progress=False, record=record, pause=0.01)
    assert names(tmp_path) == WHOLE


@pytest.mark.parametrize("status", [403, 404])
def test_a_wrong_address_is_told_at_once(server: Server, record: dict[str, str], tmp_path: Path, status: int) -> None:
    server.statuses = [status]
    with pytest.raises(DataError, match=rf"valid_meta\.csv: HTTP {status}; check --base-url"):
        fetch(tmp_path, server.url, progress=False, record=record)
    assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["nonsense", "ftp://example.invalid"])
def test_an_address_that_is_none(record: dict[str, str], tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="check --base-url"):
        fetch(tmp_path, url, progress=False, record=record)


def test_nobody_answers(record: dict[str, str], tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        url = f"http://127.0.0.1:{closed.server_port}"
    with pytest.raises(DataError, match="the connection failed or broke off; check the address"):
        fetch(tmp_path, url, progress=False, record=record, pause=0.01)


def test_a_file_of_somebody_else_is_never_replaced(server: Server, record: dict[str, str], tmp_path: Path) -> None:
    mine = tmp_path / X.removesuffix(".gz")
    mine.write_bytes(b"mine")
    with pytest.raises(DataError, match="is there, but not from this record; move it away"):
        fetch(tmp_path, server.url, progress=False, record=record)
    assert mine.read_bytes() == b"mine"


def test_two_fetches_do_not_meet(server: Server, record: dict[str, str], tmp_path: Path) -> None:
    from pcam.storage import claim

    with claim(tmp_path / ".fetch"), pytest.raises(StorageError, match=f"process {os.getpid()} .*is at work on it"):
        fetch(tmp_path, server.url, progress=False, record=record)


def test_an_unwritable_folder(server: Server, record: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*choose another path"):
        fetch(tmp_path / "file" / "data", server.url, progress=False, record=record)
