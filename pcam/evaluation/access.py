"""A log of who looked at the test split: a search may look once, with its champion.

Every configuration that is scored on test is another draw from its noise; the best of many draws flatters. The log
keeps one line per study and configuration, so that "test was touched once" is a count and not a promise.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pcam.errors import StorageError
from pcam.storage import append_lines, make_folder


def log_access(log: Path | str, study: str, configurations: Sequence[str]) -> int:
    """Note that a study's configurations are about to be scored on test.

    Args:
        log: a file of JSON lines; it is made when it is missing.
        study: name of the study.
        configurations: ids of the runs that will be scored; the same set again is the same look.

    Returns:
        How many different looks the study has taken so far, this one included.

    Raises:
        StorageError: a line of the log is damaged; looks that cannot be read would not be counted.
    """
    path = Path(log)
    looks = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else (), 1):
        try:
            row = json.loads(line)
            looks |= {json.dumps(row["runs"])} if row["study"] == study else set()
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path}, line {number}: it holds no look at test; restore the file") from error
    runs = sorted(configurations)
    if json.dumps(runs) not in looks:
        make_folder(path.parent)
        append_lines(
            path, [json.dumps({"study": study, "runs": runs, "when": datetime.now(UTC).isoformat("T", "seconds")})]
        )
        looks.add(json.dumps(runs))
    return len(looks)
