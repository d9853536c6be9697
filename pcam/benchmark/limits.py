"""What the machine could do at best, measured on it: bytes copied and floating-point operations per second.

A rate alone says nothing about the program. Beside it stands the same work at the machine's own limit: a loader
cannot beat a plain copy of the bytes it delivers, a model hardly beats a large matrix product or convolution with as
many operations, whichever is faster: on some processors the library behind one of them is several times slower.
The work per image is counted by torch (`FlopCounterMode`), not estimated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from pcam.data.format import PATCH_SHAPE
from pcam.models import PatchClassifier

PATCH_BYTES = PATCH_SHAPE[0] * PATCH_SHAPE[1] * PATCH_SHAPE[2]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_ROUNDS = 5
_LARGE = 512 << 20  # bytes: no cache holds them


@dataclass(frozen=True)
class Limits:
    """Limits of one device.

    Attributes:
        device: "cpu" or "cuda".
        copy_bytes_per_second: of a plain copy within the device's memory (bytes delivered, not read plus written).
        flops_per_second: of a large matrix product or 3×3 convolution, the faster of the two, by precision.
    """

    device: str
    copy_bytes_per_second: float
    flops_per_second: dict[str, float]

    def loader_images_per_second(self, images: int, batch_size: int) -> float:
        """Patches per second of a plain copy: of one large one, or of so many images batch by batch, if that is faster.

        What a batch is copied into stays in the processor's cache, and so do few images.
        """
        images = min(images, _LARGE // PATCH_BYTES)
        source = torch.ones((images, PATCH_BYTES), dtype=torch.uint8, device=self.device)
        target = torch.empty((min(images, batch_size), PATCH_BYTES), dtype=torch.uint8, device=self.device)

        def copy() -> None:
            for batch in source.split(batch_size):
                target[: len(batch)].copy_(batch)

        return max(self.copy_bytes_per_second / PATCH_BYTES, images / _best(copy, source.device))


def measure_limits(device: torch.device, precisions: tuple[str, ...], *, fast: bool = False) -> Limits:
    """Measure a device's limits; the best of several rounds, since a limit is what can be reached.

    Args:
        device: where.
        precisions: keys of `DTYPES`.
        fast: smaller problems, for a notebook.
    """
    size = _LARGE // 8 if fast else _LARGE
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = _best(lambda: target.copy_(source), device)
    side = 8192 if device.type == "cuda" else 1024 if fast else 2048
    flops = {}
    for name in precisions:
        flops[name] = max(_product_flops(side, DTYPES[name], device), _convolution_flops(side, DTYPES[name], device))
    return Limits(device.type, size / seconds, flops)


def _product_flops(side: int, dtype: torch.dtype, device: torch.device) -> float:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / _best(partial(torch.matmul, a, b), device)


def _convolution_flops(side: int, dtype: torch.dtype, device: torch.device) -> float:
    images, channels, pixels = side // 128, 128, 48
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False, device=device, dtype=dtype)
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = torch.randn(images, channels, pixels, pixels, device=device).to(dtype, memory_format=torch.channels_last)
    with torch.no_grad():
        return 2 * 9 * images * (pixels * channels) ** 2 / _best(partial(layer, batch), device)


def flops_per_image(model: PatchClassifier, device: torch.device, *, training: bool) -> float:
    """Count the floating-point operations of one image: forward, or forward and backward."""
    patches = torch.zeros((2, 3, *PATCH_SHAPE[:2]), device=device)
    counter = FlopCounterMode(display=False)
    was_training = model.training
    model.train(training)
    try:
        with counter, torch.set_grad_enabled(training):
            logits = model(patches)
            if training:
                logits.sum().backward()
    finally:
        model.train(was_training)
        model.zero_grad(set_to_none=True)
    return counter.get_total_flops() / len(patches)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _best(step: Callable[[], object], device: torch.device) -> float:
    fastest = float("inf")
    for _ in range(_ROUNDS):
        synchronize(device)
        start = time.perf_counter()
        step()
        synchronize(device)
        fastest = min(fastest, time.perf_counter() - start)
    return fastest
