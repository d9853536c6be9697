"""Download the public PCam record, so that what stands under a final name is whole and verified.

Each file is downloaded to `NAME.part`, continued there after an interruption (HTTP Range), checked against the
record's md5 by pooch, decompressed as a stream into a temporary file and renamed. The manifest then remembers
the SHA-256 of the decompressed file, so that the next call can tell verified files from damaged ones.
Source: Zenodo record 2546921 (Veeling et al. 2018). The record's own README swaps the sums of valid and test.
"""

from __future__ import annotations

import gzip
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pooch
import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from pcam.data.manifest import Entry, add_entry, read_manifest
from pcam.errors import DataError
from pcam.storage import atomic_path, claim, make_folder, sha256_file, writing

BASE_URL = "https://zenodo.org/records/2546921/files"
_PREFIX = "camelyonpatch_level_2_split"
# md5 of the files as they are downloaded; small ones first, so that a wrong address shows at once.
RECORD: Mapping[str, str] = {
    f"{_PREFIX}_train_meta.csv": "5a3dd671e465cfd74b5b822125e65b0a",
    f"{_PREFIX}_valid_meta.csv": "67589e00a4a37ec317f2d1932c7502ca",
    f"{_PREFIX}_test_meta.csv": "3455fd69135b66734e1008f3af684566",
    f"{_PREFIX}_train_y.h5.gz": "35c2d7259d906cfc8143347bb8e05be7",
    f"{_PREFIX}_valid_y.h5.gz": "2b85f58b927af9964a4c15b8f7e8f179",
    f"{_PREFIX}_test_y.h5.gz": "60a7035772fbdb7f34eb86d4420cf66a",
    f"{_PREFIX}_valid_x.h5.gz": "d5b63470df7cfa627aeec8b9dc0c066e",
    f"{_PREFIX}_test_x.h5.gz": "d8c2d60d490dbd479f8199bdfa0cf6ec",
    f"{_PREFIX}_train_x.h5.gz": "1571f514728f59376b705fc836ff4b63",
}

_BLOCK = 1 << 20
_ATTEMPTS = 5
_TIMEOUT = (10, 60)  # seconds to connect, and between two bytes


class _TryAgainError(Exception):
    """The connection broke or the server was busy: what has arrived stays, and the rest can be asked for again."""


def fetch(
    directory: Path | str,
    base_url: str | None = None,
    progress: bool = True,
    *,
    record: Mapping[str, str] = RECORD,
    pause: float = 1.0,
) -> list[Path]:
    """Download what of the record is missing in a folder, and verify all of it.

    Args:
        directory: created if need be; continued if a download there was interrupted.
        base_url: of a mirror that serves the files under the record's names.
        progress: show a bar; otherwise one line a file on stderr.
        record: md5 of each downloaded file by name; a name that ends in .gz is decompressed.
        pause: seconds before the second attempt; doubled with each further one.

    Returns:
        The paths of the record's files (decompressed), in the order of the record.

    Raises:
        DataError: the server cannot be reached, breaks off again and again, or serves other content; or a file of that
            name is there that `fetch` did not write.
        StorageError: the folder cannot be written or is being fetched into by another process.
    """
    folder, is_new = Path(directory), not Path(directory).exists()
    url = (base_url or BASE_URL).rstrip("/")
    paths = []
    with _without_empty(make_folder(folder) if is_new else None), claim(make_folder(folder) / ".fetch"):
        for name, md5 in record.items():
            path = folder / name.removesuffix(".gz")
            if not _is_verified(path, md5):
                _fetch_one(path, name, md5, url, progress, pause)
                if not progress:
                    print(f"fetched {path}", file=sys.stderr)
            paths.append(path)
    return paths


@contextmanager
def _without_empty(folder: Path | None) -> Iterator[None]:
    """Remove a folder that was made for a download of which nothing arrived."""
    try:
        yield
    finally:
        if folder and not any(folder.iterdir()):
            folder.rmdir()


def _is_verified(path: Path, md5: str) -> bool:
    """Return whether a file is there as an earlier fetch wrote it; False if it is missing or damaged."""
    if not path.exists():
        return False
    entry = read_manifest(path.parent).get(path.name)
    if entry is None or entry.source_md5 != md5:
        raise DataError(f"{path}: is there, but not from this record; move it away or fetch into another folder")
    return path.stat().st_size == entry.bytes and sha256_file(path) == entry.sha256


def _fetch_one(path: Path, name: str, md5: str, url: str, progress: bool, pause: float) -> None:
    # Even a CSV, which needs no unpacking, arrives under a passing name, so that all files come to be in one way.
    download = _Download(path.with_name(f"{name}.part"), progress, pause)
    pooch.get_logger().setLevel("WARNING")
    for attempt in ("first", "second"):
        try:
            with writing(path):
                fetched = Path(
                    pooch.retrieve(f"{url}/{name}", f"md5:{md5}", f"{name}.done", path.parent, downloader=download)
                )
            break
        except ValueError as error:  # pooch's word for a wrong md5; a part from another source can be at fault
            if attempt == "second":
                problem = f"{url}/{name}: its md5 is not {md5}"
                raise DataError(f"{problem}; the server holds another file: try another --base-url") from error
    try:
        _unpack(fetched, path, compressed=name.endswith(".gz"), md5=md5)
    finally:
        fetched.unlink(missing_ok=True)


def _unpack(source: Path, path: Path, *, compressed: bool, md5: str) -> None:
    opener: Callable[[Path, str], Any] = gzip.open if compressed else open
    with atomic_path(path) as temporary:
        try:
            with opener(source, "rb") as packed, temporary.open("wb") as file:
                while block := packed.read(_BLOCK):
                    file.write(block)
        except (gzip.BadGzipFile, EOFError) as error:
            raise DataError(f"{source}: not a whole gzip file ({error}); fetch it again") from error
        entry = Entry(temporary.stat().st_size, sha256_file(temporary), md5)
    add_entry(path.parent, path.name, entry)


class _Download:
    """A downloader for pooch that continues where an earlier one broke off.

    Args:
        part: collects the bytes; it outlives an interruption.
        progress: show a bar.
        pause: seconds before the second attempt.
    """

    def __init__(self, part: Path, progress: bool, pause: float) -> None:
        self.part = part
        self.progress = progress
        self.pause = pause

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        """Download `url` to the part, and when it is whole move it to `output_file`, which pooch then checks."""
        for attempt in range(_ATTEMPTS):
            try:
                self._continue(url)
                break
            except _TryAgainError as error:
                if attempt == _ATTEMPTS - 1:
                    hint = "run the same command again to continue" if self.part.exists() else "check the address"
                    raise DataError(f"{url}: {error}; {hint}") from error
                time.sleep(self.pause * 2**attempt)
        self.part.replace(output_file)

    def _continue(self, url: str) -> None:
        have = self.part.stat().st_size if self.part.exists() else 0
        # identity: a server that compresses on the fly would make sizes and ranges meaningless
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        try:
            with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
                self._receive(response, have)
        except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
            raise _TryAgainError("the connection failed or broke off") from error
        except requests.RequestException as error:
            raise DataError(f"{url}: {error}; check --base-url") from error

    def _receive(self, response: requests.Response, have: int) -> None:
        status = response.status_code
        if status == 416:  # nothing left to send, or a part of something else: the md5 will tell
            if response.headers.get("Content-Range", "").endswith(f"/{have}"):
                return
            self.part.unlink()
            raise _TryAgainError("what had arrived does not fit the file")
        if status == 429 or status >= 500:
            raise _TryAgainError(f"HTTP {status}")
        if status not in (200, 206):
            raise DataError(f"{response.url}: HTTP {status}; check --base-url")
        start = have if status == 206 else 0  # 200: the server knows no ranges and sends all of it
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            writing(self.part),
            self.part.open("ab" if start else "wb") as file,
            tqdm(
                total=total,
                initial=start,
                desc=self.part.stem,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                disable=not self.progress,
            ) as bar,
        ):
            for block in response.raw.stream(_BLOCK, decode_content=False):
                file.write(block)
                bar.update(len(block))
        if total is not None and self.part.stat().st_size != total:
            raise _TryAgainError(f"{self.part.stat().st_size} of {total} bytes arrived")
