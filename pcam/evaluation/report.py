"""Tables that a chapter shows about several runs: metrics over seeds, and which metric depends on what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcam.data.format import available_splits, open_split
from pcam.errors import DataError
from pcam.evaluation.constant import baselines
from pcam.evaluation.intervals import t_interval
from pcam.evaluation.metrics import DECISION_METRICS, SCORE_METRICS, score_metrics
from pcam.evaluation.predictions import Predictions
from pcam.evaluation.thresholds import Threshold

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from pcam.training import Run

METRIC_NOTES = {
    "roc_auc": ("ROC-AUC", "Does a tumour patch outscore a normal one?"),
    "pr_auc": ("PR-AUC", "How pure is the top of the ranking?"),
    "f_beta": ("F-beta", "Precision and sensitivity at one threshold"),
    "accuracy": ("accuracy", "How many decisions are right?"),
    "precision": ("precision", "How many alarms are real?"),
}


def reporting_split(data_dir: Path | str) -> str:
    """Return the split to report on: test where it is there with labels, else valid.

    Raises:
        DataError: there is neither.
    """
    for name in ("test", "valid"):
        if name in available_splits(data_dir) and open_split(data_dir, name).labels is not None:
            return name
    raise DataError(f"{data_dir}: neither test nor valid has labels; nothing can be reported")


def over_seeds(predictions: Sequence[Predictions], thresholds: Sequence[Threshold], beta: float = 2.0) -> pd.DataFrame:
    """Metrics of several runs of one configuration, with the spread that training alone makes.

    Args:
        predictions: labelled predictions of the same split, one per seed, at least two.
        thresholds: one per run, chosen on another split.
        beta: weight of sensitivity against precision in F-beta.

    Returns:
        One row per metric that every run defines: metric, one column per run, mean, sd, low, high (t interval, cut at
        the metric's own bounds), n, all positive (what calling every patch positive has; NaN where it has none).

    Raises:
        DataError: fewer than two runs, or a threshold of the split that is reported.
    """
    import pandas as pd

    pairs = zip(predictions, thresholds, strict=True)
    metrics = [score_metrics(p, threshold, beta=beta, bootstrap=0) for p, threshold in pairs]
    blind = baselines(predictions[0].labels, beta)[1].as_dict()
    blind["precision"] = blind["accuracy"]  # all are called positive: either is the share of positives
    rows = []
    for name in SCORE_METRICS + DECISION_METRICS:
        values = [metric[name].value for metric in metrics]
        defined = [value for value in values if value is not None]
        if len(defined) < len(values):
            continue
        s = t_interval(defined)
        # Student's t knows no bounds; a share does.
        low, high = max(s.low, 0.0), s.high if name == "nll" else min(s.high, 1.0)
        runs = {f"run {number}": value for number, value in enumerate(defined)}
        spread = {"mean": s.mean, "sd": s.sd, "low": low, "high": high, "n": s.n}
        rows.append({"metric": name, **runs, **spread, "all positive": blind.get(name, np.nan)})
    return pd.DataFrame(rows)


def metric_choice_table(prevalences: pd.DataFrame) -> pd.DataFrame:
    """Say of each metric what it asks, whether it needs a threshold, and by how much prevalence alone moves it.

    Args:
        prevalences: from `pcam.evaluation.prevalence.prevalence_table`; its rows share scores and decisions.

    Returns:
        One row per metric: metric, asks, needs a threshold, moved by prevalence (largest minus smallest value).
    """
    import pandas as pd

    rows = []
    for name, (title, asks) in METRIC_NOTES.items():
        moved = float(np.ptp(prevalences[name].round(9)))  # rounding: sums of weights differ in the last digits
        rows.append((title, asks, "no" if name in SCORE_METRICS else "yes", moved))
    return pd.DataFrame(rows, columns=["metric", "asks", "needs a threshold", "moved by prevalence"])


def beside_baselines(results: Mapping[str, tuple[Predictions, Threshold]], beta: float = 2.0) -> pd.DataFrame:
    """Set results beside the classifiers that do not look at the patch.

    Args:
        results: name → labelled predictions and threshold, all on the same patches.
        beta: weight of sensitivity against precision in F-beta.

    Returns:
        One row per classifier: classifier, f_beta, accuracy, sensitivity, specificity, roc_auc (NaN for a baseline: a
        constant ranks nothing), n, n_positive.
    """
    import pandas as pd

    names = ("f_beta", "accuracy", "sensitivity", "specificity", "roc_auc")
    rows: list[dict[str, Any]] = []
    for name, (p, threshold) in results.items():
        found = score_metrics(p, threshold, beta=beta, bootstrap=0)
        counts = {"n": len(p), "n_positive": p.n_positive}
        rows.append({"classifier": name, **{key: found[key].value for key in names}, **counts})
    labels = next(iter(results.values()))[0].labels
    for baseline in baselines(labels, beta):
        rows.append({**baseline.as_dict(), "classifier": baseline.name.replace("_", " "), "roc_auc": np.nan})
    return pd.DataFrame(rows)[["classifier", *names, "n", "n_positive"]]


def learning_curves(runs: Mapping[str, Run]) -> Figure:
    """Loss on train and valid after each epoch, one colour a run, read from the runs' own logs."""
    from pcam.evaluation.curves import PALETTE, panels_in_a_row

    figure, panels = panels_in_a_row(2)
    for axes, key, title in zip(panels, ("train_loss", "valid_loss"), ("train", "valid"), strict=True):
        for number, (name, run) in enumerate(runs.items()):
            rows = run.epochs
            epochs, losses = [row["epoch"] + 1 for row in rows], [row[key] for row in rows]
            style = ("-", "--", "-.", ":")[number % 4]
            axes.plot(epochs, losses, style, marker="os^D"[number % 4], markersize=4, color=PALETTE[number], label=name)
        axes.set(xlabel="Epoch", ylabel="Mean negative log-likelihood (nats)", title=f"Loss on {title}")
    panels[0].legend(fontsize=8, frameon=False)
    return figure
