"""Wrong labels come to the top of the ranking, and nothing is ranked where nothing can be learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tissue import textured, write_folder

from pcam.audit import labels
from pcam.audit.scan import Scan, scan


def darker_positives(folder: Path, n: int, flipped: int) -> tuple[Scan, np.ndarray]:
    rng = np.random.default_rng(0)
    label = np.arange(n) % 2
    patches = (textured(n) * np.where(label == 1, 0.8, 1.0)[:, None, None, None]).astype(np.uint8)
    wrong = rng.choice(n, flipped, replace=False)
    label[wrong] ^= 1
    return scan(write_folder(folder, {"train": patches}, {"train": label}), ["train"]), wrong


def test_flipped_labels_lead_the_ranking(tmp_path: Path) -> None:
    found, wrong = darker_positives(tmp_path, 240, 8)
    suspects, suspicion = labels.find(found, np.arange(240))
    assert set(wrong.tolist()) <= set(suspects[:14].tolist())
    assert (np.diff(suspicion) <= 0).all() and suspicion.max() <= 1


def test_scores_are_out_of_fold(tmp_path: Path) -> None:
    # Labels drawn by lot cannot be predicted from patches that were held out.
    label = np.random.default_rng(1).integers(0, 2, 300).astype(np.int8)
    features = np.random.default_rng(2).normal(size=(300, 20))
    score = labels.out_of_fold_scores(features, label, np.arange(300))
    assert abs(score[label == 1].mean() - score[label == 0].mean()) < 0.1


def test_a_group_is_never_on_both_sides() -> None:
    # Twins with the same random label: a classifier that had seen the twin would know it.
    label = np.repeat(np.random.default_rng(3).integers(0, 2, 150), 2).astype(np.int8)
    features = np.repeat(np.random.default_rng(4).normal(size=(150, 100)), 2, axis=0)
    apart = labels.out_of_fold_scores(features, label, np.repeat(np.arange(150), 2))
    leaking = labels.out_of_fold_scores(features, label, np.arange(300))
    assert ((leaking > 0.5) == label).mean() > 0.75 > ((apart > 0.5) == label).mean()


def test_too_few_patches_are_not_judged(tmp_path: Path) -> None:
    found, _ = darker_positives(tmp_path, 40, 2)
    assert len(labels.find(found, np.arange(40))[0]) == 0
