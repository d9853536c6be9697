"""Wrong labels come to the top of the ranking, and nothing is ranked where nothing can be learnt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tissue import textured, write_folder

from pcam.audit import labels
from pcam.audit.scan import Scan, scan
from pcam.cli import main
from pcam.data.format import open_split
from pcam.errors import DataError


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


def test_scores_are_out_of_fold() -> None:
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


def striped(folder: Path, n: int, flipped: int) -> tuple[Scan, np.ndarray]:
    """Classes of the same colours and step sizes: stripes of two widths, seen only by what neighbours what."""
    rng = np.random.default_rng(5)
    label = np.arange(n) % 2
    patches = np.empty((n, 96, 96, 3), np.uint8)
    for patch, width in zip(patches, np.where(label == 1, 6, 12), strict=True):
        phase = (np.arange(96) + rng.integers(24)) // width % 2
        patch[:] = np.clip(110 + 60 * phase[:, None, None] + rng.normal(0, 12, (96, 96, 3)), 0, 255)
    wrong = rng.choice(n, flipped, replace=False)
    label[wrong] ^= 1
    return scan(write_folder(folder, {"train": patches}, {"train": label}), ["train"]), wrong


def test_texture_ranks_flipped_labels_first(tmp_path: Path) -> None:
    found, wrong = striped(tmp_path, 160, 6)
    suspects, suspicion = labels.find(found, np.arange(160), "texture")
    assert set(wrong.tolist()) <= set(suspects[:8].tolist())
    assert (np.diff(suspicion) <= 0).all() and suspicion.min() >= 0 and suspicion.max() <= 1


def test_kernel_scores_are_out_of_fold() -> None:
    label = np.random.default_rng(1).integers(0, 2, 300).astype(np.int8)
    features = np.random.default_rng(2).normal(size=(300, 20))
    score = labels.kernel_scores(features, label, np.arange(300))
    assert abs(score[label == 1].mean() - score[label == 0].mean()) < 0.1


def test_kernel_scores_of_a_group_are_those_of_a_fit_without_it() -> None:
    rng = np.random.default_rng(8)
    groups, target = np.repeat([0, 1, 1, 2, 2, 2, 3], 6), rng.choice([-1.0, 1.0], 42)
    rows = rng.normal(size=(42, 5))
    answer = labels._held_out(rows, target, groups)
    for group in range(4):
        out = groups == group
        # What the patches left out are labelled makes no difference to what is answered for them.
        other = labels._held_out(rows, np.where(out, -target, target), groups)
        np.testing.assert_allclose(other[out], answer[out], atol=1e-8)
        assert np.abs(other - answer)[~out].max() > 1e-3


def test_a_twin_does_not_vouch_for_a_label() -> None:
    label = np.repeat(np.random.default_rng(3).integers(0, 2, 150), 2).astype(np.int8)
    features = np.repeat(np.random.default_rng(4).normal(size=(150, 100)), 2, axis=0)
    apart = labels.kernel_scores(features, label, np.repeat(np.arange(150), 2))
    leaking = labels.kernel_scores(features, label, np.arange(300))
    assert ((leaking > 0.5) == label).mean() > 0.75 > ((apart > 0.5) == label).mean()


def test_a_fold_learns_from_a_bounded_number_of_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    label = (np.arange(240) % 2).astype(np.int8)
    features = np.random.default_rng(6).normal(size=(240, 8)) + 2 * label[:, None]
    monkeypatch.setattr(labels, "_MOST", 40)
    assert ((labels.kernel_scores(features, label, np.arange(240)) > 0.5) == label).mean() > 0.95


def test_auto_takes_the_slow_way_only_where_it_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = darker_positives(tmp_path, 24, 2)
    assert labels.choose(found, "auto") == "texture"
    monkeypatch.setattr(labels, "_MOST", 23)
    assert labels.choose(found, "auto") == "colour"


def test_an_unknown_way_to_rank(tmp_path: Path) -> None:
    found, _ = darker_positives(tmp_path, 24, 2)
    with pytest.raises(DataError, match="unknown way 'color' to rank label suspects; did you mean 'colour'"):
        labels.find(found, np.arange(24), "color")


def test_a_class_within_few_groups_is_not_judged(tmp_path: Path) -> None:
    found, _ = darker_positives(tmp_path, 120, 0)
    assert len(labels.find(found, np.where(found.label == 1, 0, np.arange(120)))[0]) == 0
    assert len(labels.find(found, np.arange(120), "none")[0]) == 0


@pytest.mark.real
def test_flipped_labels_of_real_patches_lead_the_ranking(real_data: Path, tmp_path: Path) -> None:
    split = open_split(real_data, "train")
    assert split.labels is not None
    label, rng = split.labels[:1200].copy(), np.random.default_rng(7)
    wrong = rng.choice(1200, 36, replace=False)
    label[wrong] ^= 1
    found = scan(write_folder(tmp_path, {"train": split.read(slice(0, 1200))}, {"train": label}), ["train"])
    assert split.groups is not None
    suspects, _ = labels.find(found, split.groups[:1200].astype(np.int64), "texture")
    assert np.isin(suspects[:72], wrong).sum() >= 0.55 * 36


@pytest.mark.parametrize(("options", "used"), [([], "texture"), (["--suspects", "none"], "none")])
def test_the_command_line_says_how_suspects_were_ranked(
    options: list[str], used: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    darker_positives(tmp_path / "data", 24, 2)
    with pytest.raises(SystemExit) as end:
        main(["audit", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--json", *options])
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["suspects_ranked_by"] == used
