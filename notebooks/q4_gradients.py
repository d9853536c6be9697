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
# # Q4 What do gradients and the learning rate do?
#
# The gradient norm is the pulse of a training run, and the learning rate is what one does about it.
#
# 1. How does the norm of the gradient go, step by step, over three seeds; where does it spike, and on which patches?
# 2. How do learning-rate schedules compare on equal budgets, and why is the rate lowered late?
#
# Beside the two questions, the last section says which other idea bought what.

# %% tags=["parameters"]
data_dir: str = ""
work_dir: str = ""
window: int = 20
factor: float = 3.0

# %%
import numpy as np
import pandas as pd

from pcam.config import build_config
from pcam.evaluation import ablation, ablation_pages, batches, t_interval
from pcam.journal import open_chapter
from pcam.training import Run, gradients, plots, train

chapter = open_chapter("q4_gradients", data_dir, work_dir)

# %% [markdown]
# ## 1 Gradient norms
#
# The global norm is the length of the gradient of all weights together, before any clipping. It is logged at every
# step of every run. A mean over an epoch is one number for all of its steps: what it hides is the spread around it.
#
# A step is called a spike when its norm is more than `factor` times the median norm of the `window` steps before it.
# The first `window` steps are left out, as there is nothing to compare them with.

# %%
runs = [chapter.run(f"cnn-{seed}") for seed in (0, 1, 2)]
chapter.record("n_seeds", len(runs), runs=runs)
_ = chapter.record("n_steps", min(run.final["steps"] for run in runs), runs=runs)
print(f"here factor = {factor:g}, window = {window}; steps of each seed:", *(run.final["steps"] for run in runs))

# %%
spikes = [gradients.find_spikes(run.steps, window, factor) for run in runs]
chapter.figure(
    plots.gradient_norms(runs, spikes),
    alt="Gradient norm at every step of three runs that differ in their seed, on a logarithmic scale, with the mean "
    "of each epoch as steps and rings on the spikes; single steps reach far above their epoch's mean.",
)

# %% tags=["nbval-ignore-output"]
rows = []
for run, of_run in zip(runs, spikes, strict=True):
    top = gradients.strongest_step(run.steps, window)
    means = gradients.epoch_means(run.steps)
    rows.append((run.config.seed, len(of_run), top.step, top.epoch, top.norm, means[top.epoch], top.ratio))
columns = ["seed", "spikes", "strongest step", "epoch", "norm", "its epoch's mean", "times the usual"]
found = pd.DataFrame(rows, columns=columns)
chapter.table(found, caption="Spikes by the rule, and the step that stands out most")
chapter.record("n_spikes", int(found["spikes"].sum()), runs=runs)
chapter.record("strongest_ratio", found["times the usual"].max(), n=sum(r.final["steps"] for r in runs), runs=runs)
hidden = (found["norm"] / found["its epoch's mean"]).max()
_ = chapter.record("over_epoch_mean", hidden, n=len(runs), runs=runs)

# %% [markdown]
# ### The patches behind the strongest step
#
# No list of patches was logged for this: the order is a pure function of the seed and the epoch, so the patches of
# any step of any run can be named afterwards.

# %% tags=["nbval-ignore-output"]
worst = runs[int(found["times the usual"].idxmax())]
step = int(found["strongest step"][found["times the usual"].idxmax()])
split = chapter.split(worst.config.data.train_split)
indices = gradients.patches_of_step(worst, step)
contrast = batches.batch_contrast(split, indices)
chapter.table(contrast, caption=f"The batch of step {step} (seed {worst.config.seed}) beside the training split")

# %% tags=["nbval-ignore-output"]
losses = batches.patch_losses(worst, split, indices)
chapter.figure(
    batches.batch_figure(split, indices, losses),
    alt=f"Sixteen patches of the batch at step {step}, those with the highest loss under the finished model first, "
    "each with its index, label and loss.",
)
chapter.record("traced_step", step, runs=[worst])
chapter.record("traced_seed", worst.config.seed, runs=[worst])
chapter.record("batch_patches", len(indices), runs=[worst])
odd = contrast.loc[contrast["standard errors away"].abs().idxmax()]
chapter.record("oddest", str(odd["feature"]), runs=[worst])
_ = chapter.record("oddest_by", abs(float(odd["standard errors away"])), n=len(indices), runs=[worst])
bound = chapter.record("chance_bound", batches.chance_bound(len(contrast)), n=len(contrast))
_ = chapter.record("odd", bool(chapter.value("oddest_by").value > bound), runs=[worst])

# %%
chapter.answer(
    "1",
    "Over {n_seeds} seeds of {n_steps} steps each the rule finds {n_spikes} spikes; the strongest step has "
    "{strongest_ratio} times the usual norm. A log kept by epoch would not show it: a single step reaches "
    "{over_epoch_mean} times its epoch's mean. The strongest, step {traced_step} of seed {traced_seed}, is traced to "
    "its {batch_patches} patches. What sets them apart most from the training split is {oddest}, "
    "{oddest_by} standard errors away from its mean: {odd:more|no more} than chance gives, as a batch drawn at random "
    "stays within {chance_bound} in nineteen of twenty cases.",
)

# %% [markdown]
# ## 2 Learning-rate schedules
#
# The same network, data and number of epochs; only the schedule differs, and each is trained with three seeds. Runs
# with the same seed begin with the same weights and see the same batches, so schedules are compared seed by seed: the
# interval is of the mean difference from the constant rate. Last, a tenth of the rate throughout, as if
# it had been lowered before the first step.

# %%
names, seeds = ("constant", "plateau", "step", "cosine", "one_cycle"), (0, 1, 2)


def trained(name: str, seed: int, *overrides: str):
    planned = chapter.plan.planned(f"schedule-{name}").config()
    config = build_config(planned.model_dump(), [f"seed={seed}", *overrides])
    return train(config, chapter.data_dir, chapter.work / "runs", resume=True, wait=True, progress=False)


schedules = {name: [trained(name, seed) for seed in seeds] for name in names}
low = f"train.lr={schedules['constant'][0].config.train.lr / 10}"
early = [trained("constant", seed, low) for seed in seeds]
everything = [run for of_seeds in schedules.values() for run in of_seeds]
budgets = {run.final["steps"] for run in everything}
chapter.record("n_schedules", len(schedules), runs=everything)
chapter.record("n_schedule_seeds", len(seeds), runs=everything)
_ = chapter.record("equal_budget", len(budgets) == 1, runs=everything)
print("steps of each run:", ", ".join(map(str, sorted(budgets))))

# %%
chapter.figure(
    plots.schedules({**schedules, "constant, a tenth": early}),
    alt="Left, the learning rate at every step under five schedules and at a tenth of the constant rate; right, the "
    "mean valid loss after every epoch under each of them, with the range over three seeds.",
)

# %% tags=["nbval-ignore-output"]
table = gradients.compare_schedules(schedules)
chapter.table(table, caption="Equal budgets, means over seeds; wobble: change of the valid loss between late epochs")
final = {name: np.array([run.final["valid_loss"] for run in of_seeds]) for name, of_seeds in schedules.items()}
gains = {name: t_interval(final[name] - final["constant"]) for name in names if name != "constant"}
rows = [(name, gain.mean, gain.low, gain.high) for name, gain in gains.items()]
paired = pd.DataFrame(rows, columns=["schedule", "difference", "low", "high"])
chapter.table(paired, caption="Final valid loss less that of the constant rate, seed by seed, with intervals")

# %%
best, cosine = str(table["schedule"].iloc[0]), gains["cosine"]
lowest, seen = t_interval(final[best]), {"n": len(seeds), "split": "valid", "method": "Student t over seeds"}
chapter.record("best", best, runs=everything)
chapter.record("best_loss", lowest.mean, low=lowest.low, high=lowest.high, runs=schedules[best], **seen)
two = schedules["cosine"] + schedules["constant"]
_ = chapter.record("cosine_gain", cosine.mean, low=cosine.low, high=cosine.high, runs=two, **seen)
apart = [name for name, gain in gains.items() if gain.low > 0 or gain.high < 0]
chapter.record("n_compared", len(gains), runs=everything)
chapter.record("n_apart", len(apart), runs=everything)
_ = chapter.record("apart", ", ".join(apart) or "none", runs=everything)

# %%
wobble = table.set_index("schedule")["late wobble"]
for name in ("constant", "cosine"):
    chapter.record(f"wobble_{name}", wobble[name], n=len(seeds), split="valid", runs=schedules[name])
early_loss = float(np.mean([run.final["valid_loss"] for run in early]))
chapter.record("early_loss", early_loss, n=len(seeds), split="valid", runs=early)
_ = chapter.record("calmer", bool(wobble["cosine"] < wobble["constant"]), runs=two)

# %%
chapter.answer(
    "2",
    "On equal budgets ({n_schedules} schedules, {n_schedule_seeds} seeds each) the lowest mean valid loss is that of "
    "{best}, {best_loss:ci}. Seed by seed, {n_apart} of {n_compared} schedules differ from the constant rate by an "
    "interval that leaves out zero ({apart}); cosine decay differs by {cosine_gain:ci}. The rate is lowered late "
    "because a large rate moves fast and never settles: late in training the valid loss still moves by "
    "{wobble_constant} an epoch at a constant rate and by {wobble_cosine} under cosine decay, which {calmer:is|is not} "
    "calmer. Lowered from the start it moves slowly: at a tenth of the rate throughout, the final valid loss is "
    "{early_loss}.",
)

# %% [markdown]
# ## Which idea bought what
#
# One change at a time: each idea is trained with several seeds and compared, seed by seed, with what it changes. Ideas
# are judged on valid; test stands beside it and decides nothing. Intervals are Student's t over seeds: other seeds, the
# same patches. What did not help stays in the table. Core-seconds are seconds of the clock times CPU threads, of the
# fastest seed; where other work ran beside the training they are too many. Only what the runs' own records bear out is
# shown.

# %% tags=["nbval-ignore-output"]
measured, refused = ablation.read_measured(chapter.data_dir, chapter.work)
tried = ablation.ablation_table(measured)
print(f"Not shown: {len(refused)}.", *refused, sep="\n") if refused else None
for rows in ablation_pages.sets_of(tried):
    caption = f"ROC-AUC, {ablation_pages.set_name(rows)}, by valid; gaps are paired by seed and have 95 % intervals"
    chapter.table(ablation_pages.shown_rows(rows), caption=caption)
if tried.empty:
    chapter.note(
        "No evidence yet: no idea has two seeds on these data. `make ablation DATA=DIR` trains them, for hours, and "
        "may be stopped and given again; `make journal DATA=DIR` then shows them here."
    )

# %% tags=["nbval-ignore-output"]
if not tried.empty:
    chapter.figure(
        ablation_pages.ablation_figure(tried),
        alt="ROC-AUC of each idea, mean and interval over seeds, on valid and on test, sorted by valid, beside its "
        "core-seconds of training and its number of weights; a dashed line marks the cnn.",
    )

# %% tags=["nbval-ignore-output"]
if not tried.empty:
    rows, best_idea = ablation_pages.sets_of(tried)[0], ablation_pages.best_of(tried)
    cited = [Run(chapter.work / "runs" / name) for name in sorted(set(" ".join(rows["runs"]).split()))]
    found = ablation_pages.verdicts(rows)
    chapter.record("ideas", sum(map(len, found.values())), runs=cited)
    chapter.record("ideas_in", ablation_pages.set_name(rows))
    for verdict in ("gain", "lose"):
        chapter.record(f"n_{verdict}", len(found[verdict]), runs=cited)
        chapter.record(verdict, ", ".join(found[verdict]) or "none", runs=cited)
    chapter.record("by_chance", ablation_pages.expected_by_chance(rows), n=chapter.value("ideas").value)
    versions = {run.environment["code_version"] for run in cited}
    chapter.record("one_code", len(versions) == 1, runs=cited)

# %% tags=["nbval-ignore-output"]
if not tried.empty:
    of_best = [Run(chapter.work / "runs" / name) for name in best_idea["runs"].split()]
    chapter.record("best_idea", best_idea["variant"], runs=of_best)
    for name in ("valid", "test"):
        value, *ends = (best_idea[f"{name}_auc{end}"] for end in ("", "_low", "_high"))
        known = dict(zip(("low", "high"), ends, strict=True)) if value == value else {"reason": "no labels"}
        about = {"n": best_idea["seeds"], "split": name, "method": "Student t over seeds", "runs": of_best}
        chapter.record(f"best_idea_{name}", value, **known, **about)
    chapter.note(
        "Of {ideas} ideas ({ideas_in}) {n_gain} gain ({gain}) and {n_lose} lose ({lose}) on valid by more than their "
        "intervals over seeds hold; if none did anything, {by_chance} would be expected to. All runs compared are of "
        "{one_code:one version|several versions} of the training code. The best on valid is {best_idea}: "
        "{best_idea_valid:ci} there, {best_idea_test:ci} on test."
    )

# %%
chapter.headline(
    "The rule finds {n_spikes} gradient spikes over {n_seeds} seeds, and the strongest step is traced to its patches; "
    "of {n_compared} schedules {n_apart} differ from a constant rate by more than seeds do; {best} has the lowest loss."
)

# %%
chapter.close()
