"""A tracker that training does not know of: a second process copies the run's record to an MLflow server.

Training writes metrics.jsonl and never talks to a server. Where MLFLOW_TRACKING_URI names one, `mirrored` starts a
process that reads the run's files and copies what is new. Should the server be down, hang or come back later, the run
is none the wiser: its bits are the same, its end is delayed by at most `WAIT_SECONDS`, and `pcam track RUN` copies
what is missing, as often as one likes.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pcam.errors import PcamError
from pcam.training.mirror import Copy, Server
from pcam.training.runs import Run

_LOG = logging.getLogger(__name__)
WAIT_SECONDS = 2.0  # training waits so long at its end for the copy to be whole
LINGER_SECONDS = 20.0  # the copying process goes on so long after the end of training
_PAUSE_SECONDS = 1.0  # between two looks at the log


@contextmanager
def mirrored(run: Run) -> Iterator[None]:
    """Copy a run to the MLflow server while the block trains it, where the environment names a server.

    Nothing that goes wrong with it reaches the block.
    """
    follower = None
    if os.environ.get("MLFLOW_TRACKING_URI"):
        command = [sys.executable, "-m", "pcam.training.tracking", str(run.path.resolve())]
        # The end of its input is the end of the training, be it by a kill.
        quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            # A session of its own: Ctrl-C stops the training, whose last lines are then still to be copied.
            follower = subprocess.Popen(command, start_new_session=True, **quiet)  # type: ignore[call-overload]
        except OSError as error:
            _LOG.warning("no mirror of %s: %s", run.path, error)
    try:
        yield
    finally:
        if follower is not None:
            try:
                if follower.stdin:
                    follower.stdin.close()
                whole = follower.wait(WAIT_SECONDS) == 0
            except subprocess.TimeoutExpired:
                whole = False
            if not whole:
                _LOG.warning("%s is not wholly mirrored; 'pcam track %s' copies the rest", run.id, run.path)


def follow(run: Run) -> None:
    """Copy a run's record until standard input ends, as it does with the training, and all is copied.

    `LINGER_SECONDS` after that end this process is ended, whatever it waits for: it must be one of its own.

    Args:
        run: its folder may not hold anything yet.
    """
    copy, copied, ended = Copy(run, Server()), -1, threading.Event()
    threading.Thread(target=_note_the_end, args=(ended,), daemon=True).start()
    log = run.path / "metrics.jsonl"
    while True:
        start, last = time.monotonic(), ended.is_set()
        try:
            size = log.stat().st_size if log.exists() else 0
            if last or size != copied:
                copy.catch_up()
                copied = size
            if last:
                return
        except (PcamError, OSError):  # the server is away, or the run's files are not all there yet
            copied = -1
        if last:
            time.sleep(_PAUSE_SECONDS)
        else:  # never more than a twentieth of the time is spent here: the machine belongs to the training
            ended.wait(max(_PAUSE_SECONDS, 20 * (time.monotonic() - start)))


def _note_the_end(ended: threading.Event) -> None:
    sys.stdin.buffer.read()
    ended.set()
    time.sleep(LINGER_SECONDS)
    os._exit(1)  # whatever the other thread waits for


if __name__ == "__main__":
    os.nice(10)
    follow(Run(sys.argv[1]))
    os._exit(0)
