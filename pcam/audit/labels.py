"""Label suspects: patches whose label disagrees with what the other patches say. Candidates, never truth.

A classifier is trained in folds that keep patches which share pixels together, so that every patch is scored by a
model that has not seen it or its neighbours. Confident learning (Northcutt et al. 2021, JAIR 70:1373, library
cleanlab) then ranks the patches by how surely the scores contradict the label. Two classifiers are at hand: "colour",
linear on the few numbers that the scan keeps, costs next to nothing and finds gross errors; "texture", a kernel
machine on two thousand numbers (`pcam.audit.texture`), reads the patches again, about 13 ms
each, and finds nearly half as many errors more.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pcam.audit import near
from pcam.audit.scan import Scan
from pcam.audit.texture import texture_features
from pcam.errors import DataError, did_you_mean

Method = Literal["auto", "colour", "texture", "none"]
METHODS: tuple[str, ...] = get_args(Method)

_FOLDS = 4
_LEAST = 50  # patches of each class; fewer teach a classifier nothing
# The kernel machine: chosen on pcam's real patches with labels flipped by seeds that no figure is quoted from.
_KERNEL_FOLDS = 10  # it learns from nine tenths; a fold costs seconds
_REPEATS = 2
_COST, _REACH = 4.0, 0.5
_FARTHEST = 5.0  # standard deviations: one odd number must not decide about a patch
_SET_ASIDE = 0.05  # share of patches, the most suspect, that the second round does not learn from
_MOST = 6000  # patches that a fold learns from, and the most that "auto" gives to the slow way: about a minute


def out_of_fold_scores(
    features: NDArray[np.floating], label: NDArray[np.int8], groups: NDArray[np.int64], seed: int = 0
) -> NDArray[np.float64]:
    """Return the probability (N,) of label 1 from a linear classifier that was not trained on the patch's group."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=500))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    return cross_val_predict(model, features, label, groups=groups, cv=folds, method="predict_proba")[:, 1]


def kernel_scores(
    features: NDArray[np.floating], label: NDArray[np.int8], groups: NDArray[np.int64], seed: int = 0
) -> NDArray[np.float64]:
    """Return the probability (N,) of label 1 from support vector machines not trained on the patch's group.

    In a second round the patches that the first contradicts most surely are not learnt from: a wrong label then does
    not vouch for another. The margins of several cuts into folds are averaged and scaled to probabilities (Platt 1999).
    """
    from sklearn.linear_model import LogisticRegression

    rows = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)
    rows = np.clip(rows, -_FARTHEST, _FARTHEST).astype(np.float32)
    margin = _margins(rows, label, groups, np.ones(len(label), dtype=bool), seed)
    agreement = np.where(label == 1, margin, -margin)
    margin = _margins(rows, label, groups, agreement > np.quantile(agreement, _SET_ASIDE), seed)
    return LogisticRegression(C=np.inf).fit(margin[:, None], label).predict_proba(margin[:, None])[:, 1]


def _margins(
    rows: NDArray[np.float32], label: NDArray[np.int8], groups: NDArray[np.int64], trusted: NDArray[np.bool_], seed: int
) -> NDArray[np.float64]:
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.svm import SVC

    gamma = _REACH / rows.shape[1]
    n_folds = min(_KERNEL_FOLDS, *(len(np.unique(groups[label == value])) for value in (0, 1)))
    total = np.zeros(len(label))
    rng = np.random.default_rng(seed)
    for repeat in range(_REPEATS):
        folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed + repeat)
        for learnt, held_out in folds.split(rows, label, groups):
            known = learnt[trusted[learnt]]
            if len(known) > _MOST:
                known = np.sort(rng.choice(known, _MOST, replace=False))
            model = SVC(C=_COST, kernel="precomputed")
            model.fit(rbf_kernel(rows[known], gamma=gamma), label[known])
            for part in np.array_split(held_out, -(-len(held_out) // _MOST)):
                total[part] += model.decision_function(rbf_kernel(rows[part], rows[known], gamma=gamma))
    return total / _REPEATS


def choose(scan: Scan, method: str) -> str:
    """Return how suspects will be ranked: for "auto", by texture where that takes about a minute, else by colour.

    Raises:
        DataError: no such method.
    """
    if method not in METHODS:
        raise DataError(f"unknown way '{method}' to rank label suspects{did_you_mean(method, METHODS)}")
    if method != "auto":
        return method
    return "texture" if len(_judged(scan)) <= _MOST else "colour"


def _judged(scan: Scan) -> NDArray[np.int64]:
    return np.flatnonzero((scan.label >= 0) & ~scan.facts.damaged)


def find(
    scan: Scan, groups: NDArray[np.int64], method: str = "colour"
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return suspects in order of suspicion and their scores (1 minus cleanlab's label quality, in 0..1).

    Args:
        scan: the scanned patches; damaged and unlabelled ones are not judged.
        groups: int64 (N,), patches that must stay in one fold.
        method: one of `METHODS`, see `choose`; "none" finds nothing.

    Raises:
        DataError: no such method.
    """
    method = choose(scan, method)
    judged = _judged(scan)
    label, together = scan.label[judged], groups[judged]
    units = min(len(np.unique(together[label == value])) for value in (0, 1))
    if method == "none" or units < _FOLDS or min((label == 0).sum(), (label == 1).sum()) < _LEAST:
        return np.empty(0, np.int64), np.empty(0)
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    if method == "texture":
        score = kernel_scores(texture_features(scan, judged), label, together)
    else:
        texture = near.amplitudes(scan.facts.spectrum[judged])
        score = out_of_fold_scores(np.concatenate([scan.facts.features[judged], texture], axis=1), label, together)
    probability = np.stack([1 - score, score], axis=1)
    suspect = find_label_issues(label, probability, filter_by="both", n_jobs=1)
    suspicion = 1 - get_label_quality_scores(label, probability)
    order = np.flatnonzero(suspect)
    order = order[np.argsort(-suspicion[order], kind="stable")]
    return judged[order], suspicion[order]
