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
# # Q7 How do we work together?
#
# 1. What does the repository's own history say: branches, merges, authorship, linearity?
# 2. What does continuous integration run, and which fault does each gate stop?
# 3. Why does it install CPU wheels?
# 4. How is a merge conflict in a notebook resolved?

# %% tags=["parameters"]
data_dir: str = ""
work_dir: str = ""

# %%
import tempfile
from pathlib import Path

from pcam.config import project_root
from pcam.errors import JournalError
from pcam.journal import conflict, gates, open_chapter
from pcam.journal.doctor import diagnose
from pcam.journal.history import read_history
from pcam.journal.packages import installed_packages

chapter = open_chapter("q7_collaboration", data_dir, work_dir)

# %% [markdown]
# ## 1 The history, read with git
#
# The counts below are read from the clone in which this page was made; they grow with every commit and differ
# between clones, so that no test compares them. A shallow clone hides its older commits, and an archive has no
# history: then the page says so in place of counts.

# %% tags=["nbval-ignore-output"]
try:
    history = read_history(project_root())
except JournalError as error:
    history = None
    chapter.no_evidence("1", f"{error}.")
if history:
    chapter.table(history.authors(), "Authors of the commits that lead to the present one.")
    chapter.table(history.areas(), "How many commits touched each part of the project.")

# %% tags=["nbval-ignore-output"]
if history:
    with_tests, with_code = history.with_tests
    chapter.record("commits", len(history.commits))
    chapter.record("authors", len(history.authors()))
    chapter.record("branches", len(history.branches))
    chapter.record("merges", history.merges)
    chapter.record("linear", "linear: it has no merge" if history.is_linear else "not linear: work was merged")
    chapter.record("whole", "shallow, so that older commits are missing" if history.shallow else "whole")
    chapter.record("code_commits", with_code)
    chapter.record("tested_commits", with_tests)
    chapter.answer(
        "1",
        "The clone is {whole}. Authors: {authors}; branches: {branches}; commits: {commits}, merges among them: "
        "{merges}. The history is {linear}. Of the {code_commits} commits that touch the package, {tested_commits} "
        "touch its tests too.",
    )

# %% [markdown]
# ## 2 What CI runs, and what each gate stops
#
# The jobs come from the workflow's own file.

# %%
jobs = gates.workflow_jobs(project_root())
chapter.table(jobs, "Jobs of .github/workflows/ci.yml, in order; a later one waits for the fast one.")

# %% [markdown]
# A gate that never failed proves nothing. So each is run twice on a copy of the project: as it is, where it must
# pass, and with one planted fault of the kind that it is there for, where it must fail and name it.

# %%
with tempfile.TemporaryDirectory() as folder:
    trials = gates.try_gates(project_root(), Path(folder))
chapter.table(gates.as_table(trials), "Each gate without and with a planted fault: exit codes and verdict.")

# %% tags=["nbval-ignore-output"]
for trial in trials:
    print(f"{trial.gate.name}: {trial.line}")

# %%
chapter.record("jobs", len(jobs))
chapter.record("gates", len(trials))
chapter.record("stopped", sum(trial.verdict == "stopped" for trial in trials))
missed = [trial.gate.name for trial in trials if trial.verdict != "stopped"]
chapter.record("missed", ", ".join(missed) or "none")
chapter.answer(
    "2",
    "CI runs {jobs} jobs. Of {gates} gates that were broken on purpose, {stopped} passed without the fault and "
    "failed with it, and named it; gates that did otherwise: {missed}.",
)

# %% [markdown]
# ## 3 Why CPU wheels in CI
#
# What the environment of this page weighs, from the packages' own file lists. The sizes differ between platforms,
# so that no test compares them.

# %% tags=["nbval-ignore-output"]
packages = installed_packages()
chapter.table(packages.head(6), "The largest installed packages.")
torch = packages[packages.package == "torch"].iloc[0]
gpu = next(line for line in diagnose() if line.subject == "GPU")
chapter.record("torch_version", torch.version)
chapter.record("torch_gb", torch.megabytes / 1e3, unit="GB", n=int(torch.files))
chapter.record("environment_gb", packages.megabytes.sum() / 1e3, unit="GB", n=int(packages.files.sum()))
chapter.record("gpu_packages", int(packages.gpu_only.sum()))
chapter.record("gpu", gpu.found)
chapter.answer(
    "3",
    "A hosted runner has no GPU, so that whatever a CUDA build brings would be downloaded, unpacked and cached "
    "in every job and never loaded. Here the GPU is: {gpu}. The installed torch is {torch_version}; it takes "
    "{torch_gb} of the environment's {environment_gb}, and {gpu_packages} packages that only a GPU needs came "
    "with it. CI therefore names PyTorch's CPU index, and what needs a GPU is checked where there is one.",
)

# %% [markdown]
# ## 4 A merge conflict in a notebook
#
# In a repository of its own, two people change one notebook and both run it; then their branches are merged. The
# notebook is paired with a text (`py:percent`), and both are committed.

# %%
with tempfile.TemporaryDirectory() as folder:
    merges = conflict.demonstrate(Path(folder) / "merge")
chapter.table(conflict.as_table(merges), "Conflicts that git left in the notebook and in its paired text.")

# %% [markdown]
# The one conflict that is left is about what the two people meant, and can be read:

# %%
print(merges[1].hunk)

# %%
chapter.record("notebook_conflicts", merges[0].conflicts[".ipynb"])
chapter.record("text_conflicts", merges[0].conflicts[".py"])
chapter.record("same_cell_conflicts", merges[1].conflicts[".py"])
chapter.record("opens", "still opens" if any(merge.opens for merge in merges) else "does not open")
chapter.record("resolved", sum(merge.resolved for merge in merges))
chapter.record("merges_tried", len(merges))
chapter.answer(
    "4",
    "Where the two changed different cells, git left {notebook_conflicts} conflicts in the notebook, about "
    "outputs and execution counts, and {text_conflicts} in the text; where they changed the same cell, "
    "{same_cell_conflicts} in the text. A notebook with conflict markers {opens}. So a conflict is decided in "
    "the text, the notebook is taken from either side, brought together with `jupytext --sync`, run again, and both "
    "are committed: {resolved} of {merges_tried} merges were resolved so, and the result ran.",
)

# %%
chapter.headline(
    "{stopped} of {gates} gates stop the fault planted for them; a notebook's merge conflict is resolved in its text."
)
chapter.close()
