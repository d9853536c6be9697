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
import numpy as np

from pcam.audit import audit, figures, folds, hygiene, leakage, tables
from pcam.audit.findings import PAIR_ISSUES
from pcam.audit.plant import SHARES, first_places, plant, score
from pcam.evaluation.intervals import t_interval
from pcam.evaluation.metrics import score_metrics
from pcam.evaluation.predict import predict_split
from pcam.journal import open_chapter
from pcam.training import train

chapter = open_chapter("q2_leakage", data_dir, work_dir)
report = audit(chapter.data_dir, chapter.scratch() / "audit", suspects="auto")
counts = report.summary["findings"]

# %% [markdown]
# ## 1 Splits and class balance
#
# The share of tumour patches has Wilson's interval. Groups are sets of patches that are not independent of each other:
# of one slide where the slide is known, and otherwise patches that the audit tied together.

# %%
caption = "The splits: patches, share of tumour with 95 % interval, slides where they are known, groups."
chapter.table(tables.splits(report), caption=caption, missing="not known")

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
for row in shifts.itertuples():
    n = sum(report.summary["class_balance"][name]["n"] for name in (row[1], row.to))
    chapter.record(f"shift_{row[1]}_{row.to}", row.difference, low=row.low, high=row.high, n=n)

# %%
certain = shifts[(shifts["low"] > 0) | (shifts["high"] < 0)]
named = ", ".join(f"{a} to {b} {{shift_{a}_{b}:ci}}" for a, b in zip(certain["from"], certain["to"], strict=True))
chapter.record("shifted", len(certain))
chapter.record("compared", len(shifts))
sizes = ", ".join(f"{split.name} {{n_{split.name}}}" for split in report.scan.splits)
shares = ", ".join(f"{name} {{share_{name}:ci}}" for name in report.summary["class_balance"]) or "no split has labels"
chapter.answer(
    "1",
    f"The files hold these patches: {sizes}. Share of tumour: {shares}. Of {{compared}} comparisons between splits, "
    "{shifted} show a prior shift that chance does not explain" + (f": {named}." if named else "."),
)

# %% [markdown]
# ## 2 Leakage
#
# Copies are found by hash; turned copies by a hash that the eight symmetries of the square do not change; re-encoded,
# brightened or noisy copies by their low spatial frequencies; shared pixels by hashes of small windows that are chosen
# by their content, so that they are found at any shift. Blank patches are in no pair.

# %%
chapter.table(tables.pairs(report), caption="Pairs of patches that are not independent.", missing="may differ")

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
if any("-" in sides for issue in PAIR_ISSUES for sides in report.summary["pairs"][issue]):
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
print("patches tied to another split:", ", ".join(f"{n} of {split}" for split, n in tied.items()))

# %% [markdown]
# ### Statistics and augmentation
#
# Two quieter leaks: normalisation statistics that were computed on more than train, and random changes of the patches
# that are judged. The model carries its statistics; they are compared with those of train alone and of all splits, and
# test is scored with both. The patches that reach the network are compared with the stored ones.

# %%
obstacle = report.obstacle
if obstacle:
    print(f"No evidence: {obstacle}.")
else:
    clean = hygiene.check(chapter.run("mlp-0"), [chapter.split(name) for name in chapter.splits])
    whose = "are" if clean.from_train else "are not"
    print(f"the statistics {whose} those of train alone; those of all splits differ by {clean.apart:.3f} grey levels")
    print(f"share of patches that are changed at random: {clean.augmented:.3f} in training, {clean.judged:.3f} judged")

# %% [markdown]
# ### What leakage does to the metric
#
# First what was found: ROC-AUC on all of test, and on test without the patches that are tied to train, for each kind
# of tie and for all together. The difference is taken on the same predictions, and its interval resamples whole groups.

# %% tags=["nbval-ignore-output"]
if obstacle:
    print(f"No evidence: {obstacle}.")
else:
    run, test = chapter.run("mlp-0"), chapter.split("test")
    units = {"groups": test.groups, "group_kind": test.group_kind or "patch"}
    honest = chapter.predictions("mlp-0", "test")
    found = leakage.by_kind(report, honest, **units)
    if why := leakage.why_unmeasured(found):
        print(why)
        chapter.record("unmeasured", why.removesuffix("."))
    else:
        caption = "ROC-AUC on test with and without the patches tied to train."
        chapter.table(tables.leakage(found), caption=caption, missing="—")

# %% [markdown]
# Then an experiment, since data may hold no leak: in a copy, half of the test patches are also put into train, in turn
# as they are, turned, noisy and brighter, and shifted. A network is trained on the copy from the same config, and both
# are judged on the patches that leaked. A positive difference is what the leak adds.

# %% tags=["nbval-ignore-output"]
if not obstacle:
    copy, kinds = chapter.scratch() / "leaky", ("exact", "symmetric", "noise", "overlap")
    how = leakage.leaky_copy(chapter.data_dir, copy, share=0.5, kinds=kinds)
    leaky_run = train(run.config, copy, chapter.work / "runs", resume=True, wait=True, progress=False)
    leaky = predict_split(leaky_run, test)
    gains = leakage.planted_gains(honest, leaky, how, **units)
    chapter.table(
        tables.gains(gains),
        caption="ROC-AUC on test patches that leak into train, without and with the leak.",
        missing="—",
    )

# %% [markdown]
# The audit is run on the copy without being told what leaked. What it then takes out of test should be the inflation.

# %% tags=["nbval-ignore-output"]
if not obstacle:
    seen = leakage.by_kind(audit(copy, chapter.scratch() / "leaky_audit", suspects="none"), leaky, **units)
    if why := leakage.why_unmeasured(seen):
        print(why)
    else:
        chapter.table(
            tables.leakage(seen),
            caption="The copy as the audit sees it: ROC-AUC with and without what it found.",
            missing="—",
        )

# %%
if not obstacle:
    chapter.record("from_train", clean.from_train)
    chapter.record("apart", clean.apart, n=len(report.scan), unit="grey levels")
    worth = clean.worth
    chapter.record("worth", worth.value, low=worth.low, high=worth.high, n=worth.n, split="test", runs=[run])
    chapter.record("augmented", clean.augmented, n=clean.compared, split="train")
    chapter.record("judged", clean.judged, n=clean.compared)
    before, after, gain = gains["all together"]
    shared = {"n": gain.n, "n_positive": gain.n_positive, "split": "test"}
    chapter.record("auc_honest", before, **shared, runs=[run])
    chapter.record("auc_leaky", after, **shared, runs=[leaky_run])
    shared |= {"runs": [run, leaky_run], "method": gain.method}
    chapter.record("gain", gain.value, low=gain.low, high=gain.high, **shared)

# %%
effects = {} if obstacle else {"found": (found["all together"], run), "seen": (seen["all together"], leaky_run)}
for name, (e, of) in effects.items():
    if not isinstance(e, str):
        shared = {"split": "test", "runs": [of]}
        chapter.record(f"{name}_all", e.everything, n=e.n, n_positive=e.n_positive, **shared)
        chapter.record(f"{name}_clean", e.clean, n=e.n - e.n_leaked, **shared)
        chapter.record(f"{name}_gain", e.difference, low=e.low, high=e.high, n=e.n, method=e.method, **shared)
kept = chapter.evidence.values
there = (
    "The network's ROC-AUC on test is {found_all}, and {found_clean} without the patches tied to train, a difference "
    "of {found_gain:ci}. "
)
taken = (
    "On all of test the network with the leak has {seen_all}, and {seen_clean} without the patches that the audit "
    "finds in train, a difference of {seen_gain:ci}."
)

# %%
measured = "What leakage is worth: no evidence, since {obstacle}."
if obstacle:
    chapter.record("obstacle", obstacle)
else:
    chapter.record("verdict", "more than chance explains" if gain.low > 0 else "no more than chance explains")
    measured = (
        "The statistics {from_train:are|are not} those of train alone; those of all splits differ by {apart} at most "
        "and would move ROC-AUC on test by {worth:ci}. Patches changed at random: a share of {augmented} in training, "
        "{judged} of those judged. "
        + (there if "found_gain" in kept else "{unmeasured}. ")
        + "When half of test leaks on purpose, ROC-AUC on that half goes from {auc_honest} to {auc_leaky}, by "
        "{gain:ci}: {verdict}. " + (taken if "seen_gain" in kept else "")
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
cuts = folds.compare(report, k=5)
if cuts:
    chapter.table(
        tables.records(cuts),
        caption="All labelled patches cut into folds, by patch and by group: sizes, share of tumour, pairs torn apart.",
    )
else:
    print("No evidence: there are fewer labelled patches, or groups of them, than folds.")

# %%
chapter.record("k", 5)
torn = "What folds would tear apart: no evidence, since fewer groups than folds have labels. "
if cuts:
    for cut in cuts:
        chapter.record(f"torn_{cut.kind.replace(' ', '_')}", cut.torn)
    chapter.record("pairs", cuts[0].pairs)
    torn = "Folds drawn by patch would tear {torn_by_patch} of {pairs} pairs apart, folds by group {torn_by_group}. "
search = {"inner": 4, "trials": 20}
for name, number in (("plain", folds.trainings(5)), ("nested", folds.trainings(5, **search))):
    chapter.record(f"{name}_trainings", number)
for name, number in search.items():
    chapter.record(f"{name}_of_search", number)

# %%
cost = "What a training costs, and what folds would gain: no evidence, since {obstacle}. "
if not obstacle:
    names = ("cnn-0", "cnn-1", "cnn-2")
    runs = [chapter.run(name) for name in names]
    took = folds.run_seconds(runs)
    chapter.record("run_seconds", took.mean, unit="s", n=took.n, low=took.low, high=took.high, runs=runs, local=True)
    for name in ("plain", "nested"):
        hours = chapter.value(f"{name}_trainings").value * took.mean / 3600
        chapter.record(f"{name}_hours", hours, unit="h", n=took.n, runs=runs, local=True)
    cost = "A run of the network took {run_seconds:ci}: {plain_hours} for all folds, {nested_hours} if nested. "

# %% [markdown]
# What would that buy? The interval of the metric on test says how much depends on which groups are held out, the
# spread over seeds how much on chance in training. Folds judge all groups in turn, and an interval shrinks with the
# square root of their number.

# %%
if not obstacle:
    judged = [score_metrics(chapter.predictions(name, "test"), None, **units)["roc_auc"] for name in names]
    spread = t_interval([metric.value for metric in judged]).sd
    width = float(np.mean([metric.high - metric.low for metric in judged]))
    number = [
        len(np.unique(report.groups[where])) for where in (report.scan.split == chapter.splits.index("test"), ...)
    ]

# %%
if not obstacle:
    for name, value in (("units_test", number[0]), ("units_all", number[1])):
        chapter.record(name, value)
    for name, value in (("width", width), ("narrowed", folds.narrowed(width, *number)), ("seed_sd", spread)):
        chapter.record(name, value, n=len(runs), split="test", runs=runs)
    chapter.record("matters", "which groups are held out" if width > 4 * spread else "chance in training")
    cost += (
        "On test, with {units_test} groups, the interval of ROC-AUC is {width} wide; folds over all {units_all} groups "
        "would narrow it to about {narrowed}. Seeds spread by {seed_sd}, so {matters} matters more. "
    )

# %%
chapter.answer(
    "3",
    torn
    + "Cross-validation in {k} grouped folds takes {plain_trainings} trainings; nested, with {trials_of_search} trials "
    "on {inner_of_search} inner folds in each, {nested_trainings}. "
    + cost
    + "With slides to spare, a fixed split by slide and several seeds give the better figure for that time; with few "
    "slides, grouped folds do.",
)

# %% [markdown]
# ## 4 The size of the files
#
# A file's bytes are N × `96·96·3` values × bytes per value × what chunks and compression make of them, and HDF5's own
# records. The public record stores one byte per value, so each factor of the second table says where a copy differs.

# %%
chapter.table(tables.storage(report), caption="The terms of each file's size.")

# %%
chapter.table(
    tables.factors(report), caption="Each file against the public split as plain uint8: factors, their product."
)

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

# %%
chapter.record("largest_as_uint8", largest.n * largest.values_per_patch)
for name, factor in largest.factors.items():
    chapter.record(f"factor_{name.replace(' ', '_')}", factor, n=largest.n, split=largest.split)
chapter.record("largest_share", largest.file_bytes / largest.public_bytes, n=largest.n, split=largest.split)
chapter.answer(
    "4",
    "The largest file, {largest_split}, has {largest_file_bytes} bytes: {largest_patches_stored} patches stored as "
    "{largest_dtype}, bytes per value: {largest_bytes_per_value}; as `uint8` they are {largest_as_uint8} bytes. "
    "Against the {largest_public_bytes} bytes that the public split has as plain `uint8` that is {largest_share}: "
    "{factor_patches} for the number of patches × {factor_bytes_per_value} for the type × {factor_storage} for chunks "
    "and compression × {factor_other} for HDF5's own records.",
)

# %% [markdown]
# ## 5 Poisoning and corruption
#
# Damage that is spread evenly costs patches; damage that follows the label is learnt. So everything is counted per
# class, with Wilson's interval, and tested against the label (Fisher's exact test).

# %%
broken = tables.broken(report)
if len(broken):
    chapter.table(broken, caption="Broken values and triggers per class: count, share, 95 % interval; Fisher's p.")
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
if counts["out_of_range"]:
    chapter.table(tables.out_of_range(report), caption="Values out of range: where they lie, and what means they make.")

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
# Labels: a classifier scores each patch without having seen it or its group; the patches whose label it contradicts
# most surely are candidates for a second look, and never more than that. Copies with different
# labels need no classifier: one of the two is in doubt.

# %% tags=["nbval-ignore-output"]
suspects = report.findings.of("label_suspect")
chapter.record("suspects", len(suspects))
if len(suspects):
    chapter.figure(
        figures.ranked_sheet(report, "label_suspect", limit=8),
        alt="The patches whose label the scores contradict most surely, with rank, split, index, label and score.",
    )

# %% [markdown]
# ### Would it have been found?
#
# A clean result is worth what the search can see. So known defects are planted into a part of these patches, and the
# audit is run on them without being told. Found label errors are counted in the first places of the ranking.

# %%
if obstacle:
    print(f"No evidence: {obstacle}.")
else:
    truth = plant(chapter.data_dir, chapter.scratch() / "planted", SHARES, limit=400)
    quick = audit(chapter.scratch() / "planted", chapter.scratch() / "planted_audit")
    control = audit(chapter.scratch() / "planted", chapter.scratch() / "planted_audit", suspects="texture")
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

# %%
names = ("black", "white", "constant", "nan", "out_of_range", "trigger")
issues = ", ".join(f"{name.replace('_', ' ')} {{found_{name}}}" for name in names)
for name in names:
    chapter.record(f"found_{name}", counts[name])

# %%
damage = []
for c in (c for c in report.integrity if c.total.count):
    name = f"{c.split}_{c.issue}"
    for of, part in (("all", c.total), ("normal", c.negative), ("tumour", c.positive)):
        value, details = (part.share, {"low": part.low, "high": part.high, "n": part.n}) if part else (None, {})
        chapter.record(f"{name}_{of}", value, split=c.split, reason="" if part else "no labels", **details)
    chapter.record(f"{name}_p", tables.p_text(c.p_value), split=c.split)
    shares = f"{{{name}_all:ci}}, of normal {{{name}_normal:ci}}, of tumour {{{name}_tumour:ci}}"
    damage.append(f"{c.issue.replace('_', ' ')} in {c.split} {shares}, p of independence from the label {{{name}_p}}")
for row in tables.out_of_range(report).to_dict("records"):
    name = f"outside_{row['split']}"
    for of in ("pixels a patch", "lowest", "highest"):
        chapter.record(f"{name}_{of.replace(' ', '_')}", row[of], n=row["patches"], split=row["split"])
    damage.append(
        f"values out of range in {row['split']} go from {{{name}_lowest}} to {{{name}_highest}}, in "
        f"{{{name}_pixels_a_patch}} pixels of a patch that has any (median)"
    )
damaged = f"Shares: {'; '.join(damage)}. " if damage else ""

# %% tags=["nbval-ignore-output"]
planted = "Whether planted defects would be found: no evidence, since {obstacle}."
if not obstacle:
    for name, of in (("quick", quick), ("slow", control)):
        recall, flipped = first_places(of, truth)
        chapter.record(f"{name}_recall", recall, n=flipped)
    chapter.record("flipped", flipped)
    chapter.record("places", 2 * flipped)  # of a ranking, as `first_places` counts them
    chapter.record("planted", sum(result.planted for result in results))
    chapter.record("recovered", sum(result.found for result in results))
    planted = (
        "Of {planted} defects planted into a part of these patches the audit found {recovered}; of {flipped} labels "
        "that were flipped, a share of {slow_recall} is among the first {places} of the ranking by texture, and "
        "{quick_recall} among those of the ranking by colour."
    )
chapter.record("ranked_by", report.summary["suspects_ranked_by"])
chapter.record("contradictions", sum(report.summary["pairs_with_different_labels"].values()))
listed = (
    "Pairs of copies whose labels differ, so that one is in doubt: {contradictions}. "
    "Label suspects: {suspects}, ranked by {ranked_by}, as candidates. "
)
chapter.answer("5", f"Patches found: {issues}. {damaged}{listed}{planted}")

# %%
chapter.record("broken", sum(counts[name] for name in names))
chapter.headline(
    "{pairs_within} pairs of patches within splits and {pairs_across} across them are not independent, {tied_test} "
    "test patches are tied to another split, and {broken} patches are broken or poisoned."
)
chapter.close()
