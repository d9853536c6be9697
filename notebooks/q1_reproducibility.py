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
# # Q1 Is it reproducible?
#
# Two people who run the same thing should get the same thing, bit for bit. If they do not, no difference between
# two models means anything.
#
# 1. Where can chance enter this pipeline, is it controlled, and which test proves it?
# 2. What does the seeding code do?
# 3. Do twin runs in fresh processes agree, and what makes them part?
# 4. What does determinism cost in speed?

# %% tags=["parameters"]
data_dir: str = ""
work_dir: str = ""
twin_epochs: int = 2
twin_patches: int = 256
timed_pairs: int = 5

# %%
import pandas as pd

from pcam.config import build_config
from pcam.evaluation import t_interval
from pcam.journal import open_chapter
from pcam.training import plots, seeds, twins
from pcam.training.sources import SOURCES

chapter = open_chapter("q1_reproducibility", data_dir, work_dir)

# %% [markdown]
# ## 1 Sources of chance
#
# Each source, how it is controlled, and whether the tests that prove it are in this project. The tests are looked
# up as this page is made.

# %%
rows = [(s.name, s.control, s.verdict(), ", ".join(t.partition("::")[2] for t in s.tests) or "none") for s in SOURCES]
sources = pd.DataFrame(rows, columns=["source", "control", "verdict", "tests"])
chapter.table(sources, caption="Where chance can enter, and what stops it")
chapter.record("n_sources", len(sources))
chapter.record("n_tested", int((sources["verdict"] == "tested").sum()))
open_sources = ", ".join(sources.loc[sources["verdict"] != "tested", "source"]) or "none"
_ = chapter.record("open_sources", open_sources)

# %%
chapter.answer(
    "1",
    "Chance can enter by {n_sources} ways. For {n_tested} of them tests hold the control; not, or not wholly, for "
    "{open_sources}. The promise is therefore bounded: same packages, same kind of processor, same number of "
    "threads, same bits.",
)

# %% [markdown]
# ## 2 The seeding code
#
# One call seeds every generator, sets every switch, and yields the record that the run keeps in its
# `environment.json`. This is the package's own source, printed as it runs.

# %%
chapter.source(seeds.reproducible, seeds.seed_generators)

# %% [markdown]
# Data order and augmentation need no global state. They are pure functions of the seed and of where the run stands:

# %%
from pcam.data import loader

chapter.source(loader.epoch_order, loader.augment_generator)

# %%
run = chapter.run("cnn-0")
controls = run.environment["controls"]
switches = pd.DataFrame([(k, str(v)) for k, v in controls.items() if k != "seeds"], columns=["switch", "value"])
chapter.table(switches, caption="What run cnn-0 recorded as set")
_ = chapter.record("deterministic", controls["deterministic_algorithms"], runs=[run])

# %%
chapter.answer(
    "2",
    "Every generator is seeded by one function, and every switch is put back when the run ends, so that no run "
    "depends on the one before it. The record of `cnn-0` says that deterministic algorithms were "
    "{deterministic:on|off}.",
)

# %% [markdown]
# ## 3 Twin runs
#
# Each configuration is trained twice by two fresh processes through the command line. What is compared is what they
# left on the disk: the hash of the weights, and every logged number except times.


# %%
def short(name: str, *overrides: str):
    planned = chapter.plan.planned(name).config()
    small = [f"train.epochs={twin_epochs}", f"data.max_train={twin_patches}", "train.threads=1"]
    return build_config(planned.model_dump(), [*small, *overrides])


configs = {"mlp-seed0": short("mlp-0"), "mlp-seed1": short("mlp-1"), "cnn-seed2": short("cnn-2")}
pairs = twins.train_twins(configs, chapter.data_dir, chapter.scratch() / "twins")

# %% tags=["nbval-ignore-output"]
columns = ["run", "train loss", "twin", "valid loss", "twin ", "weights", "twin  "]
rows = []
for pair in pairs:
    a, b = (r.final for r in pair.runs)
    losses = (a["train_loss"], b["train_loss"], a["valid_loss"], b["valid_loss"])
    rows.append((pair.label, *losses, *(h[:12] for h in pair.hashes)))
chapter.table(pd.DataFrame(rows, columns=columns), caption="Final losses and the hash of the weights, run and twin")

# %%
verdicts = [(pair.label, pair.same_weights, pair.same_log) for pair in pairs]
chapter.table(
    pd.DataFrame(verdicts, columns=["run", "same weights", "same log"]), caption="The verdict, computed from the files"
)
all_runs = [run for pair in pairs for run in pair.runs]
chapter.record("n_twins", len(pairs), runs=all_runs)
chapter.record("n_equal", sum(pair.same_weights and pair.same_log for pair in pairs), runs=all_runs)
_ = chapter.record("twins_agree", twins.all_equal(pairs), runs=all_runs)

# %% [markdown]
# And the reverse. Each control is switched off in turn and a pair is trained: a seed that is off is drawn from the
# operating system (`library` stands for the generators of Python, NumPy and torch while training, which dropout draws
# from). Three rows are of another kind: any algorithm allowed, another number of threads, and other reader processes.

# %%
changes = [
    "model.width=4",
    "model.depth=1",
    "model.dropout=0.2",
    "train.epochs=1",
    "train.batch_size=32",
    "data.max_train=128",
]
tiny = short("cnn-0", *changes)
parted = twins.switched_off(tiny, chapter.data_dir, chapter.scratch() / "off")
certain = {"nothing", *seeds.CONTROLS, "workers"}
verdicts = [(name, p.same_weights) for name, p in parted.items() if name in certain]
chapter.table(
    pd.DataFrame(verdicts, columns=["switched off or changed", "same weights"]), caption="What parts a pair of runs"
)

# %% tags=["nbval-ignore-output"]
rows = [(name, p.same_weights, p.gap("train_loss"), p.gap("valid_loss")) for name, p in parted.items()]
gaps = pd.DataFrame(rows, columns=["switched off or changed", "same weights", "gap in train loss", "gap in valid loss"])
chapter.table(gaps, caption="How far the two runs of a pair end from each other, on this machine")

# %%
own = [run for name in ("nothing", *seeds.CONTROLS) for run in parted[name].runs]
parting = [name for name in seeds.CONTROLS if not parted[name].same_weights]
chapter.record("n_controls", len(seeds.CONTROLS))
chapter.record("n_parting", len(parting), runs=own)
largest = max(parted[name].gap("valid_loss") for name in seeds.CONTROLS)
_ = chapter.record("largest_gap", largest, n=len(seeds.CONTROLS), split="valid", runs=own)
_ = chapter.record("workers_agree", parted["workers"].same_weights, runs=list(parted["workers"].runs))
_ = chapter.record("threads_agree", parted["threads"].same_weights, runs=list(parted["threads"].runs))
_ = chapter.record("free_agree", parted["determinism"].same_weights, runs=list(parted["determinism"].runs))

# %%
chapter.figure(
    plots.pair_gaps(parted),
    alt="The gap in valid loss between the two runs of a pair on a logarithmic scale, a line for each control that was "
    "switched off; pairs with the same weights are marked 'same bits', among them those of 'nothing' and 'workers'.",
)

# %% tags=["nbval-ignore-output"]
chapter.answer(
    "3",
    "Of {n_twins} pairs of twins, {n_equal} agree in every bit of the weights and every logged number. "
    "With one of {n_controls} seeds left to chance, {n_parting} pairs part, by up to {largest_gap} in valid loss. "
    "Other reader processes {workers_agree:leave|do not leave} the weights as they are. On this machine, another "
    "number of threads {threads_agree:leaves the weights the same|changes the weights}, and allowing any algorithm "
    "{free_agree:leaves them the same|changes them}.",
)

# %% [markdown]
# ## 4 The cost
#
# One training step of `cnn-0` is timed with and without deterministic algorithms, in turn on the same machine
# after an untimed pair, so that a machine that slows down slows both.

# %% tags=["nbval-ignore-output"]
timed_config = chapter.run("cnn-0").config
timed = pd.DataFrame(twins.cost_of_determinism(timed_config, timed_pairs), columns=["deterministic", "free"]) * 1000
ratio = t_interval((timed["deterministic"] / timed["free"]).tolist())
chapter.record("step_ms", timed["deterministic"].median(), unit="ms", n=timed_pairs, local=True)
chapter.record(
    "cost_ratio", ratio.mean, n=timed_pairs, low=ratio.low, high=ratio.high, local=True,
    method="Student t over pairs of timings",
)  # fmt: skip
chapter.record("costs", ratio.low > 1, local=True)
spread = timed.agg(["median", "min", "max"]).T.reset_index(names="algorithms")
chapter.table(spread, caption=f"Milliseconds a step, over {timed_pairs} pairs")

# %%
device = run.environment["device"]
_ = chapter.record("device", device, runs=[run])
chapter.answer(
    "4",
    "On the {device}, a deterministic step takes {step_ms}, {cost_ratio:ci} times a free one. "
    "The interval {costs:lies above equal speed: determinism costs time here|does not lie above equal speed: no cost "
    "is seen here}. On other devices it may cost more; nothing is measured there.",
)

# %%
chapter.headline(
    "{n_equal} of {n_twins} twin runs in fresh processes end in the same bits; deterministic algorithms "
    "{costs:cost time|cost no time that can be seen} here."
)

# %%
chapter.close()
