"""Label suspects: patches whose label disagrees with what the other patches say. Candidates, never truth.

A simple classifier is trained in folds that keep patches which share pixels together, so that every patch is scored
by a model that has not seen it or its neighbours. Confident learning (Northcutt et al. 2021, JAIR 70:1373, library
cleanlab) then ranks the patches by how surely the scores contradict the label. The classifier sees colour and texture
features only; it ranks gross errors and says nothing about fine ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pcam.audit import near
from pcam.audit.scan import Scan

_FOLDS = 4
_LEAST = 50  # patches of each class; fewer teach a classifier nothing


def out_of_fold_scores(
    features: NDArray[np.floating], label: NDArray[np.int8], groups: NDArray[np.int64], seed: int = 0
) -> NDArray[np.float64]:
    """Return the probability (N,) of label 1 from a classifier that was not trained on the patch's group."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=500))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    return cross_val_predict(model, features, label, groups=groups, cv=folds, method="predict_proba")[:, 1]


def find(scan: Scan, groups: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return suspects in order of suspicion and their scores (1 minus cleanlab's label quality, in 0..1).

    Args:
        scan: the scanned patches; damaged and unlabelled ones are not judged.
        groups: int64 (N,), patches that must stay in one fold.
    """
    judged = np.flatnonzero((scan.label >= 0) & ~scan.facts.damaged)
    label = scan.label[judged]
    if len(np.unique(groups[judged])) < 2 * _FOLDS or min((label == 0).sum(), (label == 1).sum()) < _LEAST:
        return np.empty(0, np.int64), np.empty(0)
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    texture = near.amplitudes(scan.facts.spectrum[judged])
    features = np.concatenate([scan.facts.features[judged], texture], axis=1)
    score = out_of_fold_scores(features, label, groups[judged])
    probability = np.stack([1 - score, score], axis=1)
    suspect = find_label_issues(label, probability, filter_by="both", n_jobs=1)
    suspicion = 1 - get_label_quality_scores(label, probability)
    order = np.flatnonzero(suspect)
    order = order[np.argsort(-suspicion[order], kind="stable")]
    return judged[order], suspicion[order]
