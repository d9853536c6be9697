"""Errors that a person can mend.

Each holds one line: what is wrong, where, and what to do. The command line prints it without a traceback
and exits with `exit_code`; anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PcamError(Exception):
    """A mistake in what the program was given, told in one line."""

    exit_code = 2


class ConfigError(PcamError):
    """A preset, a configuration file or an override is wrong."""


class DataError(PcamError):
    """A data folder or a file in it breaks the PCam contract."""


class StorageError(PcamError):
    """A result cannot be written or read back as it was written."""


class RunError(PcamError):
    """A run is missing, claimed by another process, unfinished or damaged."""


class JournalError(PcamError):
    """A notebook, a chapter's evidence or the book cannot be made from what is there."""


def clip(text: str) -> str:
    """Return a text as an error repeats it: in one line, and not much of it."""
    line = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text[:81])
    return line if len(text) <= 80 else line[:77] + "..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the closest known word, else the list of what is known."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(choices)}"
