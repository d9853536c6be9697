"""Several processes, one run: what `torchrun --nproc_per_node=N -m pcam train …` adds to the training loop.

Each process holds the whole model and takes its rows of every batch; what they found is added up, so that the run
is that of one process up to the order of floating-point sums. A mean over a batch is a sum divided by
the length of the whole batch, so that rows may be shared unevenly, and batch normalisation takes its statistics over
all rows: unlike torch's SyncBatchNorm it does so on a CPU too. The first process alone writes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pcam.data.loader import rank_rows
from pcam.errors import ConfigError, RunError, clip

_TIMEOUT = timedelta(minutes=10)  # for a process that hangs; one that dies is noticed at once
_SOURCE_PLACE = re.compile(r"^\[[^\]]*\]\s*")  # where in the library an error arose, such as "[…/pair.cc:547] "
_NOT_SHARED = {getattr(functional, name) for name in ("dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "rrelu")}


@dataclass
class World:
    """The processes that train one run together, as one of them sees it.

    Attributes:
        rank: which one this is, from 0.
        size: how many there are.
        whole: patches of the present batch.
        rows: which of them are this process's.
    """

    rank: int = 0
    size: int = 1
    whole: int = 0
    rows: slice = field(default_factory=lambda: slice(0, 0))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def take(self, n: int) -> slice:
        """Note that the next batch has `n` patches, and return which rows are this process's."""
        self.whole, self.rows = n, rank_rows(n, self.rank, self.size)
        return self.rows

    def add(self, values: torch.Tensor) -> torch.Tensor:
        """Replace a tensor, in place, by its sum over all processes, and return it.

        Raises:
            RunError: another process is gone.
        """
        return self._reduce(values, distributed.ReduceOp.SUM)

    def add_gradients(self, parameters: Iterable[nn.Parameter], loss: torch.Tensor) -> torch.Tensor:
        """Replace every gradient by its sum over all processes, and return the sum of their losses; see `add`."""
        if self.size == 1:
            return loss.detach()
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        # One message a step: many small ones cost more than what they carry.
        flat = self.add(torch.cat([*(g.flatten() for g in gradients), loss.detach().reshape(1)]))
        *parts, total = flat.split([*(g.numel() for g in gradients), 1])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return total[0]

    def sharing(self) -> AbstractContextManager[Any]:
        """Return a block in which a forward pass of this process's rows is a part of one of all rows.

        Raises:
            ConfigError: the model draws random numbers in a way that cannot be shared.
        """
        return _Sharing(self) if self.size > 1 else nullcontext()

    def agree(self, number: int | None) -> int | None:
        """Return the largest number that any process gave; all of them then do the same after the same step."""
        return int(self._reduce(torch.tensor(number or 0), distributed.ReduceOp.MAX)) or None

    def told(self, answer: bool) -> bool:
        """Return the first process's answer in all of them."""
        return bool(self.agree(int(answer) if self.first else 0))

    def same(self, text: str) -> bool:
        """Whether all processes gave the same hexadecimal text of up to 16 digits."""
        both = torch.tensor([1, -1]) * (int(text, 16) >> 1)  # as it has to fit a signed integer
        return int(self._reduce(both, distributed.ReduceOp.MAX).sum()) == 0

    def _reduce(self, values: torch.Tensor, how: Any) -> torch.Tensor:
        if self.size > 1:
            try:
                distributed.all_reduce(values, how)
            except RuntimeError as error:
                # Less the place in the library's source, and what it advises its own authors.
                reason = _SOURCE_PLACE.sub("", str(error)).partition("\n")[0].partition(". ")[0]
                raise RunError(
                    f"process {self.rank} of {self.size} lost the others ({clip(reason)}): one of them "
                    "died or gave up, and says why itself; continue from the last checkpoint with --resume"
                ) from error
        return values


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started, for the length of the block; alone, do nothing.

    Raises:
        ConfigError: WORLD_SIZE says that there are others, and something else started this process.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # What is decided on the host goes through gloo and never waits for a GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        distributed.init_process_group(backend, timeout=_TIMEOUT)
    except ValueError as error:
        reason = str(error).rpartition(": ")[2]
        raise ConfigError(
            f"WORLD_SIZE is '{clip(size)}', as if torchrun had started several processes ({reason}): start them with "
            "torchrun, or unset WORLD_SIZE"
        ) from error
    try:
        yield World(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


class _Sum(torch.autograd.Function):
    """The sum over all processes; each adds to it, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor, world: World) -> torch.Tensor:
        context.world = world
        return world.add(values.clone())

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return context.world.add(gradients[0].clone()), None


class _Sharing(TorchFunctionMode):
    """Inside it, what looks at a whole batch, or draws for it, does so over all processes, whichever layer asks."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is functional.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if function is functional.dropout:
            return self._dropout(*args, **kwargs)
        if function in _NOT_SHARED:
            raise ConfigError(f"{function.__name__} cannot be shared among processes; train with one, without torchrun")
        return function(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: torch.Tensor,
        running_mean: torch.Tensor,
        running_var: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        training: bool,
        momentum: float,
        eps: float,
    ) -> torch.Tensor:
        """Do what torch does, with mean and variance over the rows of all processes."""
        if not training:
            return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        others, shape = [d for d in range(input.ndim) if d != 1], [1, -1, *[1] * (input.ndim - 2)]
        values = input.float()
        n = self.world.add(torch.tensor(values.numel() // values.shape[1])).item()
        mean = _Sum.apply(values.sum(others), self.world) / n
        centred = values - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(others), self.world) / n
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * (n / (n - 1)), momentum)
        scale = (variance + eps).rsqrt() * weight
        return (centred * scale.view(shape) + bias.view(shape)).to(input.dtype)

    def _dropout(self, input: torch.Tensor, p: float, training: bool, inplace: bool) -> torch.Tensor:
        """Draw the mask for the whole batch, so that every process draws, and keeps, what one would."""
        if not training:
            return input
        mask = functional.dropout(input.new_ones(self.world.whole, *input.shape[1:]), p)
        return input * mask[self.world.rows]
