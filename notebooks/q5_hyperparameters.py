# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Q5 How is it tuned?
#
# 9. What is the search space, and what does the search look like? Which champion does valid choose over seeds, and what
#    does one look at test say of it: confusion matrix, threshold for a stated cost, ROC and PR curves, what a lower
#    threshold costs, the baselines, and what the search gained?
#
# The other eight parts of the question are in [their own chapter](q5_tracking).

# %% tags=["parameters"]
data_dir: str = ""
work_dir: str = ""
preset: str = "mlp"
trials: int = 0
finalists: int = 2
seeds: int = 3

# %%
import pandas as pd

from pcam.data import open_split
from pcam.evaluation import access, curves, linear, metrics, predict, report, search_gain, search_plots, thresholds
from pcam.evaluation.comparison import delong, paired_bootstrap
from pcam.journal import open_chapter
from pcam.training import open_run, space, tune

chapter = open_chapter("q5_hyperparameters", data_dir, work_dir)

# %% [markdown]
# ## The search space
#
# Each trial changes these keys of the preset and nothing else, so every trial is a run like any other.

# %%
planned = chapter.plan.planned(f"{preset}-0")
searched = space.search_space(planned.config())
chapter.table(pd.DataFrame([(d.key, str(d)) for d in searched], columns=["key", "values"]), f"Searched for {preset}")

# %% [markdown]
# ## The search
#
# Optuna's tree-structured Parzen estimator proposes, valid judges. The best few are then trained over several seeds,
# since the best of many single trainings is partly luck. A trial that is worse than the median of those before it ends
# early. (`trials = 0` means few on the sample and more on real data.)

# %% tags=["nbval-ignore-output"]
runs_dir = chapter.work / "runs"
overrides = [override for override in planned.overrides if not override.startswith("seed=")]
plan = {"trials": trials or (5 if chapter.is_sample else 16), "finalists": finalists, "seeds": seeds}
search = tune.tune(planned.preset, chapter.data_dir, runs_dir=runs_dir, overrides=overrides, **plan)
chapter.table(search.table(), "Trials in order of proposal; value: ROC-AUC on valid", missing="ended early")

# %% [markdown]
# Random search for comparison: the same seed, the same rule for poor trials, as many finalists, and at least as many
# epochs, counting those of trials that ended early (its last trial is finished, so it may have a few more). The first
# three proposals are random in both and so the same; the searches differ in what comes after.

# %%
equal = plan | {"trials": 100 * len(search.trials), "epochs": search.epochs}
random = tune.tune(planned.preset, chapter.data_dir, runs_dir=runs_dir, overrides=overrides, sampler="random", **equal)
sides = {"TPE": search, "random": random}
rows = [(name, len(r.trials), r.epochs, r.scored()[0][1], r.finalists[0].mean) for name, r in sides.items()]
columns = ["search", "trials", "epochs", "best trial", "best over seeds"]
chapter.table(pd.DataFrame(rows, columns=columns), "Two searches of equal cost, ROC-AUC on valid")

# %%
chapter.figure(search_plots.history_figure(sides), alt="ROC-AUC on valid of each trial and the best so far")

# %%
importance = search_plots.importance_figure(search, searched)
chapter.figure(importance, alt="Share of the variance of ROC-AUC on valid that each searched key explains")

# %%
slices = search_plots.slices_figure(search, searched)
chapter.figure(slices, alt="ROC-AUC on valid of each trial against each searched key, the best over seeds marked")

# %%
parallel = search_plots.parallel_figure(search, searched)
chapter.figure(parallel, alt="Parallel coordinates of the trials over all searched keys, darker for a higher ROC-AUC")

# %% [markdown]
# ## The champion
#
# Finalists and the untuned preset, each over the same seeds, on valid. The best mean is the champion; the untuned
# preset may well be it. A configuration whose loss becomes NaN with any seed is out, and the next best takes its place.

# %% tags=["nbval-ignore-output"]
best, untuned, by_chance = search.finalists[0], search.untuned, random.finalists[0]
rows = [(f.name, f.mean, min(f.values), max(f.values), len(f.values)) for f in [*search.finalists, untuned]]
table = pd.DataFrame(rows, columns=["configuration", "mean", "lowest", "highest", "n"])
chapter.table(table, f"ROC-AUC on valid over seeds; the champion is {search.champion.name}")
for dropped in search.dropped:
    print(f"{dropped.name} is out of the running: {dropped.reason}")

# %% [markdown]
# ## One look at test
#
# The best of both searches, the untuned preset and a linear model on eight colour and texture features are scored
# together, when all choices are made. The look is logged in `test_access.jsonl` of the work folder: scoring the same
# runs again is the same look, any other run is another one, and more than one look would flatter the figures below.

# %% tags=["nbval-ignore-output"]
split = chapter.record("split", report.reporting_split(chapter.data_dir))
reported, valid = open_split(chapter.data_dir, split), open_split(chapter.data_dir, "valid")
finalists_by_name = {best.name: best, untuned.name: untuned, "best of random search": by_chance}
scored_runs = [run for f in finalists_by_name.values() for run in f.runs]
looks = access.log_access(chapter.work / "test_access.jsonl", search.study, scored_runs) if split == "test" else 0
runs = {name: [open_run(runs_dir / run) for run in f.runs] for name, f in finalists_by_name.items()}
scores = {name: [predict.predict_split(run, reported) for run in group] for name, group in runs.items()}
fitted = linear.fit_linear(open_split(chapter.data_dir, "train"))
baseline = fitted.predict(reported)
print(f"looks at test so far: {looks}")

# %% tags=["nbval-ignore-output"]
champion, winner = runs[search.champion.name], scores[search.champion.name][0]
costs, kind = champion[0].config.evaluation, reported.group_kind or "patch"
threshold = predict.decision_threshold(predict.predict_split(champion[0], valid), costs, split)
measured = metrics.score_metrics(winner, threshold, reported.groups, group_kind=kind, beta=costs.beta)
table = pd.DataFrame([m.as_dict() for m in measured.values()])[["name", "value", "low", "high", "n", "n_positive"]]
chapter.table(table, f"The champion's first seed on {split}; intervals of ROC-AUC: {measured['roc_auc'].method}")

# %%
confusion = thresholds.confusion_matrix(winner, threshold)
chapter.figure(curves.confusion_figure(confusion), alt="Confusion matrix with counts and shares of each row")

# %%
others = {f.name: scores[f.name][0] for f in (best, untuned) if f is not search.champion}
models = {f"champion ({search.champion.name})": winner, **others, "linear model": baseline}
chapter.figure(curves.roc_and_pr(models, threshold), alt="ROC and precision-recall curves of the three models")

# %% [markdown]
# ## The threshold, and what lowering it costs
#
# The threshold makes mistakes on valid cheapest at the stated costs. Each row below it finds more tumours for more
# false alarms.

# %% tags=["nbval-ignore-output"]
lower = [threshold.value * factor for factor in (1.5, 1.0, 0.75, 0.5, 0.25)]
lowering = thresholds.threshold_table(winner, lower, cost_fn=costs.cost_fn, cost_fp=costs.cost_fp)
chapter.table(lowering, f"Thresholds from higher to lower on {split}; the second row is the chosen one")

# %%
cost = curves.cost_curve(winner, threshold, costs.cost_fn, costs.cost_fp)
chapter.figure(cost, alt="Mean cost per patch, sensitivity and specificity against the threshold, the chosen marked")

# %% [markdown]
# ## Baselines
#
# Three classifiers that do not look at the patch, and the linear model with a threshold of its own from valid.

# %% tags=["nbval-ignore-output"]
linear_threshold = predict.decision_threshold(fitted.predict(valid), costs, split)
pairs = {"champion": (winner, threshold), "linear model": (baseline, linear_threshold)}
beside = report.beside_baselines(pairs, costs.beta)
caption = f"F-beta (beta = {costs.beta:g}) and ROC-AUC on {split}; one call for all ranks nothing and has no ROC-AUC"
chapter.table(beside, caption, missing="none")

# %% [markdown]
# ## What the search gained
#
# Best of the search less the untuned preset, and less the best of random search at equal cost: the difference of
# their mean ROC-AUC. Two things make it uncertain, so it has two intervals: one over patches, which are resampled for
# both alike, and one over the seeds of the trainings. Only where both are clear of zero is there a gain or a loss. How
# one search by luck differs from the next is in neither; `benchmarks/tune.py` repeats both searches.

# %% tags=["nbval-ignore-output"]
rows, how = [], {"group_kind": kind, "bootstrap": costs.bootstrap}
for name, other in (("gain", untuned.name), ("random_gain", "best of random search")):
    gain = search_gain.search_gain(scores[best.name], scores[other], reported.groups, **how)
    for over, interval in gain.intervals.items():
        chapter.record(f"{name}_{over}", **interval, split=split, runs=[*runs[best.name], *runs[other]])
        rows.append({"against": other, "interval over": over} | interval | {"both together": gain.verdict})
    chapter.record(f"{name}_verdict", gain.verdict)
differences = pd.DataFrame(rows).drop(columns="method")
chapter.table(differences, f"Best of the search less others, mean ROC-AUC on {split}, with 95 % intervals")

# %%
one = {"n": len(winner), "n_positive": winner.n_positive, "split": split, "runs": champion[:1]}
standing = beside.set_index("classifier")
chapter.record("all_positive", float(standing.loc["all positive", "f_beta"]), n=len(winner), split=split)
chapter.record("linear_auc", float(standing.loc["linear model", "roc_auc"]), n=len(winner), split=split)
independent = reported.groups is None
gap = delong(winner, baseline) if independent else paired_bootstrap([winner], [baseline], reported.groups, **how)
interval = {"low": gap.low, "high": gap.high, "method": gap.method}
chapter.record("linear_gap", gap.value, n=gap.n, split=split, runs=champion[:1], **interval)
for name, of in (("best", best), ("untuned", untuned)):
    chapter.record(f"{name}_valid", of.mean, n=len(of.values), split="valid", runs=runs[of.name])
chapter.record("threshold", threshold.value, n=len(valid), method=threshold.rule)
for name in ("roc_auc", "pr_auc", "f_beta", "sensitivity", "specificity"):
    m = measured[name]
    chapter.record(name, m.value, low=m.low, high=m.high, method=m.method, reason=m.reason, **one)

# %% tags=["nbval-ignore-output"]
more = lowering.iloc[3] - lowering.iloc[1]
facts = {"cost_fn": f"{costs.cost_fn / costs.cost_fp:g}", "beta": f"{costs.beta:g}"}
facts["champion"] = search.champion.name.replace("untuned", "the untuned")
order = (best.mean > untuned.mean) == (chapter.value("gain_patches").value > 0)
facts["turned"] = "" if order else f", though valid had put {'it' if best.mean > untuned.mean else 'the preset'} first"
facts["more_looks"] = "" if looks < 2 else " (more than one: the figures flatter)"
counts = {
    "n_epochs": search.epochs,
    "n_random_epochs": random.epochs,
    "n_trials": len(search.trials),
    "n_keys": len(searched),
    "n_seeds": seeds,
    "looks": looks,
}
halving = {"more_found": int(more["tp"]), "more_alarms": int(more["fp"])}
for name, value in (facts | counts | halving).items():
    chapter.record(name, value)
caveat = "" if split == "test" else "Test has no labels here: these are figures of valid, which chose the champion. "
chapter.answer(
    "9",
    caveat + "Of {n_trials} trials over {n_keys} keys and the untuned preset, valid chose, by the mean over {n_seeds} "
    "seeds: {champion}. On {split} (looks so far: {looks}{more_looks}) it has ROC-AUC {roc_auc:ci} and PR-AUC "
    "{pr_auc:ci}; the linear model has ROC-AUC {linear_auc}, and the champion's less that is {linear_gap:ci}. A missed "
    "tumour costs as much as {cost_fn} false alarms, so the threshold is {threshold}: F-beta (beta = {beta}) is "
    "{f_beta:ci}, against {all_positive} for calling every patch positive, sensitivity {sensitivity}, specificity "
    "{specificity}. Half that threshold finds {more_found} more tumour patches for {more_alarms} more false alarms.",
)
chapter.note(
    "What the search gained: on valid the mean ROC-AUC of its best is {best_valid}, that of the untuned preset "
    "{untuned_valid}. On {split} it differs from the untuned preset by {gain_patches:ci} over patches and "
    "{gain_seeds:ci} over seeds: {gain_verdict}{turned}. From the best of random search ({n_random_epochs} epochs "
    "against {n_epochs}) it differs by {random_gain_patches:ci} over patches and {random_gain_seeds:ci} over seeds: "
    "{random_gain_verdict}, from one search of each kind."
)

# %% tags=["nbval-ignore-output"]
chapter.headline(
    "Valid chose {champion}: ROC-AUC {roc_auc:ci} on {split}. There the best of the search differs from the untuned "
    "preset by {gain_patches:ci} over patches and {gain_seeds:ci} over seeds: {gain_verdict}{turned}."
)

# %%
chapter.close()
