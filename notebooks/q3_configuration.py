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
# # Q3 How is it configured?
#
# A run is only as clear as the list of what decided it. Here that list is one typed tree, and its hash is part of
# the run's name.
#
# 1. Which parameters matter, and where is their one place?
# 2. How do they load?
# 3. What does a change do: the difference of two configurations beside the difference of their results?
# 4. Which risks remain: a typo, a wrong type, a changed data file, a changed library?

# %% tags=["parameters"]
data_dir: str = ""
work_dir: str = ""

# %%
import json
from itertools import combinations

import pandas as pd

from pcam import config as pcam_config
from pcam.config import Config, config_hash, config_leaves, load_config
from pcam.journal import open_chapter
from pcam.training import compare, mishaps
from pcam.training.runs import code_files, code_version

chapter = open_chapter("q3_configuration", data_dir, work_dir)

# %% [markdown]
# ## 1 The parameters and their one place
#
# Every parameter is declared once, in `pcam/config.py`, with its type, default, limits and meaning. The table is read
# from that declaration; the last two columns are what the two presets of this journal resolve to.

# %%
leaves = compare.parameters()
defaults, presets = config_leaves(Config()), {name: config_leaves(load_config(name)) for name in ("mlp", "cnn")}
columns = ["parameter", "type", "default", *presets, "limits", "meaning"]
rows = [(x.key, x.type, defaults[x.key], *(p[x.key] for p in presets.values()), x.limits, x.meaning) for x in leaves]
table = pd.DataFrame(rows, columns=columns)
typed = ["default", *presets]
table[typed] = table[typed].map(lambda value: json.dumps(value).strip('"'))  # as a preset has it
table["type"] = table["type"].str.replace("| None", "or null")
chapter.table(table, caption="Every parameter, as pcam/config.py declares it, and as two presets set it")
chapter.record("n_parameters", len(leaves))
_ = chapter.record("n_set", int((table["cnn"] != table["default"]).sum()))

# %%
chapter.answer(
    "1",
    "There are {n_parameters} parameters and one place for them: the tree in `pcam/config.py`. A preset states only "
    "what differs from the defaults; that of the cnn states {n_set}. Nothing in the training code has a value of its "
    "own that a run does not record: what is not a parameter is code, and the code's hash is part of the run's name.",
)

# %% [markdown]
# ## 2 How they load
#
# A file or preset, then overrides, then one check of the whole tree. This is the package's own source.

# %%
chapter.source(pcam_config.load_config, pcam_config.build_config)

# %%
chapter.source((pcam_config.project_root() / "configs" / "cnn.yaml").read_text(), language="yaml")

# %% [markdown]
# The canonical hash does not depend on how a number is spelt, nor on the order of the keys. It does depend on every
# leaf: each one is changed in turn below.

# %%
spellings = ("1e-3", "0.001", "10.0e-4")
hashes = {config_hash(load_config("mlp", [f"train.lr={text}"])) for text in spellings}
moved = mishaps.hashes_of_changed_leaves()
print(len(spellings), "spellings of one rate, different hashes:", len(hashes))
print(len(moved), "leaves changed one at a time, hashes that moved:", sum(moved.values()))
chapter.record("n_spellings", len(spellings))
chapter.record("spelling_hashes", len(hashes))
chapter.record("n_changed", len(moved))
_ = chapter.record("n_moved", sum(moved.values()))

# %%
chapter.answer(
    "2",
    "A preset or file is read by a loader without YAML's traps, overrides such as `train.lr=3e-4` come on top, and the "
    "tree is checked as a whole before anything else is loaded. The {n_spellings} spellings of one rate give "
    "{spelling_hashes} hash; of {n_changed} leaves, each changed alone, {n_moved} move it.",
)

# %% [markdown]
# ## 3 What a change does
#
# Pairs of runs. In the first only the schedule differs, in the others only the seed. Those are the yardstick: a change
# whose effect is no larger than another seed's has shown nothing.

# %%
base, *others, schedule = (chapter.run(name) for name in ("mlp-0", "mlp-1", "mlp-2", "schedule-constant"))
of_seeds = {f"seed {a.config.seed} to {b.config.seed}": (a, b) for a, b in combinations([base, *others], 2)}
pairs = {"another schedule": (base, schedule), **of_seeds}
rows = [
    (change, d.key, str(d.first), str(d.second))
    for change, (a, b) in pairs.items()
    for d in compare.config_difference(a.config, b.config)
]
chapter.table(
    pd.DataFrame(rows, columns=["change", "parameter", "before", "after"]), caption="What differs in the config"
)
chapter.record("n_schedule_keys", len(compare.config_difference(base.config, schedule.config)), runs=[base, schedule])
moved = {d.key for a, b in of_seeds.values() for d in compare.config_difference(a.config, b.config)}
_ = chapter.record("seed_keys", ", ".join(sorted(moved)), runs=[base, *others])

# %% tags=["nbval-ignore-output"]
rows = [
    (change, d.key, d.first, d.second, d.change)
    for change, (a, b) in pairs.items()
    for d in compare.result_difference(a, b)
]
results = pd.DataFrame(rows, columns=["change", "result", "before", "after", "difference"])
chapter.table(results, caption="What differs in the results")

# %%
n_valid = len(chapter.split("valid"))
effect = results[results["result"] == "valid_loss"].set_index("change")["difference"].abs()
chapter.record("by_schedule", effect["another schedule"], n=n_valid, split="valid", runs=[base, schedule])
chapter.record("n_seed_pairs", len(of_seeds), runs=[base, *others])
for end in ("min", "max"):
    by_seed = effect[list(of_seeds)].agg(end)
    chapter.record(f"by_seed_{end}", by_seed, n=n_valid, split="valid", runs=[base, *others])
_ = chapter.record("beyond_seed", bool(effect["another schedule"] > by_seed), runs=[base, schedule, *others])

# %%
chapter.answer(
    "3",
    "The first pair differs in {n_schedule_keys} parameter, the schedule, and its valid loss by {by_schedule}, on "
    "{by_schedule:n} patches. {n_seed_pairs} pairs that differ in `{seed_keys}` alone part by {by_seed_min} to "
    "{by_seed_max}. The change of schedule {beyond_seed:moves it more than any of them|is within what another seed "
    "does}; with one pair of schedules that is a hint, and Q4 compares them over seeds.",
)

# %% [markdown]
# ## 4 The remaining risks, demonstrated
#
# ### A typo, a wrong type, a value out of range
#
# Each line below is given to the loader as a person would type it. What it answers is shown as it is printed.

# %%
mistakes = [
    "train.epoch=3", "trian.lr=0.1", "model.nmae=cnn", "train.lr=fast", "train.batch_size=3.5",
    "train.deterministic=yes", "train.lr=nan", "train.epochs=0", "train.schedule=cosin",
]  # fmt: skip
answers = [(text, mishaps.complaint(text)) for text in mistakes]
chapter.table(pd.DataFrame(answers, columns=["typed", "answer"]), caption="What the loader answers to mistakes")
chapter.record("n_mistakes", len(mistakes))
_ = chapter.record("n_refused", sum(bool(answer) for _, answer in answers))

# %% [markdown]
# ### A changed data file
#
# Some patches of the validation split are copied, and the copies are changed. A run's name holds the fingerprint of
# its patches and labels, so it shows whether the change is seen.

# %%
names = mishaps.run_names_of_copies(base.config, chapter.split("valid"), chapter.scratch() / "copies")
copies = pd.DataFrame([(what, name == names["as it is"]) for what, name in names.items()], columns=["data", "same run"])
chapter.table(copies, caption="Does the run keep its name?")
chapter.record("pixel_seen", names["one pixel changed by one"] != names["as it is"])
_ = chapter.record("storage_ignored", names["compressed"] == names["as it is"])

# %% [markdown]
# ### A changed library
#
# A run records the versions of the packages that can move its bits. Another version does not change the run's name,
# as nobody could then open an old run; it is reported when the run is used. Here a record is altered to show it.

# %%
recorded = base.environment["versions"]
now = compare.changed_libraries(recorded)
altered = compare.changed_libraries({**recorded, "torch": "1.0"})
print("libraries changed since the run:", len(now))
print("libraries reported for the altered record:", ", ".join(d.key for d in altered))
chapter.record("n_changed_libraries", len(now), runs=[base])
_ = chapter.record("altered_seen", [d.key for d in altered] == ["torch"])

# %% [markdown]
# ### Changed code
#
# The sources that decide the bits of a trained model are hashed into the run's name.

# %%
chapter.record("n_sources", len(code_files()))
same_code = base.environment["code_version"] == code_version()
_ = chapter.record("same_code", same_code, runs=[base])
print("sources in the run's name:", len(code_files()), "| the runs here are of this code:", same_code)

# %%
chapter.answer(
    "4",
    "Of {n_mistakes} mistyped settings {n_refused} are refused, each in one line that names the key. One pixel changed "
    "by one {pixel_seen:gives|does not give} the run another name; the same patches stored otherwise "
    "{storage_ignored:keep it|do not keep it}. An altered library version {altered_seen:is|is not} reported; since "
    "these runs, {n_changed_libraries} libraries have changed. What remains: a value that is valid and wrong. No "
    "loader can see that, only the difference beside the results.",
)

# %%
chapter.headline(
    "{n_parameters} parameters live in one typed tree; {n_refused} of {n_mistakes} mistakes are refused before "
    "anything runs, and a changed pixel changes the run's name."
)

# %%
chapter.close()
