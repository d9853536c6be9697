"""The repository's own history, read with git: commits, merges, authors, branches, and whether it is linear.

A clone may be shallow, and an archive has no history at all; both are told, because counts from a cut history
look like counts.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pcam.errors import JournalError

_RECORD, _FIELD = "\x1e", "\x1f"  # characters that no subject or name holds
# A demonstration must not depend on anybody's settings, hooks or signing keys.
QUIET_GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}


@dataclass(frozen=True)
class Commit:
    """One commit: `hash`, `parents`, `author`, `date` (ISO day), `subject` and the `files` that it touched."""

    hash: str
    parents: tuple[str, ...]
    author: str
    date: str
    subject: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class History:
    """All commits that lead to the present one, newest first.

    Attributes:
        commits: newest first.
        branches: local and remote branches.
        shallow: the clone was cut, so that older commits are missing.
    """

    commits: tuple[Commit, ...]
    branches: tuple[str, ...]
    shallow: bool

    @property
    def merges(self) -> int:
        """The number of commits with more than one parent."""
        return sum(len(commit.parents) > 1 for commit in self.commits)

    @property
    def is_linear(self) -> bool:
        """Whether no two lines of work were ever merged: the history reads from top to bottom."""
        return self.merges == 0

    @property
    def with_tests(self) -> tuple[int, int]:
        """Of the commits that touch the package: how many touch tests too, and how many there are."""
        code = [c for c in self.commits if any(name.startswith("pcam/") for name in c.files)]
        return sum(any(name.startswith("tests/") for name in c.files) for c in code), len(code)

    def authors(self) -> pd.DataFrame:
        """Return columns author, commits, share, first, last; most commits first."""
        counts: Counter[str] = Counter(commit.author for commit in self.commits)
        rows = []
        for author, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            days = sorted(commit.date for commit in self.commits if commit.author == author)
            rows.append((author, count, count / len(self.commits), days[0], days[-1]))
        return pd.DataFrame(rows, columns=["author", "commits", "share", "first", "last"])

    def areas(self) -> pd.DataFrame:
        """Return columns area, commits: how many commits touched each top folder (or a file at the top)."""
        touched: Counter[str] = Counter(
            area
            for commit in self.commits
            for area in {f"{name.split('/')[0]}/" if "/" in name else "top files" for name in commit.files}
        )
        rows = sorted(touched.items(), key=lambda item: (-item[1], item[0]))
        return pd.DataFrame(rows, columns=["area", "commits"])


def git(folder: Path, *arguments: str, check: bool = True, env: dict[str, str] | None = None) -> str:
    """Run git in a folder and return what it prints.

    Raises:
        JournalError: git is not installed, or (with `check`) the command failed.
    """
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **(env or {})},
        )
    except FileNotFoundError as error:
        raise JournalError("git is not installed; install it to read the history") from error
    if check and done.returncode:
        problem = (done.stderr.strip() or done.stdout.strip() or "failed").splitlines()[0]
        verb = next(word for word in arguments if word[0] != "-" and "=" not in word)
        raise JournalError(f"git {verb} in {folder}: {problem}")
    return done.stdout


def read_history(root: Path) -> History:
    """Read the history of the checkout at `root`.

    Raises:
        JournalError: there is no git, no repository whose top is `root`, or no commit; the line says which.
    """
    top = git(root, "rev-parse", "--show-toplevel").strip()
    if Path(top).resolve() != root.resolve():
        # An archive unpacked inside another project must not show that project's history.
        raise JournalError(f"{root} is not the top of a repository: this copy has no history of its own")
    layout = _RECORD + _FIELD.join(("%H", "%P", "%an", "%as", "%s")) + _FIELD
    # A merge lists no files of its own: the commits that it brings in do.
    commits = tuple(_parse(git(root, "log", "--name-only", f"--format={layout}", "HEAD")))
    branches = git(root, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/remotes").split()
    shallow = git(root, "rev-parse", "--is-shallow-repository").strip() == "true"
    return History(commits, tuple(branches), shallow)


def _parse(log: str) -> list[Commit]:
    commits = []
    for record in log.split(_RECORD)[1:]:
        name, parents, author, date, subject, files = record.split(_FIELD)
        touched = tuple(line for line in files.splitlines() if line)
        commits.append(Commit(name, tuple(parents.split()), author, date, subject, touched))
    return commits
