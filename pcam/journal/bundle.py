"""The offline hand-over: one tar with all that somebody else needs to read, run and judge the work.

    source/       every tracked file of the project
    book/         the finished book; open book/index.html
    model/<id>/   the best run: its record, and the model with its checksum
    evidence/     the named values behind each chapter
    MANIFEST.json size and SHA-256 of every file above, and what the bundle is

The same inputs give the same bytes: names are sorted, and dates, owners and modes are fixed. A bundle is read as
something a stranger made: names that leave the folder, links and devices are refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pcam.config import project_root
from pcam.errors import JournalError, clip
from pcam.journal.handover import MAKE_IT, best_run, planned_runs
from pcam.journal.history import git
from pcam.journal.plan import Plan, open_plan
from pcam.journal.stage import edition_name, evidence_digests
from pcam.provenance import git_state, is_checkout
from pcam.storage import atomic_path, make_folder, read_json, sha256_file, write_bytes
from pcam.training.runs import MODEL_FILE, RECORD_FILES, Run

MANIFEST = "MANIFEST.json"
FORMAT = 1
_BLOCK = 1 << 20
_NOT_SOURCE = {"_work", "_build", "runs", ".git", ".venv", ".snakemake", "__pycache__"}


@dataclass(frozen=True)
class BundleFault:
    """One thing wrong with a bundle: the `member` it is about, and the `problem`."""

    member: str
    problem: str

    def __str__(self) -> str:
        return f"{clip(self.member)}: {self.problem}"  # a stranger chose the name: it may hold line breaks


def source_files(root: Path) -> list[Path]:
    """Return the project's tracked files; in a folder that is no checkout, all that is neither generated nor hidden."""
    if is_checkout(root):
        found = [root / name for name in git(root, "ls-files", "-z").split("\0") if name]
    else:
        found = [p for p in root.rglob("*") if not _NOT_SOURCE & set(p.relative_to(root).parts)]
    # A link such as book/_toc.yml is packed as what it points to: bundles hold no links.
    return sorted(p for p in found if p.is_file())


def contents(plan: Plan, run: Run, book: Path | None) -> dict[str, Path]:
    """Return what a bundle of this journal holds: name in the bundle → file.

    Args:
        plan: the journal.
        run: the run whose model is handed over.
        book: the finished book; None: without it and the chapters' evidence, as for a chapter, which is a page of it.

    Raises:
        JournalError: the book is not finished, is of another journal or older than its chapters, or the run lacks
            a file.
    """
    root = project_root()
    files = {f"source/{p.relative_to(root).as_posix()}": p for p in source_files(root)}
    files |= {f"model/{run.id}/{name}": path for name, path in run_files(run).items()}
    if book is None:
        return files
    edition, evidence = book / edition_name(plan.work), evidence_digests(plan.work)
    if not edition.exists() or not evidence:
        raise JournalError(f"{book}: no finished book of this journal; {MAKE_IT}")
    if read_json(edition, "edition").get("evidence") != evidence:
        raise JournalError(f"{book}: a chapter was run after the book was built; {MAKE_IT}")
    files |= {f"book/{p.relative_to(book).as_posix()}": p for p in book.rglob("*") if p.is_file()}
    return files | {f"evidence/{name}": plan.work / "executed" / name for name in evidence}


def run_files(run: Run) -> dict[str, Path]:
    """Return the files of a run that another machine needs: its record and its model (not its checkpoints).

    Raises:
        JournalError: one is missing.
    """
    files = {name: run.path / name for name in (*RECORD_FILES, MODEL_FILE, f"{MODEL_FILE}.sha256")}
    missing = [name for name, path in files.items() if not path.is_file()]
    if missing:
        raise JournalError(f"run {run.id} lacks {missing[0]}; train it again")
    return files


def make_bundle(out: Path | str, data_dir: Path | str | None = None) -> Path:
    """Write the hand-over of a journal as one tar and return its path.

    Args:
        out: the tar; it appears whole or not at all.
        data_dir: the data folder whose journal it is; None: the synthetic sample.

    Raises:
        JournalError: the journal is not finished, or the name does not end in .tar.
        StorageError: the tar cannot be written.
    """
    if Path(out).suffix != ".tar":  # a slip would replace the file that is named
        raise JournalError(f"{out}: a bundle is a tar; name it {Path(out).stem}.tar")
    plan = open_plan(data_dir, make=False)
    files = contents(plan, best_run(planned_runs(plan)), project_root() / "_build" / "html")
    return pack(files, out, journal=plan.work.name, data_kind=plan.kind)


def pack(files: dict[str, Path], out: Path | str, **about: str) -> Path:
    """Write files and a manifest of them as a deterministic tar.

    Args:
        files: name in the tar → file.
        out: the tar.
        about: what the bundle is; it goes into the manifest.
    """
    listed = {name: {"bytes": files[name].stat().st_size, "sha256": sha256_file(files[name])} for name in sorted(files)}
    manifest = {"format": FORMAT, **about, "commit": git_state().commit, "files": listed}
    with atomic_path(out) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
        for name in listed:
            _add(tar, name, files[name].read_bytes())
    return Path(out)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # owner 0, date 0, mode 644: nothing of this machine
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def verify_bundle(path: Path | str) -> list[BundleFault]:
    """Name every fault of a bundle without unpacking it.

    Args:
        path: the tar.

    Raises:
        JournalError: there is no such file, or it is not a bundle.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            return _faults(tar, path)
    except FileNotFoundError as error:
        raise JournalError(f"{path}: no such bundle; make one with 'pcam bundle make {path}'") from error
    except (tarfile.TarError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise JournalError(f"{path}: not a whole tar ({reason}); make or fetch it again") from error


def _faults(tar: tarfile.TarFile, path: Path | str) -> list[BundleFault]:
    faults: list[BundleFault] = []
    found: dict[str, str] = {}
    manifest: dict[str, dict[str, dict[str, str]]] = {}
    for member in tar:
        problem = _unsafe(member) or ("is there twice" if member.name in found else "")
        if problem:
            faults.append(BundleFault(member.name, problem))
            continue
        content = tar.extractfile(member)
        digest = hashlib.sha256()
        blocks = []
        while content and (block := content.read(_BLOCK)):
            digest.update(block)
            if member.name == MANIFEST:
                blocks.append(block)
        found[member.name] = digest.hexdigest()
        if member.name == MANIFEST:
            manifest = _manifest(b"".join(blocks), path)
    if _more_follows(tar):  # which `tar --ignore-zeros` would unpack as well
        faults.append(BundleFault("its end", "more follows behind the last file"))
    if MANIFEST not in found:
        raise JournalError(f"{path}: no {MANIFEST} in it: not a bundle of this project")
    listed = manifest["files"]
    faults += [BundleFault(name, "is in the manifest but not in the bundle") for name in sorted(listed.keys() - found)]
    faults += [
        BundleFault(name, "is not in the manifest") for name in sorted(found.keys() - listed.keys() - {MANIFEST})
    ]
    changed = sorted(name for name in listed.keys() & found if listed[name]["sha256"] != found[name])
    return faults + [BundleFault(name, "was changed: its sha256 differs from the manifest") for name in changed]


def _more_follows(tar: tarfile.TarFile) -> bool:
    """Whether anything but zeros follows where the reading of a tar ended."""
    assert tar.fileobj is not None  # it is open
    tar.fileobj.seek(tar.offset)
    return any(block.strip(b"\0") for block in iter(lambda: tar.fileobj.read(_BLOCK), b""))


def _manifest(content: bytes, path: Path | str) -> dict[str, dict[str, dict[str, str]]]:
    try:
        manifest = json.loads(content)
        if manifest["format"] != FORMAT:
            found = clip(str(manifest["format"]))
            raise JournalError(f"{path}: {MANIFEST}: format {found}, not {FORMAT}; use the pcam that made it")
        if not manifest["files"] or not all(isinstance(entry["sha256"], str) for entry in manifest["files"].values()):
            raise ValueError("it lists no files with their sha256")
    except (AttributeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise JournalError(f"{path}: {MANIFEST}: not a manifest ({error}); make or fetch the bundle again") from error
    return dict(manifest)


def _unsafe(member: tarfile.TarInfo) -> str:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or not name.parts:
        return "its name leaves the folder"
    return "" if member.isreg() else "is not a plain file"


def unpack(path: Path | str, folder: Path | str) -> Path:
    """Unpack a bundle that `verify_bundle` finds no fault with into a new folder and return it.

    Raises:
        JournalError: it is faulty; nothing is written then.
    """
    faults = verify_bundle(path)
    if faults:
        raise JournalError(f"{path}: not unpacked: {faults[0]}")
    folder = make_folder(Path(folder))
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None  # verify_bundle() let plain files through only
            write_bytes(folder / member.name, content.read())
    return folder
