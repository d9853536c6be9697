"""What Q7 shows: the history as git tells it, gates that stop their fault, a merge conflict and its resolution."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcam.errors import JournalError
from pcam.journal.conflict import as_table, demonstrate
from pcam.journal.gates import GATES, Gate, Trial, try_gates, workflow_jobs
from pcam.journal.history import QUIET_GIT, git, read_history
from pcam.journal.packages import installed_packages


def commit(folder: Path, author: str, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("a") as file:
            file.write(f"{author}\n")
    who = ["-c", f"user.name={author}", "-c", "user.email=a@example.org"]
    git(folder, "add", ".", env=QUIET_GIT)
    git(folder, *who, "commit", "-q", "-m", f"{author} was here", env=QUIET_GIT)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main", env=QUIET_GIT)
    commit(folder, "Ada", "pcam/a.py", "tests/test_a.py", "README.md")
    git(folder, "checkout", "-q", "-b", "side")
    commit(folder, "Ben", "pcam/b.py")
    git(folder, "checkout", "-q", "main")
    commit(folder, "Ada", "book/index.md")
    return folder


def test_a_linear_history(repository: Path) -> None:
    history = read_history(repository)
    assert history.is_linear and not history.shallow and history.branches == ("main", "side")
    assert [(c.author, c.files) for c in history.commits] == [
        ("Ada", ("book/index.md",)),
        ("Ada", ("README.md", "pcam/a.py", "tests/test_a.py")),
    ]
    assert history.with_tests == (1, 1)
    assert history.authors()[["author", "commits", "share"]].to_numpy().tolist() == [["Ada", 2, 1.0]]


def test_a_merge_makes_it_branched(repository: Path) -> None:
    git(repository, "-c", "user.name=Ada", "-c", "user.email=a@example.org", "merge", "-q", "--no-edit", "side")
    history = read_history(repository)
    assert (len(history.commits), history.merges, history.is_linear) == (4, 1, False)
    assert history.with_tests == (1, 2)
    assert dict(history.areas().to_numpy().tolist()) == {"pcam/": 2, "book/": 1, "tests/": 1, "top files": 1}


def test_a_shallow_clone_says_so(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository}", "shallow", env=QUIET_GIT)
    history = read_history(tmp_path / "shallow")
    assert history.shallow and len(history.commits) == 1


def test_no_repository_and_somebody_elses(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"git rev-parse in .*: fatal: not a git repository"):
        read_history(tmp_path)
    with pytest.raises(JournalError, match=r"pcam is not the top of a repository: this copy has no history of its own"):
        read_history(repository / "pcam")


def test_git_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(JournalError, match="git is not installed"):
        read_history(tmp_path)


def test_a_conflict_is_decided_in_the_text(tmp_path: Path) -> None:
    different, same = demonstrate(tmp_path / "merge")
    assert different.conflicts[".ipynb"] > 0 and different.conflicts[".py"] == 0
    assert same.conflicts[".py"] == 1 and "threshold = 0.7" in same.hunk and "threshold = 0.4" in same.hunk
    assert not different.opens and not same.opens and different.resolved and same.resolved
    assert as_table([different, same])["resolved from the text"].tolist() == ["yes", "yes"]


# The slower gates (types, notebooks, book) are tried where the chapter is run.
@pytest.mark.parametrize("gate", [g for g in GATES if g.name in ("lint", "numbers are bound")], ids=lambda g: g.name)
def test_a_gate_stops_its_fault(gate: Gate, root: Path, tmp_path: Path) -> None:
    trial = try_gates(root, tmp_path, [gate])[0]
    assert (trial.clean, trial.verdict) == (0, "stopped"), trial
    assert str(tmp_path) not in trial.line


@pytest.mark.parametrize(
    ("clean", "broken", "line", "verdict"),
    [
        (0, 1, "the fault", "stopped"),
        (0, 0, "", "let through"),
        (0, 1, "", "let through"),
        (1, 1, "the fault", "fails without a fault"),
        (None, None, "", "not installed"),
    ],
)
def test_verdicts(clean: int | None, broken: int | None, line: str, verdict: str) -> None:
    assert Trial(GATES[0], clean, broken, line).verdict == verdict


def test_a_tool_that_is_not_installed(root: Path, tmp_path: Path) -> None:
    gate = Gate("none", "no_such_tool_here", ("no_such_tool_here",), "any", {}, "")
    assert [t.verdict for t in try_gates(root, tmp_path, [gate])] == ["not installed"]


def test_the_jobs_are_read_from_the_workflow(root: Path, tmp_path: Path) -> None:
    assert "make lint; make unit; make tracking" in workflow_jobs(root).commands.tolist()
    assert workflow_jobs(tmp_path).empty


def test_the_largest_package_comes_first() -> None:
    table = installed_packages()
    assert table.megabytes.is_monotonic_decreasing and {"torch", "numpy"} <= set(table.package)
