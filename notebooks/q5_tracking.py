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
# # Q5 How is it tracked?
#
# 1. Which metrics are chosen, and why?
# 2. What are their mean, standard deviation and interval over three seeds?
# 3. Why does ad-hoc logging not scale?
# 4. How is the tracker set up?
# 5. What evidence does each run hold?
# 6. Can a run be reproduced from its record alone, bit for bit?
# 7. Does a checkpoint work on new images?
# 8. What can go wrong after deployment, and what catches it?
#
# Hyper-parameters, the ninth part, have [a chapter of their own](q5_hyperparameters).

# %% tags=["parameters"]
data_dir: str = ""
work_dir: str = ""
model: str = "cnn"
patches_watched: int = 192
window: int = 48

# %%
import inspect

import numpy as np

from pcam.data import open_split
from pcam.evaluation import deployment, images, monitor, predict, prevalence, report, strengths
from pcam.journal import open_chapter
from pcam.training import load_model, records, reproduce, runs, tracking

chapter = open_chapter("q5_tracking", data_dir, work_dir)

# %% [markdown]
# ## 1 The metrics
#
# A metric is chosen for what may change without it moving. The test patches are reweighted to other shares of
# positives; scores and decisions stay as they are. What moves then says as much about the population as about the
# model, and must not be compared between splits or slices. F-beta stands beside that of calling every patch positive.

# %%
names = [f"{model}-{seed}" for seed in range(3)]
trained = [chapter.run(name) for name in names]
split = chapter.record("split", report.reporting_split(chapter.data_dir))
costs = trained[0].config.evaluation
scored = [chapter.predictions(name, split) for name in names]
thresholds = [predict.decision_threshold(chapter.predictions(name, "valid"), costs, split) for name in names]

# %% tags=["nbval-ignore-output"]
prevalences = prevalence.prevalence_table(scored[0], thresholds[0], [0.05, 0.17, 0.3, 0.5, 0.7], costs.beta)
chapter.table(prevalences, "The same scores and decisions at other shares of positives")

# %% tags=["nbval-ignore-output"]
choice = report.metric_choice_table(prevalences)
chapter.table(choice, "What each metric asks, needs, and how far prevalence alone moves it")

# %%
n, n_positive = len(scored[0]), scored[0].n_positive
moved = choice.set_index("metric")["moved by prevalence"]
about = {"n": n, "n_positive": n_positive, "split": split, "runs": trained[:1]}
chapter.record("auc_moved", float(moved["ROC-AUC"]), **about)
chapter.record("pr_moved", float(moved["PR-AUC"]), **about)
chapter.record("f_moved", float(moved["F-beta"]), **about)
chapter.record("beta", int(costs.beta) if costs.beta == int(costs.beta) else costs.beta, n=n)
chapter.record("all_positive", float(prevalences["all_positive_f_beta"].iloc[-1]), n=n, split=split)
chapter.answer(
    "1",
    "ROC-AUC ranks patches without a threshold and moves by {auc_moved} over these prevalences, so it compares models "
    "across splits. PR-AUC moves by {pr_moved} and tells how pure the top of the list is where positives are rare. "
    "F-beta with beta = {beta} judges decisions and moves by {f_moved}; calling every patch positive already reaches "
    "{all_positive} at the highest of these prevalences, so it is never shown without that figure.",
)

# %% [markdown]
# ## 2 Three seeds
#
# Three trainings that differ in the seed only. The interval of the mean is Student's, and speaks of the spread that
# training makes; how far the figure depends on the patches is another question, which a bootstrap over slides answers.

# %% tags=["nbval-ignore-output"]
seeds = report.over_seeds(scored, thresholds, costs.beta)
chapter.table(seeds, f"Metrics on {split} over seeds; low and high: 95 % t interval of the mean", missing="none")

# %%
for name, row in seeds.set_index("metric").iterrows():
    details = {"n": int(row["n"]), "split": split, "runs": trained, "unit": ""}
    method = f"Student's t over {int(row['n'])} seeds"
    chapter.record(f"mean_{name}", row["mean"], low=row["low"], high=row["high"], method=method, **details)
    chapter.record(f"sd_{name}", row["sd"], **details)
chapter.record("all_positive_here", float(seeds.set_index("metric")["all positive"]["f_beta"]), n=n, split=split)
chapter.answer(
    "2",
    "On {split}, ROC-AUC is {mean_roc_auc:ci} with standard deviation {sd_roc_auc}; PR-AUC is {mean_pr_auc:ci} with "
    "{sd_pr_auc}; F-beta at the threshold chosen on valid is {mean_f_beta:ci} with {sd_f_beta}, against "
    "{all_positive_here} for calling every patch positive. n counts seeds.",
)

# %% [markdown]
# ## 3 Ad-hoc logging
#
# Three things go wrong when results are printed, or kept in one shared file: there is more to keep than anybody
# copies, different configurations print the same figure, and writers overwrite each other.

# %%
others = [chapter.run(f"mlp-{seed}") for seed in range(3)]
completed = list({run.id: run for run in [*trained, *others]}.values())
chapter.record("n_runs", len(completed))
chapter.record("n_settings", records.settings_count(trained[0]))
chapter.record("n_logged", records.logged_values(completed))
chapter.record("n_pairs", len(completed) * (len(completed) - 1) // 2)
chapter.record("n_lookalikes", records.lookalikes(completed), runs=completed)
writers = chapter.record("n_writers", 8)
chapter.record("n_kept", records.rows_kept_in_one_file(chapter.scratch(), writers), local=True)
chapter.answer(
    "3",
    "Each of the {n_runs} runs here is decided by {n_settings} settings, its data and its code, and together they "
    "logged {n_logged} numbers. Of {n_pairs} pairs of runs, {n_lookalikes} differ in configuration and yet print the "
    "same accuracy to two digits: the printed line does not say which run it was. And of {n_writers} writers that "
    "ended at the same time, a shared results file kept the row of {n_kept}. A folder of its own for each run, named "
    "by what determines it, has none of these faults.",
)

# %% [markdown]
# ## 4 The tracker's set-up
#
# No server is needed: a run is a folder, and the metric log is a file to which whole lines are appended. This is the
# code that names a run, from the package itself; and the code that copies runs to an MLflow server where there is one.

# %%
chapter.source(inspect.getdoc(runs), language="text")
chapter.source(runs.identity)

# %%
chapter.source(inspect.getdoc(tracking), language="text")
chapter.source(tracking.mirrored)

# %%
chapter.record("n_states", len(runs.STATES))
chapter.record("run_name", trained[0].id)
chapter.record("name_holds", runs.run_id(trained[0].config, chapter.data_dir) == trained[0].id, runs=trained[:1])
chapter.answer(
    "4",
    "A run is a folder named by the hash of configuration, data and training code, in one of {n_states} states; a "
    "completed one is never written again. Computed anew from its configuration and the data on the disk, the name of "
    "`{run_name}` {name_holds:is the same|is another}.",
)

# %% [markdown]
# ## 5 What each run holds

# %% tags=["nbval-ignore-output"]
held = records.record_table(trained[0])
chapter.table(held, f"The record of {names[0]}, run {trained[0].id}")

# %%
curves = report.learning_curves(dict(zip(names, trained, strict=True)))
chapter.figure(curves, alt="Loss on train and on valid after each epoch for three seeds, drawn from the runs' own logs")

# %%
chapter.record("n_kinds", len(held))
chapter.record("complete", bool((held["present"] == "yes").all()), runs=trained[:1])
chapter.record("n_intact", sum(records.model_is_intact(run) for run in trained))
chapter.record("n_checked", len(trained))
chapter.answer(
    "5",
    "Each run should hold {n_kinds} kinds of evidence, and {complete:all are|not all are} present. The model file has "
    "the recorded SHA-256 in {n_intact} of {n_checked} runs. Plots are not kept but drawn again from the log, as "
    "above, so that they cannot go stale.",
)

# %% [markdown]
# ## 6 One run made again
#
# A fresh process gets nothing but the record: config.yaml, the data folder named in data.json, and the number of
# threads in environment.json. What it trains is compared with the first run, logged row by logged row.

# %%
small = chapter.run("mlp-0")
again = reproduce.reproduce(small, chapter.scratch())
print(f"same name: {again.same_name}; same weights: {again.sha256[0] == again.sha256[1]}")
print(f"equal rows of the metric log: {again.equal_rows} of {again.rows}; same final metrics: {again.same_scores}")

# %%
chapter.record("identical", again.identical, runs=[small])
chapter.record("n_rows", again.rows)
chapter.record("n_equal_rows", again.equal_rows)
chapter.answer(
    "6",
    "Trained again from its record alone, in a fresh process, the run {identical:is|is not} identical bit for bit: "
    "{n_equal_rows} of {n_rows} logged rows are equal, and the hashes of the weights were compared, not the rounded "
    "losses.",
)

# %% [markdown]
# ## 7 New images
#
# Patches are written as PNG files, which the model has never read, together with files that no model should score.
# `pcam predict` gives each a score or a verdict.

# %%
folder = chapter.scratch() / "images"
images.write_examples(folder, open_split(chapter.data_dir, split), count=32)
verdicts = images.predict_images(trained[0].path, [folder], chapter.scratch() / "scores.csv")
scores = images.read_scores(verdicts.out)
chapter.table(scores[scores["score"].isna()][["file", "verdict"]], "Files that got a verdict instead of a score")

# %%
equal = (scores["score"].dropna().to_numpy() == scored[0].score[: verdicts.n_scored]).sum()
chapter.record("n_images", verdicts.n_scored)
chapter.record("n_equal", int(equal), runs=trained[:1])
chapter.record("n_refused", verdicts.n_refused)
chapter.answer(
    "7",
    "The checkpoint scored {n_images} image files; {n_equal} of the scores equal those of the evaluation to the last "
    "bit. {n_refused} files were refused with a reason instead of being resized or guessed at.",
)

# %% [markdown]
# ## 8 After deployment
#
# Each scenario changes patches or weights and raises no error. ROC-AUC needs labels, which nobody has in use. Three
# guards need none: a monitor of windows, whose limits come from one half of valid's slides against the other; the
# refusal of single patches unlike any in valid; and a canary, a few patches that must score the recorded bits. All
# limits are fixed on valid before any patch below is read.

# %% tags=["nbval-ignore-output"]
valid, fresh = open_split(chapter.data_dir, "valid"), open_split(chapter.data_dir, split)
known = monitor.known_colours(open_split(chapter.data_dir, "train"))
watched = monitor.watch_split(chapter.predictions(names[0], "valid").score, valid, known)
guard = monitor.fit_monitor(watched, valid.groups, window=window)
rows = np.linspace(0, len(fresh) - 1, min(patches_watched, len(fresh))).astype(int)  # of all slides
patches, labels, canary = fresh.read(rows), fresh.labels[rows], valid.read(slice(0, 8))
table = deployment.scenario_table(load_model(trained[0]), patches, labels, guard, known, canary)
guards = {"alarm_rate": "windows with an alarm", "outliers": "patches refused"}
caption = f"What each scenario does, and which guard notices; windows of {window} patches"
chapter.table(table.rename(columns=guards), caption, missing="none: one score for all")

# %%
figure = deployment.scenario_figure(table)
chapter.figure(figure, alt="ROC-AUC of each scenario, beside the alarms of the monitor, refused patches and the canary")

# %% [markdown]
# How strong must a change be? One kind of each risk is made stronger step by step. A guard is worth having where its
# line rises before the dashed one falls; at the left end, where nothing is changed, a rise is a false alarm.

# %% tags=["nbval-ignore-output"]
ladder = strengths.strength_table(load_model(trained[0]), patches, labels, guard, known, canary)
chapter.table(ladder.rename(columns=guards), f"Alarms by strength of the change; windows of {window} patches")

# %%
figure = strengths.strength_figure(ladder)
chapter.figure(
    figure, alt="Alarms of the monitor, refused patches, canary and ROC-AUC against the strength of a change"
)

# %% [markdown]
# False alarms are counted on all clean patches of the reported split: in windows that mix its slides, as those do that
# set the limits, and, where slides are known, in windows of one slide each: its patches, up to a window of them.

# %% tags=["nbval-ignore-output"]
clean_values = monitor.watch_split(scored[0].score, fresh, known)
windows = {"false_alarms": "that mix slides", "one_slide_alarms": "of one slide each"}
alarms = {"false_alarms": guard.false_alarms(clean_values, fresh.groups)}
if fresh.slides is not None:  # groups of overlapping patches are too small to fill a window
    alarms["one_slide_alarms"] = guard.alarms_by_slide(clean_values, fresh.slides)
for name, rate in alarms.items():
    ends = {"low": rate.low, "high": rate.high, "method": "Wilson, for windows that share no patch"}
    chapter.record(name, rate.value, n=rate.n, **ends, split=split, runs=trained[:1])
    print(f"windows {windows[name]}: {rate.value:.3f} alarm ({rate.low:.3f} to {rate.high:.3f}), n = {rate.n} windows")

# %%
for name, risk in {"stain": "drift", "weights": "silent degradation", "pen": "artefact"}.items():
    found = strengths.first_alarm(ladder, risk)
    chapter.record(f"{name}_from", "no strength tried" if found is None else f"{found['strength']:g}")
    there = {"value": None, "reason": "no alarm"} if found is None else {"value": float(found["roc_auc"])}
    chapter.record(f"{name}_auc", **there, n=len(patches), split=split, runs=trained[:1])
steps = ladder.groupby("risk").nth(slice(1, None)).set_index("risk")
chapter.record("canary_sings", int((steps.loc["silent degradation", "canary"] == "yes").sum()))
chapter.record("n_degraded", len(steps.loc["silent degradation"]))
chapter.record("pen_least", float(steps.loc["artefact", "strength"].iloc[0]), n=len(patches))
_ = chapter.record("pen_refused", float(steps.loc["artefact", "outliers"].iloc[0]), n=len(patches), split=split)

# %% tags=["nbval-ignore-output"]
harmful = deployment.harmful(table)
seen = deployment.caught(harmful)
chapter.record("n_scenarios", len(table) - 1)
chapter.record("n_harmful", len(harmful))
chapter.record("n_caught", int(seen.sum()))
chapter.record("missed", "; ".join(harmful.loc[~seen, "scenario"]) or "none")
clean = {"n": len(patches), "split": split, "runs": trained[:1]}
chapter.record("false_refusals", float(table["outliers"].iloc[0]), **clean)
attack = table[table["risk"] == "adversarial"].iloc[0]
chapter.record("attacked_auc", float(attack["roc_auc"]), **clean)
chapter.record("attack_seen", bool(deployment.caught(table[table["risk"] == "adversarial"]).iloc[0]))
single = "; windows of one slide at {one_slide_alarms:ci}, so a window must mix slides"
one_slide = single if "one_slide_alarms" in alarms else ""
chapter.answer(
    "8",
    "Of {n_scenarios} scenarios, {n_harmful} lower ROC-AUC by more than a hundredth or leave it undefined; a guard "
    "notices {n_caught} of these and misses: {missed}. Most windows alarm from staining times {stain_from} on "
    "(ROC-AUC there {stain_auc}), from a share {pen_from} of patches with a pen mark ({pen_auc}) and from a share "
    "{weights_from} of lost weights ({weights_auc}). Marked patches are refused one by one (a share {pen_refused} "
    "where {pen_least} are marked), and the canary notices {canary_sings} of {n_degraded} losses of weights: "
    "it is the guard against faults of the software. Clean windows that mix slides alarm at a rate of {false_alarms:ci}"
    + one_slide
    + ". Of clean patches, {false_refusals} are refused (n = {false_refusals:n}). An attack with the model's own "
    "gradient leaves ROC-AUC {attacked_auc} and {attack_seen:is|is not} noticed; an opponent who knows the guards can "
    "avoid them, so the mitigation is to take files from the scanner by checksum.",
)

# %%
chapter.headline(
    "Each run is a folder named by what determines it; one {identical:was|could not be} made again bit for bit from "
    "its record, and ROC-AUC over {mean_roc_auc:n} seeds is {mean_roc_auc}."
)

# %%
chapter.close()
