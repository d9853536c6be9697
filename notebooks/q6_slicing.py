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
# # Q6 Where does it fail?
#
# A single figure for a whole test split is an average. It can stay high while one kind of patch goes wrong.
#
# 1. Which patches are called tumour wrongly (false positives), and which tumours are missed (false negatives)?
# 2. Are there slices of the data, defined on what a patch looks like and never on what the model says, where the
#    model is weaker than on the rest?
# 3. What does the global metric hide here?

# %% tags=["parameters"]
data_dir: str = ""
work_dir: str = ""

# %%
import pandas as pd

from pcam.evaluation import ErrorGallery, Scored, calibration, curves, error_figure, feature_edges
from pcam.evaluation import slice_report as report
from pcam.evaluation import slices as search
from pcam.evaluation.constant import baselines
from pcam.evaluation.metrics import score_metrics
from pcam.evaluation.predict import decision_threshold
from pcam.evaluation.suspects import label_suspects
from pcam.evaluation.thresholds import confusion_matrix, decision_curve, implied_threshold
from pcam.journal import open_chapter
from pcam.training import load_model

chapter = open_chapter("q6_slicing", data_dir, work_dir)

# %% [markdown]
# ## The whole, and the threshold
#
# The network is judged on test. Its threshold is the one that makes mistakes cheapest on valid, at the costs in the
# run's config; test had no part in choosing it.

# %% tags=["nbval-ignore-output"]
run, valid, test = chapter.run("cnn-0"), chapter.split("valid"), chapter.split("test")
valid_p, test_p = chapter.predictions("cnn-0", "valid"), chapter.predictions("cnn-0", "test")
costs = run.config.evaluation
threshold = decision_threshold(valid_p, costs)
whole = score_metrics(test_p, threshold, test.groups, group_kind=test.group_kind or "patch", beta=costs.beta)
judged = [whole[name].as_dict() for name in ("roc_auc", "sensitivity", "specificity", "f_beta")]
for metric in judged:
    chapter.record(**metric, split="test", runs=[run])
caption = f"The network on test; intervals of ROC-AUC: {whole['roc_auc'].method}"
chapter.table(pd.DataFrame(judged)[["name", "value", "low", "high", "n", "n_positive"]], caption)
all_positive = chapter.record(
    "all_positive", baselines(test_p.labels, costs.beta)[1].f_beta, n=len(test_p), split="test"
)
print(f"{all_positive:.3f} is the F-beta (beta = {costs.beta:g}) of calling every patch tumour")
print(f"threshold {threshold.value:.3f}: {threshold.rule}")

# %% [markdown]
# ### Is a score a probability?
#
# Costs imply a threshold only where a score of `0.8` means that eight patches in ten are tumour. A temperature, fitted
# on valid, divides all logits by one number; the order of the patches, and with it the ROC-AUC, stays as it is.

# %% tags=["nbval-ignore-output"]
temperature = calibration.fit_temperature(valid_p)
tempered = temperature.apply(test_p)
about = {"n": len(test_p), "split": "test", "runs": [run]}
chapter.record("temperature", temperature.value, n=len(valid_p), split="valid", runs=[run])
before = chapter.record("ece", calibration.expected_calibration_error(test_p), **about)
after = chapter.record("ece_tempered", calibration.expected_calibration_error(tempered), **about)
print(f"temperature {temperature.value:.2f}: mean distance of score and share {before:.3f} before, {after:.3f} after")
chapter.figure(
    curves.reliability_figure({"as scored": test_p, "calibrated on valid": tempered}, groups=test.groups),
    alt="Share of tumours against the mean score in ten bins of test, before and after the temperature, with Wilson's "
    "intervals, over slides where they are known, and the diagonal of perfect calibration.",
)

# %% [markdown]
# What is acting on the score worth? Whoever acts from probability `t` on counts a false alarm as `t / (1 − t)` of a
# missed tumour. In that currency the curve counts tumours found, less false alarms, per patch; the score is of use
# where it lies above both calling every patch tumour and calling none (Vickers and Elkin, 2006).

# %% tags=["nbval-ignore-output"]
implied = implied_threshold(costs.cost_fn, costs.cost_fp).value
benefit = decision_curve(tempered, [implied]).iloc[0]
chapter.record("benefit", benefit["model"], **about)
chapter.record("benefit_all", benefit["all"], **about)
print(f"at the stated costs, net benefit {benefit['model']:.3f}; calling every patch tumour {benefit['all']:.3f}")
chapter.figure(
    curves.decision_figure({"act on the score, calibrated on valid": tempered}, implied),
    alt="Net benefit of the network on test against the threshold probability, beside calling every patch tumour and "
    "calling none; the probability that the stated costs imply is marked.",
)

# %% [markdown]
# ## 1 The errors
#
# A false positive is a patch without tumour in its centre that is called tumour; a false negative is a tumour that is
# missed. The figure shows those that the network was surest of. The outlined centre, `32 × 32` pixels, alone decides
# the label: tumour outside of it does not count, which explains some of the false positives.

# %%
found = confusion_matrix(test_p, threshold)
for name, count, of in (("fp", found.fp, found.fp + found.tn), ("fn", found.fn, found.fn + found.tp)):
    chapter.record(name, count, n=of, split="test", runs=[run])
    chapter.record(f"{name}_of", of, split="test", runs=[run])
chapter.figure(
    error_figure(test_p, test, threshold.value),
    alt="Two rows of test patches with index and score: the false positives with the highest scores, and the false "
    "negatives with the lowest. The centre that decides the label is outlined.",
)

# %% [markdown]
# In the gallery, move the threshold and watch what it costs; choose slides, slices, scores and an order, or only
# patches whose label the network contradicts so surely that one looks at the label first (Northcutt and others, 2021).
# Click a patch for its facts, for the training patches that the network holds most alike, and for what moved its score
# (integrated gradients; Sundararajan and others, 2017). It works in this page without a kernel, and in a running
# Jupyter it is a live widget: `gallery.threshold` and `gallery.selected` can be read and set.

# %% tags=["nbval-ignore-output"]
valid_s, test_s = Scored.of(valid_p, valid), Scored.of(test_p, test)
edges = feature_edges(valid_s.features)
slices, suspects = search.slice_masks(test_s, edges), label_suspects(test_p)
behind = {"neighbours": chapter.split("train"), "model": load_model(run), "attribution": True}
shown = {"limit": 64, "features": test_s.features, "slices": slices, "suspects": suspects}
gallery = ErrorGallery(test_p, test, threshold, **shown, **behind)
gallery

# %%
chapter.answer(
    "1",
    "At the threshold chosen on valid, {fp} of {fp_of} test patches without tumour are called tumour, and {fn} of "
    "{fn_of} tumours are missed. The figure shows the ones the network was surest of, the gallery these and others.",
)

# %% [markdown]
# ## 2 Slices
#
# Eight features are measured on the stored pixels. Haematoxylin and eosin are separated by colour deconvolution
# (Ruifrok and Johnston, 2001).

# %%
chapter.table(report.feature_guide(), caption="The input features. OD: optical density, to base ten.")

# %% [markdown]
# For each feature the fifth with the lowest and the fifth with the highest value is a slice; so is what two of these
# share (a weakness may need both), and so is each slide. The edges are fixed on valid and used unchanged on test.

# %%
chapter.table(report.candidate_table(valid_s, test_s), caption="The slices of one feature.")

# %% [markdown]
# On valid, each slice with enough patches of both classes is compared with the rest of the split: ROC-AUC, sensitivity
# and specificity, none of which moves when only the share of tumours does. The error counts whole slides (or overlap
# groups), since their patches are not independent; a slide is compared with how much slides differ anyway. All
# comparisons enter one Holm correction. What is found is tried again on test. Of pairs and slides, the figure and the
# tables show the weak ones. Where the patches of a slice come from two or three slides, its interval is very wide.

# %%
table = search.find_slices(valid_s, test_s, threshold=threshold, beta=costs.beta, edges=edges, edges_from="valid")
chapter.figure(
    report.slice_figure(table),
    alt="ROC-AUC of each slice with its interval, on valid where slices are searched and on test where they are "
    "confirmed, beside the ROC-AUC of the rest of the split. The tables below hold the same values.",
)

# %% tags=["nbval-ignore-output"]
chapter.table(report.metric_table(table, "valid", "roc_auc"), caption="ROC-AUC on valid, where slices are searched.")

# %% [markdown]
# On test, p is there only for what valid found weak: what was not found is not tried again.

# %% tags=["nbval-ignore-output"]
chapter.table(report.metric_table(table, "test", "roc_auc"), caption="ROC-AUC on test.")
chapter.table(report.metric_table(table, "test", "sensitivity"), caption="Sensitivity on test, at the threshold.")

# %% [markdown]
# A slide is in one split only: a weakness of a slide can be found, but not confirmed on another split.

# %% tags=["nbval-ignore-output"]
slides = report.metric_table(table, "test", "roc_auc", slides=12)
if len(slides):
    chapter.table(slides, caption="Slides of test, lowest ROC-AUC first.")
else:
    print("No slide can be compared: the data name none, or none has enough patches of both classes.")

# %%
claims = search.weak_slices(table)
tested = table[(table["split"] == "valid") & table["p_adjusted"].notna()]
chapter.record("tried", len(tested), split="valid", runs=[run])
chapter.record("slices_tried", tested["slice"].nunique(), split="valid", runs=[run])
chapter.record("found", len(claims), split="valid", runs=[run])
chapter.record("confirmed", int((claims["verdict"] == "confirmed").sum()), split="test", runs=[run])
names = claims.loc[claims["verdict"] == "confirmed", "slice"].drop_duplicates()
chapter.record("weak", ", ".join(names) or "none", split="test", runs=[run])
chapter.table(report.claims_table(claims), caption="What was found on valid, and again on test.")

# %%
chapter.answer(
    "2",
    "On valid, {slices_tried} slices were compared with the rest in {tried} tests; after correction for all of these, "
    "{found} show a weakness, and {confirmed} are confirmed on test. Slices with a confirmed weakness: {weak}.",
)

# %% [markdown]
# ## 3 Silent failure
#
# How far below the whole is the worst slice of test, and how many of all missed tumours lie in it?

# %% tags=["nbval-ignore-output"]
worst = report.worst_slice(table, "test")
inside = slices[worst.slice]
missed = (test_p.labels == 1) & ~threshold.decide(test_p)
chapter.record("worst", worst.slice, split="test", runs=[run])
chapter.record(
    "worst_auc",
    worst.value,
    n=worst.n,
    n_positive=worst.n_positive,
    low=worst.low,
    high=worst.high,
    split="test",
    runs=[run],
)
chapter.record("rest_auc", worst.rest_value, n=len(test_p) - worst.n, split="test", runs=[run])
chapter.record("missed_inside", int((missed & inside).sum()), split="test", runs=[run])
chapter.record("tumours_inside", worst.n_positive, split="test", runs=[run])
print(f"{worst.slice}: ROC-AUC {chapter.value('worst_auc'):ci}, {chapter.value('missed_inside')} tumours missed")

# %% [markdown]
# F-beta makes a poor judge of slices. It rises with the share of tumours, whatever the model does: a "classifier" that
# calls everything tumour follows it. So a difference in F-beta between slices may be one in prevalence only, and a
# slice whose F-beta is below the all-positive one is served worse than by no model at all.

# %% tags=["nbval-ignore-output"]
trap = report.prevalence_table(table, "test")
chapter.record("compared", len(trap), split="test", runs=[run])
below = trap["F-beta"] < trap["F-beta if all are called positive"]
chapter.record("below_all_positive", int(below.sum()), split="test", runs=[run])
chapter.table(trap, caption=f"F-beta of every slice on test beside prevalence; beta = {costs.beta:g}.")

# %% [markdown]
# A page without findings leaves a question open: would the search have seen a weak slice? A control makes one. In the
# darkest fifth, half of the patches exchange their scores among themselves, on valid and on test; then the search
# runs again. What the global ROC-AUC shows of it is what it would show of a silent failure.

# %% tags=["nbval-ignore-output"]
control = [
    report.spoiled(s, s.features["brightness"] <= edges["brightness"][0], 0.5, seed=0) for s in (valid_s, test_s)
]
again = search.find_slices(*control, threshold=threshold, beta=costs.beta, edges=edges, edges_from="valid")
seen = search.weak_slices(again)
spoiled_auc = score_metrics(control[1].predictions, None, test.groups, group_kind=test.group_kind or "patch")["roc_auc"]
chapter.record(**spoiled_auc.as_dict() | {"name": "spoiled_auc"}, split="test", runs=[run])
verdicts = seen.loc[(seen["slice"] == "darkest fifth") & (seen["metric"] == "roc_auc"), "verdict"]
chapter.record("control", verdicts.iloc[0] if len(verdicts) else "not found", split="test", runs=[run])
chapter.table(
    report.claims_table(seen), caption="What the search claims after the darkest fifth was spoiled on purpose."
)

# %%
chapter.answer(
    "3",
    "The whole of test has ROC-AUC {roc_auc:ci}. Its worst slice by ROC-AUC, the {worst}, has {worst_auc:ci}, the rest "
    "{rest_auc}; {missed_inside} of the {fn} missed tumours lie in it, among {tumours_inside} tumours there. In "
    "{below_all_positive} of {compared} slices F-beta is below that of calling all positive. Spoiling half of the "
    "darkest fifth on purpose leaves a global ROC-AUC of {spoiled_auc}; the search's verdict on it: {control}. "
    "ROC-AUC hides calibration as well: scores are off by {ece} on average, by {ece_tempered} once calibrated on "
    "valid. At the stated costs, acting on them is then worth {benefit} tumours a patch, calling every patch tumour "
    "{benefit_all}.",
)

# %%
again = "weaknesses found on valid: {found}, of them confirmed on test: {confirmed}."
chapter.headline(
    "ROC-AUC is {roc_auc} on the whole of test and {worst_auc} on the worst of its slices, the {worst}; "
    + (again if len(claims) else "no slice is weaker on valid than chance explains.")
)

# %%
chapter.close()
