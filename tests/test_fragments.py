"""The generated parts of the book: they say what the evidence says, and nothing that a value holds becomes markup."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from pcam.config import Config
from pcam.journal import fragments
from pcam.journal.evidence import Evidence, make_value
from pcam.journal.questions import QUESTIONS


def _evidence(name: str = "q4_gradients", **changes: object) -> Evidence:
    facts = {
        "chapter": name,
        "data_kind": "synthetic",
        "data": {"train": "ab" * 32},
        "hardware": "a machine",
        "commit": "cd" * 20,
        "dirty": False,
        "headline": "Norms fall.",
        "answers": dict.fromkeys(QUESTIONS[name].parts, "so it is"),
    }
    return Evidence.model_validate(facts | changes)


def test_values_show_number_interval_n_split_and_runs() -> None:
    chapter = _evidence()
    chapter.add(make_value("auc", 0.9531, n=1384, low=0.93, high=0.97, split="test", runs=("ef" * 32,)))
    text = fragments.values({"q4_gradients": chapter})
    assert "| `auc` | 0.953 | 1,384 | 0.930 to 0.970 | test | `efefefefefef` |" in text
    assert "## Q4" in text and "commit `cdcdcdcdcdcd`; on a machine." in text


def test_values_say_what_is_undefined_and_why() -> None:
    chapter = _evidence()
    chapter.add(make_value("auc", float("nan"), n=3, reason="one class only"))
    assert "| `auc` | undefined (one class only) | 3 |" in fragments.values({"q4_gradients": chapter})


@pytest.mark.parametrize("text", ["<script>alert()</script>", "a | b", "two\nlines"])
def test_a_value_stays_in_its_cell(text: str) -> None:
    chapter = _evidence()
    chapter.add(make_value("label", text))
    (row,) = [line for line in fragments.values({"q4_gradients": chapter}).splitlines() if "`label`" in line]
    assert row.count("|") == 7
    assert "<script>" not in row


def test_changes_that_were_not_committed_are_told() -> None:
    assert "changes that were not committed" in fragments.values({"q4_gradients": _evidence(dirty=True)})
    assert "no commit" in fragments.values({"q4_gradients": _evidence(commit=None, dirty=None)})


def test_the_cover_has_a_card_for_every_chapter() -> None:
    text = fragments.answers({"q4_gradients": _evidence()})
    assert text.count("grid-item-card") == len(QUESTIONS)
    assert text.count(":link: ") == 1
    assert "2 of 2 parts answered · synthetic data" in text


def test_a_card_names_the_parts_that_are_open() -> None:
    chapter = _evidence(answers={"1": "so it is"}, open_parts={"2": "no GPU"})
    text = fragments.answers({"q4_gradients": chapter})
    assert "answer-partial" in text
    assert "1 of 2 parts answered; no evidence yet for 2" in text


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([], "No evidence yet"),
        (["synthetic"], "Synthetic sample"),
        (["real"], "Real data"),
        (["real", "synthetic"], "Mixed data"),
    ],
)
def test_the_banner_says_which_data_the_edition_stands_on(kinds: list[str], words: str) -> None:
    names = list(QUESTIONS)
    evidence = {name: _evidence(name, data_kind=kind) for name, kind in zip(names, kinds, strict=False)}
    assert words in fragments.banner(evidence)


def test_a_run_has_all_its_plan_names_and_chapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = "ef" * 8
    record = SimpleNamespace(state="completed", config=Config())
    monkeypatch.setattr(fragments, "cited_run", lambda work, name: record)
    (tmp_path / "plan").mkdir()
    for name in ("mlp-0", "schedule-one_cycle"):
        (tmp_path / "plan" / f"{name}.json").write_text(json.dumps({"run": run, "name": name}))
    evidence = {name: _evidence(name) for name in ("q4_gradients", "q5_tracking", "q5_hyperparameters")}
    for chapter in evidence.values():
        chapter.add(make_value("done", True, runs=(run,)))
    (row,) = [line for line in fragments.runs(evidence, tmp_path).splitlines() if "efef" in line]
    assert "| mlp-0, schedule-one_cycle |" in row
    assert "[q4](" in row and "[q5 tracking](" in row and "[q5 hyperparameters](" in row
