"""Two quiet leaks, looked for and not asserted: statistics of more than train, and changes of the patches judged.

A model carries the channel statistics that it normalises with. They are computed again, of train alone and of all
splits, and the test patches are scored with both, which says what the leak would be worth. The training batches and
the judged batches are compared with what the files hold, which says where patches are changed at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pcam.data.augment import augment
from pcam.data.format import Split
from pcam.data.loader import Loader, augment_generator
from pcam.evaluation.comparison import Difference, paired_bootstrap
from pcam.evaluation.predict import READ_SIZE, score_patches
from pcam.evaluation.predictions import Predictions
from pcam.models import PatchClassifier
from pcam.training import Run, load_model

_LOOKED_AT = 256  # patches of a split that are compared with the file


@dataclass(frozen=True)
class Hygiene:
    """What normalisation and augmentation have seen and changed.

    Attributes:
        from_train: the model's statistics are those of train, to the bit.
        apart: grey levels (0..255) by which the means of all splits differ from those of train, at most.
        worth: ROC-AUC on test with the statistics of all splits minus with the model's own.
        augmented: share of the compared training patches that reach the network changed.
        judged: the same of the patches of the other splits.
        compared: patches compared of each split.
    """

    from_train: bool
    apart: float
    worth: Difference
    augmented: float
    judged: float
    compared: int


def check(run: Run, splits: Sequence[Split]) -> Hygiene:
    """Look at a run's normalisation and augmentation.

    Args:
        run: a completed run on these splits.
        splits: train, valid and test, with labels.

    Raises:
        DataError: a split has no labels, or no interval can be made.
    """
    loaders = {split.name: Loader(split, 64, resident=False) for split in splits}
    statistics = {name: loader.channel_statistics() for name, loader in loaders.items()}
    mean, std = _pooled(list(statistics.values()), [len(split) for split in splits])
    model, other = load_model(run), load_model(run)
    other.set_normalisation(mean, std)
    test = next(split for split in splits if split.name == "test")
    own, others = _scores(model, test), _scores(other, test)
    judged = [_changed(loaders[name]) for name in loaders if name != run.config.data.train_split]
    train = loaders[run.config.data.train_split]
    return Hygiene(
        from_train=bool(torch.equal(model.channel_mean, statistics[train.split.name][0])),
        apart=float((mean - statistics[train.split.name][0]).abs().max()),
        worth=paired_bootstrap([others], [own], test.groups, group_kind=test.group_kind or "patch"),
        augmented=_changed(train, run),
        judged=max(judged),
        compared=min(_LOOKED_AT, *(len(split) for split in splits)),
    )


def _pooled(
    statistics: Sequence[tuple[torch.Tensor, torch.Tensor]], sizes: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation (3,) of splits taken together, from those of each."""
    share = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
    means, deviations = (torch.stack(part).double() for part in zip(*statistics, strict=True))
    mean = share @ means
    return mean.float(), (share @ (deviations**2 + means**2) - mean**2).sqrt().float()


def _scores(model: PatchClassifier, split: Split) -> Predictions:
    batches = (split.read(slice(start, start + READ_SIZE)) for start in range(0, len(split), READ_SIZE))
    scores = torch.cat([torch.from_numpy(part) for part in score_patches(model, batches)]).numpy()
    return Predictions(split.name, torch.arange(len(split)).numpy(), split.labels, scores)


def _changed(loader: Loader, run: Run | None = None) -> float:
    """Share of a split's first patches that differ from the file, as they are judged or, given a run, as it learns."""
    changed = compared = 0
    for step, batch in enumerate(loader.in_order()):
        if compared >= min(_LOOKED_AT, len(loader.split)):
            break
        stored = torch.from_numpy(loader.split.read(batch.indices.numpy()))
        given = batch.patches
        if run is not None:
            values = augment(given, run.config.train.augment, augment_generator(run.config.seed, 0, step))
            given = values.permute(0, 2, 3, 1)
        changed += int((given != stored).flatten(1).any(dim=1).sum())
        compared += len(stored)
    return changed / compared
