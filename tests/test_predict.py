"""Prediction and evaluation of a split, from a real (tiny) run."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from pcam.audit import symmetry
from pcam.config import EvalConfig, ModelConfig, load_config
from pcam.data import open_split
from pcam.errors import DataError, RunError
from pcam.evaluation import Predictions, evaluate, predict_images, predict_split, read_predictions
from pcam.evaluation.images import read_scores
from pcam.evaluation.predict import BATCH_SIZE, assess, decision_threshold, for_scoring, score_patches
from pcam.models import PatchClassifier, build, fold
from pcam.training import Run, load_model, train


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = load_config("mlp", ["train.epochs=1", "model.hidden=8", "evaluation.bootstrap=100"])
    return train(config, tiny, tmp_path_factory.mktemp("runs"), progress=False)


def test_evaluate_writes_what_it_returns(run: Run, tiny: Path, tmp_path: Path) -> None:
    report = evaluate(run.path, tiny, "test", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == report
    p = read_predictions(tmp_path / "out" / "predictions.csv")
    assert len(p) == 24 and np.array_equal(p.labels, open_split(tiny, "test").labels)
    assert report["run"] == run.id and report["data_kind"] == "synthetic" and report["n"] == 24
    assert report["threshold"]["split"] == "valid"
    for metric in report["metrics"].values():
        assert {"value", "low", "high", "n", "n_positive", "method", "reason"} <= set(metric)
        assert metric["value"] is not None or metric["reason"]
    assert [b["name"] for b in report["baselines"]] == ["all_negative", "all_positive", "majority"]
    assert sum(report["confusion"].values()) == 24


def test_evaluating_valid_does_not_choose_the_threshold_there(run: Run, tiny: Path, tmp_path: Path) -> None:
    threshold = evaluate(run.path, tiny, "valid", tmp_path)["threshold"]
    assert threshold["split"] is None and threshold["value"] == pytest.approx(1 / 6)
    assert threshold["rule"] == "fixed beforehand by the costs: 1 / (1 + 5)"


def test_a_folder_without_valid_gets_the_implied_threshold(run: Run, tiny: Path, tmp_path: Path) -> None:
    for file in tiny.glob("*test*"):
        shutil.copy(file, tmp_path)
    assert evaluate(run.path, tmp_path, "test", tmp_path / "out")["threshold"]["split"] is None


def test_a_split_without_labels_is_predicted_and_its_metrics_are_null(run: Run, tiny: Path, tmp_path: Path) -> None:
    for file in tiny.glob("*test*"):
        if "_y.h5" not in file.name:
            shutil.copy(file, tmp_path)
    report = evaluate(run.path, tmp_path, "test", tmp_path / "out")
    assert report["n_positive"] is None and report["baselines"] == [] and report["confusion"] is None
    assert all(m["value"] is None and m["reason"] == "the labels are not known" for m in report["metrics"].values())
    assert read_predictions(tmp_path / "out" / "predictions.csv").label is None


def test_missing_split_and_unfinished_run_are_refused(run: Run, tiny: Path, tmp_path: Path) -> None:
    shutil.copy(tiny / "camelyonpatch_level_2_split_test_x.h5", tmp_path)
    with pytest.raises(DataError, match=r"camelyonpatch_level_2_split_train_x\.h5"):
        evaluate(run.path, tmp_path, "train", tmp_path / "out")
    with pytest.raises(RunError, match="not a run folder"):
        evaluate(tmp_path, tiny, "test", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet18"])
def test_the_number_of_threads_moves_no_bit_and_stays(name: str, tiny: Path) -> None:
    torch.manual_seed(0)
    model = for_scoring(build(ModelConfig(name=name, width=8, hidden=8)))
    patches = open_split(tiny, "test").read(slice(None))
    before, scores = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            several = score_patches(model, iter([patches[:7], patches[7:]]), batch_size=4)
            scores.append(np.concatenate([next(several), next(several)]))
            several.close()
            assert torch.get_num_threads() == threads
            with ThreadPoolExecutor(1) as later:
                assert later.submit(torch.get_num_threads).result() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(scores[0], scores[1]) and np.array_equal(scores[0], scores[2])


def test_an_error_while_scoring_ends_it(tiny: Path) -> None:
    model = for_scoring(build(ModelConfig(name="mlp", hidden=8)))
    before = torch.get_num_threads()
    with pytest.raises(TypeError, match="patches are uint8 in"):
        list(score_patches(_Careless(model), [open_split(tiny, "test").read(slice(None))]))
    assert torch.get_num_threads() == before


class _Careless:
    def __init__(self, model: PatchClassifier) -> None:
        self.model = model

    def predict_logits(self, patches: torch.Tensor) -> torch.Tensor:
        return self.model.predict_logits(patches.float())


def test_a_patch_gets_the_same_bits_in_any_company(run: Run, tiny: Path) -> None:
    """Alone, in a batch or in another place of it: the model sees one shape, so the score is the same."""
    split = open_split(tiny, "test")
    together = predict_split(run, split).score
    model = load_model(run)
    alone = [next(iter(score_patches(model, [split.read([i])])))[0] for i in range(len(split))]
    backwards = next(iter(score_patches(model, [split.read(slice(None))[::-1]])))[::-1]
    assert np.array_equal(together, alone) and np.array_equal(together, backwards)
    many = np.concatenate([split.read(slice(None))] * 3)  # more than the model is given at once
    assert len(many) > BATCH_SIZE
    assert np.array_equal(next(iter(score_patches(model, [many]))), np.tile(together, 3))


@pytest.fixture(scope="module")
def averaged(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network with convolutions, whose scores are means over the symmetries."""
    fields = [
        "model.width=4",
        "model.depth=1",
        "train.epochs=1",
        "train.precision=float32",
        "evaluation.symmetries=true",
    ]
    return train(load_config("cnn", fields), tiny, tmp_path_factory.mktemp("averaged"), progress=False)


def test_scores_are_those_of_the_model_folded_and_almost_those_of_the_model(averaged: Run, tiny: Path) -> None:
    split = open_split(tiny, "test")
    scores = predict_split(averaged, split, symmetries=False).score
    model, patches = load_model(averaged), split.read(slice(None))
    assert np.array_equal(scores, next(iter(score_patches(fold(model), [patches]))))
    assert np.abs(scores - next(iter(score_patches(model, [patches])))).max() < 1e-6


def test_the_mean_over_symmetries_is_that_of_eight_predictions(averaged: Run, tiny: Path) -> None:
    split = open_split(tiny, "test")
    patches, model = split.read(slice(None)), fold(load_model(averaged))
    forms = [np.stack([symmetry.apply(patch, kind) for patch in patches]) for kind in range(8)]
    eight = [next(iter(score_patches(model, [form]))) for form in forms]
    assert np.std(eight, axis=0).max() > 1e-3, "forms that all get one score would show nothing"
    scores = predict_split(averaged, split).score
    np.testing.assert_allclose(scores, np.mean(eight, axis=0), atol=1e-12)
    for form in forms[1:3]:
        turned = next(iter(score_patches(model, [form], symmetries=True)))
        np.testing.assert_allclose(turned, scores, atol=1e-12)


def test_the_config_says_whether_scores_are_means(averaged: Run, run: Run, tiny: Path, tmp_path: Path) -> None:
    split = open_split(tiny, "test")
    means = predict_split(averaged, split, symmetries=True).score
    assert np.array_equal(predict_split(averaged, split).score, means)
    assert not np.array_equal(predict_split(averaged, split, symmetries=False).score, means)
    assert np.array_equal(predict_split(run, split).score, predict_split(run, split, symmetries=False).score)
    evaluate(averaged.path, tiny, "test", tmp_path / "e")
    assert np.array_equal(read_predictions(tmp_path / "e" / "predictions.csv").score, means)
    predict_images(averaged.path, [tiny / "camelyonpatch_level_2_split_test_x.h5"], tmp_path / "p.csv")
    assert np.array_equal(read_scores(tmp_path / "p.csv")["score"], means)


def test_training_and_prediction_agree(run: Run, tiny: Path) -> None:
    p = predict_split(run, open_split(tiny, "valid"))
    nll = -np.mean(np.log(np.where(p.labels == 1, p.score, 1 - p.score)))
    assert nll == pytest.approx(run.final["valid_loss"], abs=1e-6)


def test_constant_predictor_is_called_out_and_not_reported(tiny: Path) -> None:
    split = open_split(tiny, "test")
    flat = Predictions("test", np.arange(len(split)), split.labels, np.full(len(split), 0.4))
    report = assess(flat, split, None, EvalConfig())
    assert report["constant"] == "constant predictor: every score is 0.4"
    assert all(metric["value"] is None for metric in report["metrics"].values())
    assert report["expected_calibration_error"] is None


def test_predictions_of_other_patches_are_refused(tiny: Path) -> None:
    short = Predictions("test", np.arange(3), np.array([0, 1, 0]), np.array([0.1, 0.2, 0.3]))
    with pytest.raises(DataError, match="3 predictions for 24 patches of test"):
        assess(short, open_split(tiny, "test"), None, EvalConfig())


@pytest.mark.parametrize("label", [None, [0, 0], [1, 1]])
def test_valid_that_cannot_decide_leaves_the_implied_threshold(label: list[int] | None) -> None:
    valid = Predictions("valid", np.arange(2), None if label is None else np.array(label), np.array([0.2, 0.8]))
    assert decision_threshold(valid, EvalConfig(cost_fn=3.0)).value == pytest.approx(0.25)
