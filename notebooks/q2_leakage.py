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
# # Q2 What is in the data, and does it leak?
#
# A result is only as good as the patches that it stands on. Before anything is trained, they are read once and asked:
#
# 1. How large are the splits, how are the classes balanced, and does the balance differ between splits?
# 2. Do patches leak: copies, turned copies, near copies, shared pixels, shared slides? What does that do to the metric?
# 3. When would cross-validation be right, and what would it cost?
# 4. Why are the files as large as they are?
# 5. Are patches broken or poisoned: black, white, out of range, NaN, triggers, wrong labels?

# %% tags=["parameters"]
data_dir: str = ""
work_dir: str = ""

# %%
import torch

from pcam.audit import audit, figures, folds, leakage, tables, tied_to
from pcam.audit.findings import PAIR_ISSUES
from pcam.audit.plant import SHARES, first_places, plant, score
from pcam.data.loader import Loader
from pcam.evaluation.comparison import paired_bootstrap
from pcam.evaluation.metrics import score_metrics
from pcam.evaluation.predict import predict_split
from pcam.journal import open_chapter
from pcam.training import load_model, train

chapter = open_chapter("q2_leakage", data_dir, work_dir)
report = audit(chapter.data_dir, chapter.scratch() / "audit")
counts = report.summary["findings"]

# %% [markdown]
# ## 1 Splits and class balance
#
# The share of tumour patches has Wilson's interval. Groups are sets of patches that are not independent of each other:
# of one slide where the slide is known, and otherwise patches that the audit tied together.

# %%
chapter.table(tables.splits(report), caption="The splits: patches, share of tumour with 95 % interval, units.")

# %% [markdown]
# A difference between splits, a prior shift, moves every metric that counts predictions, such as precision and
# F-beta, even when the model is equally good on both. Intervals by Newcombe's method.

# %%
shifts = tables.shifts(report)
chapter.table(shifts, caption="Difference of the share of tumour between two splits, with 95 % interval.")

# %%
for split in report.scan.splits:
    chapter.record(f"n_{split.name}", len(split), split=split.name)
for name, share in report.summary["class_balance"].items():
    details = {"low": share["low"], "high": share["high"], "n": share["n"], "n_positive": share["count"]}
    chapter.record(f"share_{name}", share["count"] / share["n"], split=name, **details)
certain = shifts[(shifts["low"] > 0) | (shifts["high"] < 0)]
chapter.record("shifted", len(certain))
chapter.record("compared", len(shifts))
sizes = ", ".join(f"{split.name} {{n_{split.name}}}" for split in report.scan.splits)
shares = ", ".join(f"{name} {{share_{name}:ci}}" for name in report.summary["class_balance"])
chapter.answer(
    "1",
    f"The files hold these patches: {sizes}. Share of tumour: {shares}. Of {{compared}} comparisons between splits, "
    "{shifted} show a prior shift that chance does not explain.",
)

# %% [markdown]
# ## 2 Leakage
#
# Copies are found by hash; turned copies by a hash that the eight symmetries of the square do not change; re-encoded,
# brightened or noisy copies by their low spatial frequencies; shared pixels by hashes of small windows that are chosen
# by their content, so that they are found at any shift. Blank patches are in no pair.

# %%
chapter.table(tables.pairs(report), caption="Pairs of patches that are not independent.")

# %%
if sum(counts[issue] for issue in PAIR_ISSUES):
    chapter.figure(
        figures.pair_sheet(report, PAIR_ISSUES),
        alt="Pairs of patches side by side with their split, index and label; where they share pixels, the shared "
        "rectangle is outlined in both and the shift is given.",
    )
else:
    print("No pairs to show.")

# %%
if sum(report.summary["patches_tied_to_another_split"].values()) > counts["shared_slide"]:
    chapter.figure(
        figures.pair_sheet(report, PAIR_ISSUES, across=True),
        alt="Pairs that lie in two splits, side by side, with the pixels that they share outlined.",
    )
else:
    print("No pair lies in two splits.")

# %%
tied = report.summary["patches_tied_to_another_split"]
across = tables.pairs(report)["across splits"].sum()
chapter.record("pairs_within", int(tables.pairs(report)["within a split"].sum()))
chapter.record("pairs_across", int(across))
chapter.record("tied_test", tied.get("test", 0), split="test")
chapter.record("groups_of_several", report.summary["groups"]["of_several"])
print(f"patches tied to another split: {tied}")

# %% [markdown]
# ### Statistics and augmentation
#
# Two quieter leaks: normalisation statistics that were computed on more than train, and random changes of the patches
# that are judged. The model carries its statistics; they are compared with those of train alone and of all splits, and
# the judged patches with the stored ones.

# %%
obstacle = report.obstacle
if obstacle:
    print(f"Nothing was trained: {obstacle}.")
else:
    means = {name: Loader(chapter.split(name), 256, resident=False).channel_statistics()[0] for name in chapter.splits}
    weights = {name: len(chapter.split(name)) / len(report.scan) for name in means}
    apart = float((sum(means[name] * weights[name] for name in means) - means["train"]).abs().max())
    from_train = bool(torch.equal(load_model(chapter.run("cnn-0")).channel_mean, means["train"]))
    judged = next(Loader(chapter.split("valid"), 64, resident=False).in_order()).patches
    unchanged = bool((judged.numpy() == chapter.split("valid").read(slice(0, 64))).all())
    print(f"statistics of train alone: {from_train}; those of all splits differ by {apart:.3f} grey levels at most")
    print(f"judged patches are the stored ones: {unchanged}")

# %% [markdown]
# ### What leakage does to the metric
#
# First what was found: ROC-AUC on all of test, and on test without the patches that are tied to train. Then an
# experiment, since data may hold no leak: in a copy, half of the test patches are also put into train, a network is
# trained on it from the same config, and both are judged on that half.

# %% tags=["nbval-ignore-output"]
if not obstacle:
    run, test = chapter.run("mlp-0"), chapter.split("test")
    units = {"groups": test.groups, "group_kind": test.group_kind or "patch"}
    leaked = tied_to(report.scan, report.findings, "test", ["train"])
    found = leakage.effect(chapter.predictions("mlp-0", "test"), leaked, **units)
    copy = chapter.scratch() / "leaky"
    half = leakage.leaky_copy(chapter.data_dir, copy, share=0.5)
    leaky_run = train(run.config, copy, chapter.work / "runs", resume=True, wait=True, progress=False)
    honest, leaky = chapter.predictions("mlp-0", "test").take(half), predict_split(leaky_run, test).take(half)
    units["groups"] = None if test.groups is None else test.groups[half]
    gain = paired_bootstrap([leaky], [honest], **units)
    for name, p in (("trained without it", honest), ("trained with it", leaky)):
        print(f"ROC-AUC on the half that leaked, {name}: {score_metrics(p)['roc_auc'].value:.3f}")

# %% tags=["nbval-ignore-output"]
if not obstacle:
    shared = {"n": found.n, "n_positive": found.n_positive, "split": "test", "runs": [run]}
    chapter.record("auc_all", found.everything, **shared)
    chapter.record("auc_clean", found.clean, **shared | {"n": found.n - found.n_leaked, "n_positive": None})
    chapter.record("found_gain", found.difference, **shared, low=found.low, high=found.high, method=found.method)
    for name, p, of in (("honest", honest, run), ("leaky", leaky, leaky_run)):
        chapter.record(**score_metrics(p)["roc_auc"].as_dict() | {"name": f"auc_{name}"}, split="test", runs=[of])
    shared = {"n": gain.n, "n_positive": gain.n_positive, "split": "test", "runs": [run, leaky_run]}
    chapter.record("gain", gain.value, low=gain.low, high=gain.high, method=gain.method, **shared)
    chapter.record("from_train", from_train)
    chapter.record("unchanged", unchanged)

# %% tags=["nbval-ignore-output"]
measured = "What leakage is worth cannot be measured on these data: {obstacle}."
if obstacle:
    chapter.record("obstacle", obstacle)
else:
    beyond = "more than chance explains, so it remembers them" if gain.low > 0 else "no more than chance explains"
    chapter.record("verdict", beyond)
    measured = (
        "Statistics from train only: {from_train}; judged patches unchanged: {unchanged}. "
        + (
            "The network's ROC-AUC on test is {auc_all}, and {auc_clean} without the patches tied to train, a "
            "difference of {found_gain:ci}. "
            if found.n_leaked
            else "No test patch is tied to train, so there is nothing to take out. "
        )
        + "When half of test leaks on purpose, ROC-AUC on that half goes from {auc_honest} to {auc_leaky}, by "
        "{gain:ci}: {verdict}."
    )
chapter.answer(
    "2",
    "The audit found {pairs_within} pairs within splits and {pairs_across} across them; {tied_test} test patches are "
    "tied to another split. " + measured,
)

# %% [markdown]
# ## 3 Cross-validation
#
# One fixed split is enough where it is large and made by slide. With few slides the result depends on which of them
# are held out, and k folds show how much; they must be drawn by group, and where hyper-parameters are chosen as well,
# nested, or the choice has seen its own test.

# %%
chapter.table(
    tables.records(folds.compare(report, k=5)),
    caption="All labelled patches cut into folds, by patch and by group: sizes, share of tumour, pairs torn apart.",
)

# %%
by_patch, by_group = folds.compare(report, k=5)
chapter.record("k", by_group.k)
chapter.record("torn_by_patch", by_patch.torn)
chapter.record("torn_by_group", by_group.torn)
chapter.record("pairs", by_group.pairs)
for name, number in (("plain", folds.trainings(5)), ("nested", folds.trainings(5, inner=4, trials=20))):
    chapter.record(f"{name}_trainings", number)

# %% tags=["nbval-ignore-output"]
cost = "What a training costs is not known here: {obstacle}."
if not obstacle:
    runs = [chapter.run(name) for name in ("cnn-0", "cnn-1", "cnn-2")]
    took = folds.run_seconds(runs)
    chapter.record("run_seconds", took.mean, unit="s", n=took.n, low=took.low, high=took.high, runs=runs)
    for name in ("plain", "nested"):
        hours = chapter.value(f"{name}_trainings").value * took.mean / 3600
        chapter.record(f"{name}_hours", hours, unit="h", n=took.n, runs=runs)
    cost = "A run of the network took {run_seconds:ci}: {plain_hours} for all folds, {nested_hours} if nested."
chapter.answer(
    "3",
    "Folds drawn by patch would tear {torn_by_patch} of {pairs} pairs apart, folds by group {torn_by_group}. {k} "
    "grouped folds are {plain_trainings} trainings; nested, with a search in each fold, {nested_trainings}. "
    + cost
    + " With slides to spare, a fixed split by slide and several seeds give the better figure for that time; with few "
    "slides, grouped folds do.",
)

# %% [markdown]
# ## 4 The size of the files
#
# A file's bytes are N × `96·96·3` values × bytes per value × what chunks and compression make of them, and HDF5's own
# records. The public record stores one byte per value, so each factor says where a copy differs.

# %%
chapter.table(tables.storage(report), caption="The terms of each file's size, and its size over the public uint8 data.")

# %%
largest = max(report.storage, key=lambda terms: terms.file_bytes)
for name, value in (
    ("split", largest.split),
    ("dtype", largest.dtype),
    ("bytes_per_value", largest.bytes_per_value),
    ("file_bytes", largest.file_bytes),
    ("public_bytes", largest.public_bytes),
    ("patches_stored", largest.n),
):
    chapter.record(f"largest_{name}", value)
chapter.record("largest_storage", largest.storage_factor, n=largest.n, split=largest.split)
chapter.record("largest_share", largest.file_bytes / largest.public_bytes, n=largest.n, split=largest.split)
chapter.answer(
    "4",
    "The largest file, {largest_split}, has {largest_file_bytes} bytes: {largest_patches_stored} patches stored as "
    "{largest_dtype}, {largest_bytes_per_value} byte(s) per value, with a storage factor of {largest_storage}. That is "
    "{largest_share} of the {largest_public_bytes} bytes that the public split has as plain `uint8`.",
)

# %% [markdown]
# ## 5 Poisoning and corruption
#
# Damage that is spread evenly costs patches; damage that follows the label is learnt. So everything is counted per
# class, with Wilson's interval, and tested against the label (Fisher's exact test).

# %%
broken = tables.broken(report)
if len(broken):
    chapter.table(broken, caption="Broken values and triggers per class, with 95 % intervals.")
else:
    print("No patch is black, white, constant, out of range or NaN, and none holds a trigger.")

# %%
shown = [issue for issue in ("black", "white", "constant", "nan", "out_of_range", "trigger") if counts[issue]]
if shown:
    chapter.figure(
        figures.contact_sheet(report, tuple(shown)),
        alt="The first patches of each kind of damage that was found, one row a kind, with split, index and label.",
    )

# %%
if counts["nan"] + counts["out_of_range"]:
    chapter.figure(
        figures.broken_map(report),
        alt="A map of the pixels whose values are NaN or out of range, counted over patches, and three such patches "
        "with the broken area outlined.",
    )

# %%
if report.triggers:
    chapter.figure(
        figures.trigger_sheet(report),
        alt="Each trigger enlarged, and patches that hold it, with its place outlined.",
    )

# %% [markdown]
# Labels: a classifier on colour and texture scores each patch without having seen it or its group; the patches whose
# label it contradicts most surely are candidates for a second look, and never more than that.

# %% tags=["nbval-ignore-output"]
suspects = report.findings.of("label_suspect")
chapter.record("suspects", len(suspects))
if len(suspects):
    chapter.figure(
        figures.ranked_sheet(report, "label_suspect", limit=8),
        alt="The eight patches whose label the scores contradict most surely, with split, index and label.",
    )

# %% [markdown]
# ### Would it have been found?
#
# A clean result is worth what the search can see. So known defects are planted into a part of these patches, and the
# audit is run on them without being told. Found label errors are counted in the first places of the ranking.

# %%
if not obstacle:
    truth = plant(chapter.data_dir, chapter.scratch() / "planted", SHARES, limit=400)
    control = audit(chapter.scratch() / "planted", chapter.scratch() / "planted_audit")
    results = score(control, truth)
    chapter.table(tables.scores(results), caption="Planted defects: recall with its 95 % interval, and precision.")

# %%
if not obstacle:
    chapter.figure(
        figures.contact_sheet(control, ("out_of_range", "nan", "trigger")),
        alt="Planted defects: patches with a block of out-of-range values, with NaN, and with a trigger in a corner.",
    )

# %%
if not obstacle:
    chapter.figure(
        figures.pair_sheet(control, PAIR_ISSUES, per_issue=2),
        alt="Planted pairs: exact copies, turned copies, near copies and shared pixels with the rectangle outlined.",
    )

# %%
if not obstacle:
    chapter.figure(
        figures.broken_map(control),
        alt="A map of the planted broken pixels, and three of the patches with the broken area outlined.",
    )

# %% tags=["nbval-ignore-output"]
names = ("black", "white", "constant", "nan", "out_of_range", "trigger")
issues = ", ".join(f"{name.replace('_', ' ')} {{found_{name}}}" for name in names)
for name in names:
    chapter.record(f"found_{name}", counts[name])
planted = "No defect was planted: the data have their own."
if not obstacle:
    recall, flipped = first_places(control, truth)
    chapter.record("flipped", flipped)
    chapter.record("flipped_recall", recall, n=flipped)
    chapter.record("planted", sum(result.planted for result in results))
    chapter.record("recovered", sum(result.found for result in results))
    planted = (
        "Of {planted} defects planted into a part of these patches the audit found {recovered}; of {flipped} labels "
        "that were flipped, a share of {flipped_recall} is within twice as many first places of the ranking."
    )
chapter.answer("5", f"Patches found: {issues}. Label suspects: {{suspects}}, as candidates. {planted}")

# %%
chapter.record("broken", sum(counts[name] for name in names))
chapter.headline(
    "{pairs_within} pairs of patches within splits and {pairs_across} across them are not independent, {tied_test} "
    "test patches are tied to another split, and {broken} patches are broken or poisoned."
)
chapter.close()
