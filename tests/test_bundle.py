"""The offline hand-over: complete, deterministic, verified, and unpacked as if a stranger had made it."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from pcam.errors import JournalError
from pcam.journal.bundle import MANIFEST, contents, pack, source_files, unpack, verify_bundle
from pcam.journal.plan import Plan
from pcam.journal.stage import evidence_digests
from pcam.storage import write_json, write_text
from pcam.training.runs import MODEL_FILE, RECORD_FILES, Run


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, text in {"a.txt": "first", "b.txt": "second"}.items():
        (folder / name).write_text(text)
    return {"source/a.txt": folder / "a.txt", "book/b.txt": folder / "b.txt"}


def rewritten(
    tar: Path, out: Path, extra: list[tuple[tarfile.TarInfo, bytes]], drop: str = "", change: str = ""
) -> Path:
    """Return a copy of a tar with members added, dropped or changed."""
    with tarfile.open(tar) as old, tarfile.open(out, "w") as new:
        for member in old:
            content = old.extractfile(member).read()  # type: ignore[union-attr]
            if member.name == change:
                content = bytes([content[0] ^ 1]) + content[1:]
            if member.name != drop:
                new.addfile(member, io.BytesIO(content))
        for member, content in extra:
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return out


def test_the_same_files_make_the_same_bytes(tmp_path: Path, files: dict[str, Path]) -> None:
    first = pack(files, tmp_path / "1.tar", journal="sample")
    for path in files.values():
        path.touch()
        path.chmod(0o600)
    second = pack(dict(reversed(files.items())), tmp_path / "2.tar", journal="sample")
    assert first.read_bytes() == second.read_bytes()
    assert verify_bundle(first) == []
    with tarfile.open(first) as tar:
        assert tar.getnames() == [MANIFEST, "book/b.txt", "source/a.txt"]
        manifest = json.load(tar.extractfile(MANIFEST))  # type: ignore[arg-type]
    assert manifest["journal"] == "sample" and manifest["files"]["book/b.txt"]["bytes"] == 6


def test_unpacking_brings_back_every_file(tmp_path: Path, files: dict[str, Path]) -> None:
    folder = unpack(pack(files, tmp_path / "b.tar"), tmp_path / "out")
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {*files, MANIFEST}
    assert (folder / "source" / "a.txt").read_text() == "first"


@pytest.mark.parametrize(
    ("drop", "change", "fault"),
    [
        ("book/b.txt", "", "book/b.txt: is in the manifest but not in the bundle"),
        ("", "source/a.txt", "source/a.txt: was changed: its sha256 differs from the manifest"),
    ],
)
def test_a_missing_or_changed_file_is_found(
    tmp_path: Path, files: dict[str, Path], drop: str, change: str, fault: str
) -> None:
    bad = rewritten(pack(files, tmp_path / "b.tar"), tmp_path / "bad.tar", [], drop, change)
    assert [str(f) for f in verify_bundle(bad)] == [fault]
    with pytest.raises(JournalError, match=f"not unpacked: {fault}"):
        unpack(bad, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "kind", "fault"),
    [
        ("../evil.txt", tarfile.REGTYPE, r"\.\./evil\.txt: its name leaves the folder"),
        ("/evil.txt", tarfile.REGTYPE, r"/evil\.txt: its name leaves the folder"),
        ("book/../../evil.txt", tarfile.REGTYPE, "its name leaves the folder"),
        ("link", tarfile.SYMTYPE, "link: is not a plain file"),
        ("hard", tarfile.LNKTYPE, "hard: is not a plain file"),
        ("pipe", tarfile.FIFOTYPE, "pipe: is not a plain file"),
        ("extra.txt", tarfile.REGTYPE, r"extra\.txt: is not in the manifest"),
        ("source/a.txt", tarfile.REGTYPE, r"source/a\.txt: is there twice"),
    ],
)
def test_what_a_stranger_may_have_put_in(
    tmp_path: Path, files: dict[str, Path], name: str, kind: bytes, fault: str
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    content = b"evil" if kind == tarfile.REGTYPE else b""
    bad = rewritten(pack(files, tmp_path / "b.tar"), tmp_path / "bad.tar", [(member, content)])
    with pytest.raises(JournalError, match=f"not unpacked: .*{fault}"):
        unpack(bad, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("evil.txt")) and not (tmp_path / "deep").exists()


def test_what_is_no_bundle(tmp_path: Path, files: dict[str, Path]) -> None:
    with pytest.raises(JournalError, match=r"gone\.tar: no such bundle; make one with 'pcam bundle make "):
        verify_bundle(tmp_path / "gone.tar")
    (tmp_path / "text.tar").write_text("not a tar")
    with pytest.raises(JournalError, match=r"text\.tar: not a whole tar"):
        verify_bundle(tmp_path / "text.tar")
    whole = pack(files, tmp_path / "b.tar")
    with pytest.raises(JournalError, match=r"none\.tar: no MANIFEST\.json in it: not a bundle of this project"):
        verify_bundle(rewritten(whole, tmp_path / "none.tar", [], drop=MANIFEST))
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:700])
    with pytest.raises(JournalError, match=r"cut\.tar: not a whole tar"):
        verify_bundle(tmp_path / "cut.tar")


@pytest.mark.parametrize(
    ("manifest", "fault"),
    [
        ([], "not a manifest"),
        ({"format": "2\n"}, r"format 2\\n, not 1; use the pcam that made it"),
        ({"format": 1, "files": {}}, "it lists no files"),
        ({"format": 1, "files": ["a"]}, "not a manifest"),
        ({"format": 1, "files": {"a": 3}}, "not a manifest"),
        ({"format": 1, "files": {"a": {}}}, "not a manifest"),
        ({"format": 1, "files": {"a": {"sha256": 1}}}, "not a manifest"),
    ],
)
def test_a_manifest_that_a_stranger_wrote(tmp_path: Path, files: dict[str, Path], manifest: object, fault: str) -> None:
    content = json.dumps(manifest).encode()
    whole = pack(files, tmp_path / "b.tar")
    bad = rewritten(whole, tmp_path / "bad.tar", [(tarfile.TarInfo(MANIFEST), content)], drop=MANIFEST)
    with pytest.raises(JournalError, match=rf"bad\.tar: MANIFEST\.json: .*{fault}"):
        verify_bundle(bad)


def test_what_follows_behind_the_end_is_found(tmp_path: Path, files: dict[str, Path]) -> None:
    whole = pack(files, tmp_path / "b.tar")
    assert verify_bundle(whole) == []
    whole.write_bytes(whole.read_bytes() * 2)
    assert [str(fault) for fault in verify_bundle(whole)] == ["its end: more follows behind the last file"]


def test_a_members_name_stays_in_its_line(tmp_path: Path, files: dict[str, Path]) -> None:
    bad = rewritten(pack(files, tmp_path / "b.tar"), tmp_path / "bad.tar", [(tarfile.TarInfo("a\nb\x1b[1m"), b"x")])
    assert [str(fault) for fault in verify_bundle(bad)] == [r"a\nb\x1b[1m: is not in the manifest"]


def test_without_a_finished_journal(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "data", tmp_path / "work", "synthetic", {})
    run = Run(tmp_path / "abc")
    with pytest.raises(JournalError, match=r"^run abc lacks config\.yaml; train it again$"):
        contents(plan, run, None)
    for name in (*RECORD_FILES, MODEL_FILE, f"{MODEL_FILE}.sha256"):
        write_text(run.path / name, "x")
    assert f"model/abc/{MODEL_FILE}" in contents(plan, run, None)
    book, evidence = tmp_path / "html", plan.work / "executed" / "q4_gradients.json"
    write_json(evidence, {})
    write_json(book / "edition-other.json", {"evidence": evidence_digests(plan.work)})
    with pytest.raises(JournalError, match="html: no finished book of this journal; run 'make journal' first"):
        contents(plan, run, book)
    write_json(book / "edition-work.json", {"evidence": evidence_digests(plan.work)})
    assert contents(plan, run, book)["evidence/q4_gradients.json"] == evidence
    write_json(evidence, {"chapter": "q4_gradients"})
    with pytest.raises(JournalError, match="html: a chapter was run after the book was built; run 'make journal'"):
        contents(plan, run, book)


def test_source_is_what_git_tracks_and_without_git_what_is_not_generated(tmp_path: Path) -> None:
    for name in ("kept.py", "_work/made.json", "ignored.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [p.name for p in source_files(tmp_path)] == ["ignored.log", "kept.py"]
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "kept.py"], cwd=tmp_path, check=True)
    assert [p.name for p in source_files(tmp_path)] == ["kept.py"]
    inside = tmp_path / "archive"  # of the project, unpacked inside another one's checkout
    write_text(inside / "source.py", "")
    assert [p.name for p in source_files(inside)] == ["source.py"]
