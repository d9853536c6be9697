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
# # Q8 How fast is it?
#
# A rate is a measurement like any other: it has a method, a spread and a machine, and it means little without the
# limit that it is compared with.
#
# 1. How is throughput measured, in training and apart? What disturbs it, and what does precision change?
# 2. What is it at batch size one, on each partition or device, with its job id?
# 3. How does it scale over batch sizes, for a small and a large model: plateau, memory, out of memory?
# 4. Where is the bottleneck: loading, transfer, augmentation, forward, backward? How far is the
#    machine's own limit?
#
# The figures on this page are those of the machine that ran it, and of what else ran on it; they are not compared when
# the notebook is tested.

# %% tags=["parameters"]
data_dir: str = ""
work_dir: str = ""

# %%
import torch

from pcam.benchmark import bench, pages, time_stages, timing
from pcam.benchmark.throughput import available_devices
from pcam.journal import open_chapter

chapter = open_chapter("q8_throughput", data_dir, work_dir)
config = chapter.plan.planned("cnn-0").config()
size = [f"model.width={config.model.width}", f"train.batch_size={config.train.batch_size}"]
devices = available_devices()
repeats = (timing.FAST if chapter.is_sample else timing.FULL).repeats

# %% [markdown]
# ## 1 How it is measured
#
# Warm-up batches are left out; the rate is the median over repeats; the spread of single batches is given as
# percentiles. This is the code, shown from the package itself.

# %%
chapter.source(timing.measure)

# %% [markdown]
# Apart: the step is timed alone, with everything that training does to a batch. In training: the run's own record says
# how long its epochs took, validation included.

# %% tags=["nbval-ignore-output"]
folder = chapter.scratch()
trained = bench("train", chapter.data_dir, folder / "train", batch_sizes=(config.train.batch_size,), overrides=size,
                fast=chapter.is_sample)  # fmt: skip
scored = bench("model", chapter.data_dir, folder / "model", overrides=size, fast=chapter.is_sample)
loaded = bench("loader", chapter.data_dir, folder / "loader", fast=chapter.is_sample)
chapter.table(pages.machine(folder / "train"), caption="What the figures were measured on.")

# %% tags=["nbval-ignore-output"]
caption = "Training apart, at the batch size of the run, in both precisions."
chapter.table(pages.rates(trained), caption=caption, missing="out of memory")

# %%
run = chapter.run("cnn-0")
in_training = pages.rate_of_run(run)
apart = pages.one(trained, model="cnn", precision=run.config.train.precision, device="cpu")
chapter.record("in_training", in_training.mean, unit="images/s", n=in_training.n, low=in_training.low,
               high=in_training.high, runs=[run])  # fmt: skip
chapter.record("apart", apart.images_per_second, unit="images/s", n=repeats, local=True)
chapter.record("p50", apart.p50_ms, unit="ms", n=apart.batch_size, local=True)
chapter.record("p99", apart.p99_ms, unit="ms", n=apart.batch_size, local=True)
chapter.record("load", pages.load_average(folder / "train"), n=1, local=True)
chapter.record("cores", pages.cores(), local=True)
chapter.record("precision_gain", pages.precision_gain(trained, "cnn"), n=repeats, local=True)
chapter.answer(
    "1",
    "Apart, the network trains on {apart}; in a run, validation included, on {in_training:ci}. A typical batch takes "
    "{p50}, one in a hundred {p99} or more. Other work disturbs it most: while this was measured, the load was {load} "
    "on {cores} cores. In bfloat16 the rate is {precision_gain} times that in float32 on this processor.",
)

# %% [markdown]
# ## 2 Batch size one
#
# One patch at a time is what an interactive user feels. The job id comes from the environment of the cluster's
# scheduler and is empty outside of it; nobody types it.

# %% tags=["nbval-ignore-output"]
single = pages.rates(scored[scored["batch_size"] == 1])
chapter.table(single, caption="Forward at batch size one.")

# %%
job, gpu = pages.job(folder / "model"), "cuda" in devices
chapter.record("job", job or "none, as no scheduler ran it", local=True)
for device in devices:
    row = pages.one(scored, model="cnn", precision="float32", device=device, batch_size=1)
    chapter.record(f"single_{device}", row.images_per_second, unit="images/s", n=repeats, local=True)
without = "" if gpu else " No evidence yet for a GPU: this machine has none."
chapter.answer(
    "2",
    "At batch size one the network scores "
    + ", ".join(f"{{single_{d}}} on {d}" for d in devices)
    + ". Job id: {job}."
    + without,
)

# %% [markdown]
# ## 3 Scaling over batch sizes
#
# Small batches pay the fixed cost of a step again and again; from some size on the rate no longer rises: the plateau.
# A batch that does not fit into memory is a row that says so.

# %%
chapter.figure(
    pages.scaling_figure(scored),
    alt="Images per second against batch size on logarithmic axes, for both models and precisions, beside peak memory "
    "against batch size. The table below holds the same values.",
)

# %% tags=["nbval-ignore-output"]
chapter.table(pages.rates(scored), caption="Forward over batch sizes.", missing="out of memory")

# %%
for model in ("mlp", "cnn"):
    plateau = pages.plateau(scored, model)
    chapter.record(f"plateau_{model}", plateau.batch_size, n=plateau.n, local=True)
    chapter.record(f"best_{model}", plateau.images_per_second, unit="images/s", n=repeats, local=True)
chapter.record("full", int(scored["images_per_second"].isna().sum()))
chapter.record("peak", float(scored["peak_memory_bytes"].max()) / 2**20, unit="MiB", n=len(scored), local=True)
chapter.answer(
    "3",
    "In float32 on the CPU the small model reaches its plateau at batch size {plateau_mlp} with {best_mlp}, the large "
    "one at {plateau_cnn} with {best_cnn}. Peak memory was {peak}; {full} of the measurements ran out of memory."
    + without,
)

# %% [markdown]
# ## 4 The bottleneck
#
# Each part of a training step is timed apart. The machine's limits are measured as well: a plain copy of as many bytes
# for loading; for the network a large matrix product or convolution with as many operations, whichever is faster.

# %%
stages = {device: time_stages(config, chapter.split("train"), torch.device(device), batches=8) for device in devices}
chapter.figure(
    pages.stage_figure(stages),
    alt="Milliseconds of each part of a training step, with the range from the tenth to the ninetieth percentile. The "
    "table below holds the same values.",
)

# %% tags=["nbval-ignore-output"]
chapter.table(pages.stage_table(stages), caption="The parts of a training step.")
chapter.table(pages.limits(folder / "train"), caption="The machine's own limits, measured.")

# %% tags=["nbval-ignore-output"]
chapter.table(pages.rates(loaded), caption="Delivering patches, from memory and from the file.")

# %%
slowest = max(stages[devices[-1]], key=lambda stage: stage.milliseconds)
loading = next(stage for stage in stages[devices[-1]] if stage.name == "loading")
chapter.record("slowest", slowest.name, local=True)
chapter.record("slowest_share", slowest.share, n=slowest.batches, local=True)
chapter.record("loading_ms", loading.milliseconds, unit="ms", n=loading.batches, local=True)
chapter.record("train_of_limit", apart.fraction_of_limit, n=repeats, local=True)
best = loaded.loc[loaded["fraction_of_limit"].idxmax()]
chapter.record("load_of_limit", best.fraction_of_limit, n=repeats, local=True)
chapter.record("load_source", best.model, local=True)
chapter.answer(
    "4",
    "The slowest part is {slowest}, a share of {slowest_share} of the step; loading a batch takes {loading_ms}. "
    "Training runs at {train_of_limit} of the arithmetic limit, loading from {load_source} at best at "
    "{load_of_limit} of the copy limit." + ("" if gpu else " No evidence yet for transfer: it needs a GPU."),
)

# %%
chapter.headline(
    "Training handles {apart} on this machine; {slowest} takes {slowest_share} of a step, loading a batch {loading_ms}."
)
chapter.close()
