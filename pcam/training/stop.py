"""A run asked to stop by a signal: it finishes its step, saves, and says how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

from pcam.errors import RunError

# SIGUSR1 is what Slurm sends ahead of the time limit (`#SBATCH --signal=USR1@120`).
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Interrupted(RunError):
    """A signal asked the run to stop; it was saved and can be resumed."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number  # as a shell reports a process that the signal ended


class StopRequest:
    """Which signal has come, if any.

    Attributes:
        number: of the signal, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note signals instead of dying of them; a second one of the same kind acts as usual.

        Outside the main thread Python cannot handle signals, and nothing is changed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def note(number: int, frame: FrameType | None) -> None:
            self.number = number
            signal.signal(number, before[signal.Signals(number)])

        for number in SIGNALS:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Take a Ctrl-C only after the block; the processes that the block starts never take one.

    Python would show where each of them was, also while it still imports.
    """
    resource_tracker.ensure_running()  # multiprocessing's own helper unblocks the signal when it is started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
