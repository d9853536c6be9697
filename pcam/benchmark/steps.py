"""The steps that are timed: a batch delivered, a batch scored, a batch trained on, and the parts of the last one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from pcam.benchmark.limits import synchronize
from pcam.config import Config
from pcam.data.augment import augment, to_channels_first
from pcam.data.format import PATCH_SHAPE, Split
from pcam.data.loader import Batch, Loader, augment_generator
from pcam.models import PatchClassifier
from pcam.training.loop import clip_gradients, make_optimiser, trained_form

Step = Callable[[], None]


def loading_step(loader: Loader) -> Step:
    """Return a step that delivers the next batch, shuffled anew in every epoch."""
    batches = full_batches(loader)

    def step() -> None:
        next(batches)
        synchronize(loader.device)

    return step


def forward_step(model: PatchClassifier, device: torch.device, precision: str, size: int) -> Step:
    """Return a step that scores one batch which lies ready on the device, from uint8 to logits."""
    patches = torch.randint(0, 256, (size, *PATCH_SHAPE), dtype=torch.uint8, device=device)
    model.eval()

    def step() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            model(model.normalise(to_channels_first(patches)))
        synchronize(device)

    return step


def training_step(
    model: PatchClassifier, config: Config, split: Split, device: torch.device, precision: str, size: int
) -> Step:
    """Return a step that trains on the next batch, with all that training does to it."""
    parts = training_parts(model, config, split, device, precision, size)

    def step() -> None:
        for part in parts.values():
            part()
        synchronize(device)

    return step


def training_parts(
    model: PatchClassifier, config: Config, split: Split, device: torch.device, precision: str, size: int
) -> dict[str, Step]:
    """Return the parts of a training step by name, to be called in order: each hands its result to the next."""
    batches = full_batches(Loader(split, size, device="cpu"))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser, network = make_optimiser(model, config.train), trained_form(model, config.train)
    model.train()
    batch: Batch
    inputs: torch.Tensor
    loss: torch.Tensor

    def load() -> None:
        nonlocal batch
        batch = next(batches)

    def transfer() -> None:
        nonlocal batch
        batch = Batch(batch.patches.to(device), batch.labels.to(device), batch.indices)

    def prepare() -> None:
        nonlocal inputs
        changed = augment(batch.patches, config.train.augment, augment_generator(0, 0, 0))
        inputs = model.normalise(changed, in_place=True)

    def forward() -> None:
        nonlocal loss
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(inputs).float()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.labels.float())

    def backward() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()

    def update() -> None:
        clip_gradients(model, config.train.grad_clip)
        optimiser.step()

    parts: dict[str, Step] = {"loading": load, "transfer": transfer, "augmentation": prepare, "forward": forward}
    if device.type == "cpu":
        del parts["transfer"]  # nothing is moved
    return {**parts, "backward": backward, "optimiser": update}


def full_batches(loader: Loader) -> Iterator[Batch]:
    """Yield batches of full size for ever, epoch after epoch."""
    size = min(loader.batch_size, len(loader.indices))
    epoch = 0
    while True:
        for batch in loader.epoch(0, epoch):
            if len(batch.labels) == size:  # the last one of an epoch is smaller, and would look faster
                yield batch
        epoch += 1
