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
# # Q9 Can someone else run it?
#
# 1. Which sections does the README have, and do its commands work?
# 2. What is in the offline bundle, and can it be made, verified and used without a network?
# 3. Does the submission checklist hold: repository link, best checkpoint, inference, Slurm files, image paths, names?

# %% tags=["parameters"]
data_dir: str = ""
work_dir: str = ""

# %%
import tempfile
from pathlib import Path

import pandas as pd

from pcam.config import project_root
from pcam.evaluation.predictions import read_predictions
from pcam.journal import bundle, handover, open_chapter

chapter = open_chapter("q9_handover", data_dir, work_dir)

# %% [markdown]
# ## 1 The README

# %%
readme = (project_root() / "README.md").read_text(encoding="utf-8")
sections = handover.readme_sections(readme)
chapter.table(sections, "What a README must tell, and the heading under which this one does.")

# %% [markdown]
# The quick commands are run as they stand, on this page's data in place of the reader's. The others would train,
# install or fetch: they are asked here whether they are well formed, and the project's tests run them.

# %%
with tempfile.TemporaryDirectory() as folder:
    names = handover.readme_commands(readme)
    commands = handover.try_commands(names, project_root(), chapter.data_dir, Path(folder))
chapter.table(commands, "The README's commands.")

# %%
chapter.record("sections", len(sections))
chapter.record("sections_present", int((sections.present == "yes").sum()))
chapter.record("commands", len(commands))
chapter.record("commands_run", int((commands.how == "run").sum()))
chapter.record("commands_working", int((commands.passed == "yes").sum()))
chapter.answer(
    "1",
    "The README has {sections_present} of {sections} sections. Of its {commands} commands, {commands_run} were "
    "run here and the others asked whether they are well formed: {commands_working} passed.",
)

# %% [markdown]
# ## 2 The offline bundle
#
# `pcam bundle make` packs the source, the finished book, the evidence and the best run. This page is a part of the
# book, so that the bundle made here is without the book; all else is the same code.

# %%
runs = {name: chapter.run(name) for name in [f"cnn-{seed}" for seed in range(3)]}
best = handover.best_run(runs.values())
best_name = next(name for name, run in runs.items() if run.id == best.id)
work = tempfile.TemporaryDirectory()
tar = bundle.pack(bundle.contents(chapter.plan, best, None), Path(work.name) / "handover.tar", journal="demonstration")

# %% tags=["nbval-ignore-output"]
parts = pd.Series(bundle.contents(chapter.plan, best, None)).map(lambda path: path.stat().st_size).reset_index()
parts.columns = ["name", "bytes"]
parts["part"] = parts.name.str.split("/").str[0]
listed = parts.groupby("part").bytes.agg(["count", "sum"]).reset_index()
listed.columns = ["part", "files", "bytes"]
chapter.table(listed, "What the bundle holds.")
chapter.table(parts[parts.part == "model"][["name", "bytes"]], "The best run in it.")

# %% [markdown]
# It is verified as it is, and again after one bit of the model was flipped, which must be found.

# %%
faults = bundle.verify_bundle(tar)
damaged = Path(work.name) / "damaged.tar"
content = bytearray(tar.read_bytes())
content[content.find((best.path / "model.safetensors").read_bytes()) + 1000] ^= 1
damaged.write_bytes(content)
found = bundle.verify_bundle(damaged)
print(f"faults of the bundle: {len(faults)}; after one flipped bit: {len(found)}")

# %% [markdown]
# Then it is unpacked elsewhere, and its own source scores the test split with its own model, in a process in which
# every connection is refused.

# %%
unpacked = bundle.unpack(tar, Path(work.name) / "unpacked")
where = ["--data", str(chapter.data_dir), "--split", "test", "--out", "scores"]
use = handover.use_offline(unpacked, "evaluate", f"model/{best.id}", *where)
print(f"exit code {use.exit_code}: {use.line}")

# %%
expected = chapter.predictions(best_name, "test")
offline = read_predictions(unpacked / "scores" / "predictions.csv").score if use.exit_code == 0 else expected.score * 0
equal = int((offline == expected.score).sum())
work.cleanup()
print(f"equal scores: {equal} of {len(expected.score)}")

# %% tags=["nbval-ignore-output"]
chapter.record("files", len(parts))
chapter.record("size", float(parts.bytes.sum() / 1e6), unit="MB", n=len(parts))
chapter.record("faults", len(faults))
chapter.record("found", len(found))
chapter.record("exit_code", use.exit_code, runs=[best])
chapter.record("equal", equal, split="test", runs=[best])
chapter.record("scored", len(expected.score), split="test")
chapter.answer(
    "2",
    "The bundle holds {files} files in {size}. Verifying it found {faults} faults, and {found} after one bit was "
    "flipped. Unpacked elsewhere and with every connection refused, its own source and model scored the test "
    "split with exit code {exit_code}: {equal} of {scored} scores are those of this journal, to the last bit.",
)

# %% [markdown]
# ## 3 The submission checklist
#
# Computed from the files; what is missing is said to be missing.

# %% tags=["nbval-ignore-output"]
works = use.exit_code == 0 and equal == len(expected.score)
items = [
    *handover.project_items(project_root()),
    handover.Item("best checkpoint present", not faults, f"run {best.id}, best on valid of the planned networks"),
    handover.Item("best checkpoint loadable", use.exit_code == 0, "loaded by the bundle's own source, offline"),
    handover.Item("inference working", works, "on the test split, with the scores of this journal"),
]
chapter.table(handover.as_table(items), "The submission checklist.")
open_items = [item.item for item in items if not item.done]
chapter.record("items", len(items))
chapter.record("items_done", len(items) - len(open_items))
chapter.record("items_open", ", ".join(open_items) or "none")
chapter.answer("3", "Of {items} items of the checklist, {items_done} are done; open: {items_open}.")

# %%
chapter.headline(
    "{commands_working} of {commands} README commands run or are well formed; offline, the bundle scores {equal} of "
    "{scored} patches as here."
)
chapter.close()
