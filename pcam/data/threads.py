"""Work on many items by a few threads of one process, where each item lets the other threads run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import torch


class Threads:
    """As many threads as torch uses, for work that lets others run: inflating, and copying with numpy."""

    def __init__(self) -> None:
        self._n = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._n) if self._n > 1 else None

    def run(self, work: Callable[[int], None], items: Sequence[int]) -> None:
        """Call `work` on each item, with numpy's warning of invalid values off; the first item's error is raised."""
        queue = enumerate(items)  # each thread takes the next one, so that none waits long for another at the end
        reached = [0] * self._n

        def take(thread: int) -> None:
            with np.errstate(invalid="ignore"):
                for number, item in queue:
                    reached[thread] = number
                    work(item)

        if self._pool is None:
            take(0)
            return
        jobs = [self._pool.submit(take, thread) for thread in range(self._n)]
        try:
            wait(jobs)
        except BaseException:  # an interrupt must leave no thread behind that writes into what the next call uses
            list(queue)
            wait(jobs)
            raise
        failed = [thread for thread, job in enumerate(jobs) if job.exception()]
        if failed:
            jobs[min(failed, key=reached.__getitem__)].result()
