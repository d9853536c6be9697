"""Label suspects: patches whose label disagrees with what the other patches say. Candidates, never truth.

Every patch is scored by a classifier that has seen neither it nor the patches that share pixels with it. Confident
learning (Northcutt et al. 2021, JAIR 70:1373, library cleanlab) then says how surely the scores contradict the label.
Two classifiers are at hand: "colour", linear on the few numbers that the scan keeps, costs next to nothing and finds
gross errors; "texture", kernel regression on two thousand numbers (`pcam.audit.texture`), reads the patches again,
about 10 ms each, and finds nearly half as many errors more.
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
# The kernel regression: chosen on pcam's real patches with labels flipped by seeds that no figure is quoted from.
_STEEP, _WIDE = 2.0, 0.5
_NOISE = 0.05
_FARTHEST = 5.0  # standard deviations: one odd number must not decide about a patch
_MOST = 6000  # patches that are learnt from at a time, and the most that "auto" gives to the slow way: about a minute
_CONTRADICTED = 0.1  # a label less likely than this is listed, however few wrong labels cleanlab expects


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
    """Return the probability (N,) of label 1 from kernel ridge regression that did not learn from the patch's group.

    More than `_MOST` patches are cut into parts by lot, of the same balance, and each part is judged by itself. The
    regression's answers are scaled to probabilities (Platt 1999).
    """
    from sklearn.linear_model import LogisticRegression

    rows = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)
    rows = np.clip(rows, -_FARTHEST, _FARTHEST)
    by_lot = np.random.default_rng(seed).permutation(len(rows))
    by_lot = by_lot[np.argsort(label[by_lot], kind="stable")]
    answer = np.empty((len(rows), 1))
    n_parts = -(-len(rows) // _MOST)
    for part in (by_lot[start::n_parts] for start in range(n_parts)):
        answer[part, 0] = _held_out(rows[part], np.where(label[part] == 1, 1.0, -1.0), groups[part])
    return LogisticRegression(C=np.inf).fit(answer, label).predict_proba(answer)[:, 1]


def _held_out(
    rows: NDArray[np.floating], target: NDArray[np.float64], groups: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What a regression without a patch's group answers for it, for each patch (M,).

    One matrix is inverted for all groups: with K the kernel and A = (K + noise)⁻¹, the answers without a group G miss
    the target by (A_GG)⁻¹ (A target)_G (An et al. 2007, Pattern Recognition 40:2154).
    """
    from scipy.spatial.distance import pdist, squareform
    from sklearn.metrics.pairwise import rbf_kernel

    n_features = rows.shape[1]
    # A steep and a wide kernel see different things; the constant is the share of the classes.
    kernel = squareform(np.exp(-_STEEP / n_features * pdist(rows, "cityblock")))
    np.fill_diagonal(kernel, 1)
    kernel += rbf_kernel(rows, gamma=_WIDE / n_features)
    kernel = 1 + kernel / 2
    kernel[np.diag_indices_from(kernel)] += _NOISE
    inverse = np.linalg.inv(kernel)
    weight = inverse @ target
    missed = weight / np.diagonal(inverse)
    order = np.argsort(groups, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(group) > 1:
            missed[group] = np.linalg.solve(inverse[np.ix_(group, group)], weight[group])
    return target - missed


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

    Listed are the patches that cleanlab counts as wrong, and those whose label has a probability below 0.1.

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
    suspicion = 1 - get_label_quality_scores(label, probability)
    # cleanlab lists no more than it expects there to be, which is too few where the classes are told apart well.
    suspect = find_label_issues(label, probability, filter_by="both", n_jobs=1) | (suspicion > 1 - _CONTRADICTED)
    order = np.flatnonzero(suspect)
    order = order[np.argsort(-suspicion[order], kind="stable")]
    return judged[order], suspicion[order]
