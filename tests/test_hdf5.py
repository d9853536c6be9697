"""A data file is data: it reads no other path and loads no code, and says in one line why it is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from broken import make_broken

from pcam.data.format import open_split, split_path, validate
from pcam.data.manifest import verify
from pcam.data.pack import pack
from pcam.errors import DataError

SHAPE = (6, 96, 96, 3)
UNKNOWN_FILTER = 32_999


def external_link(path: Path, other: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = h5py.ExternalLink(str(other), "x")


def external_link_aside(path: Path, other: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.create_group("more")["notes"] = h5py.ExternalLink(str(other), "x")


def soft_link(path: Path, other: Path) -> None:
    with h5py.File(path, "w") as file:
        file["elsewhere"] = h5py.ExternalLink(str(other), "x")
        file["x"] = h5py.SoftLink("/elsewhere")
        del file["elsewhere"]


def virtual(path: Path, other: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, np.uint8)
    layout[:] = h5py.VirtualSource(other, "x", SHAPE)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("x", layout)


def external_storage(path: Path, other: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", SHAPE, np.uint8, external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def unknown_filter(path: Path, other: Path) -> None:
    """Chunks that claim to have gone through a filter that nobody has."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk((1, *SHAPE[1:]))
    layout.set_filter(UNKNOWN_FILTER, h5py.h5z.FLAG_OPTIONAL)
    with h5py.File(path, "w") as file:
        x = h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple(SHAPE), layout)
        for index in range(SHAPE[0]):
            x.write_direct_chunk((index, 0, 0, 0), bytes(int(np.prod(SHAPE[1:]))))


HOSTILE: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "external link": (
        external_link,
        r"train_x\.h5: x: an external link, which may read another file; store the values",
    ),
    "external link aside": (external_link_aside, r"train_x\.h5: more/notes: an external link, which may read another"),
    "soft link": (soft_link, r"train_x\.h5: x: a soft link, which may read another file; store the values"),
    "virtual": (virtual, r"train_x\.h5: x: a virtual dataset, which reads other files; store the values"),
    "external storage": (external_storage, r"train_x\.h5: x: external storage, which reads another file; store the"),
    "filter": (unknown_filter, r"train_x\.h5: x: filter 32999 would load code from a plugin; store it plain or with"),
}


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A folder whose train patches lead outside, and what has to be said about it."""
    make, message = HOSTILE[request.param]
    folder = make_broken("one_class", tmp_path / "source")
    other = tmp_path / "other.h5"
    shutil.copy(split_path(folder, "train", "x"), other)
    make(split_path(folder, "train", "x"), other)
    return folder, message


def test_what_leads_out_of_the_file_is_refused(hostile: tuple[Path, str], tmp_path: Path) -> None:
    folder, message = hostile
    with pytest.raises(DataError, match=message) as error:
        open_split(folder, "train")
    assert "\n" not in str(error.value)
    assert [str(fault) for fault in validate(folder, "train")] == [str(error.value)]
    assert [str(fault) for fault in verify(folder)] == [str(error.value)]
    with pytest.raises(DataError, match=message):
        pack(folder, tmp_path / "packed", progress=False)
    assert not (tmp_path / "packed").exists()


def test_labels_are_looked_at_as_well(tmp_path: Path) -> None:
    folder = make_broken("one_class", tmp_path)
    path = split_path(folder, "train", "y")
    path.rename(tmp_path / "other.h5")
    with h5py.File(path, "w") as file:
        file["y"] = h5py.ExternalLink("other.h5", "y")
    with pytest.raises(DataError, match=r"train_y\.h5: y: an external link, which may read another file"):
        open_split(folder, "train")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = split_path(make_broken("one_class", tmp_path), "train", "x")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"train_x\.h5: file: not a file; fetch it again"):
        open_split(tmp_path, "train")


def test_numbers_that_the_library_packs_are_read(tmp_path: Path) -> None:
    folder = make_broken("one_class", tmp_path)
    pixels = open_split(folder, "train").read(slice(None))
    with h5py.File(split_path(folder, "train", "x"), "w") as file:
        file.create_dataset("x", data=pixels, chunks=(2, 96, 96, 3), scaleoffset=0)
    assert np.array_equal(open_split(folder, "train").read(slice(None)), pixels)


@pytest.mark.parametrize("name", ["gzip", "lzf", "szip"])
def test_filters_that_come_with_the_library_are_read(name: str, tmp_path: Path) -> None:
    if name not in h5py.filters.encode:
        pytest.skip(f"this build of HDF5 has no {name}")
    folder = make_broken("one_class", tmp_path)
    pixels = open_split(folder, "train").read(slice(None))
    with h5py.File(split_path(folder, "train", "x"), "w") as file:
        file.create_dataset("x", data=pixels, chunks=(2, 96, 96, 3), compression=name, shuffle=True, fletcher32=True)
    assert np.array_equal(open_split(folder, "train").read(slice(None)), pixels)


@pytest.mark.parametrize("chunks", [None, (2, 96, 96, 3)], ids=["contiguous", "chunked"])
def test_what_was_never_written_is_not_read_as_black(chunks: tuple[int, ...] | None, tmp_path: Path) -> None:
    folder = make_broken("one_class", tmp_path)
    with h5py.File(split_path(folder, "train", "x"), "w") as file:
        x = file.create_dataset("x", SHAPE, np.uint8, chunks=chunks)
        if chunks:
            x[4:] = 7
    missing = "2 of 3 chunks" if chunks else "165,888 B of it"
    with pytest.raises(DataError, match=rf"train_x\.h5: x: incomplete: {missing} was never written; fetch it again"):
        open_split(folder, "train")


LOADED = "import sys, h5py; sys.path.insert(0, sys.argv[2]); from pathlib import Path; path = Path(sys.argv[1])\n"
PLAIN = "h5py.File(path / 'camelyonpatch_level_2_split_train_x.h5')['x'][0]"
OURS = "from pcam.data import open_split; open_split(path, 'train')"


@pytest.mark.skipif(sys.platform != "linux", reason="watches the dynamic loader of glibc")
@pytest.mark.parametrize(("how", "loads"), [(PLAIN, True), (OURS, False)], ids=["plain h5py", "this package"])
def test_no_plugin_is_loaded(how: str, loads: bool, tmp_path: Path) -> None:
    """The loader of the system writes down every library that a process opens; plain h5py shows that it is seen."""
    folder = make_broken("one_class", tmp_path / "data")
    unknown_filter(split_path(folder, "train", "x"), folder)
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    library = next(Path(h5py.__file__).parent.glob("h5ac*.so"))  # any library will do
    shutil.copy(library, plugins / "libplugin.so")
    done = subprocess.run(
        [sys.executable, "-c", LOADED + how, str(folder), str(Path(__file__).parent.parent)],
        env={**os.environ, "HDF5_PLUGIN_PATH": str(plugins), "LD_DEBUG": "files"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert ("libplugin.so" in done.stderr) == loads


def test_damaged_headers_never_end_in_anything_else(tmp_path: Path) -> None:
    """Bytes of the header are overwritten at random: whatever the library makes of it, one line comes out of it."""
    folder = make_broken("one_class", tmp_path)
    path = split_path(folder, "train", "x")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, 2400, rng.integers(1, 5)):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                open_split(folder, "train").read(slice(None))
            except DataError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 20
