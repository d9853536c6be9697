"""The plan and the nine questions."""

from __future__ import annotations

import functools
import signal
from pathlib import Path

import pytest

from pcam.config import config_hash
from pcam.data import open_split, synthetic
from pcam.errors import ConfigError, DataError, JournalError, RunError
from pcam.journal import plan as plan_module
from pcam.journal.plan import open_plan, work_root
from pcam.journal.questions import QUESTIONS, find_questions
from pcam.storage import write_text
from pcam.training.stop import Interrupted, StopRequest


def test_ten_chapters_answer_nine_questions() -> None:
    assert len(QUESTIONS) == 10
    assert {q.number for q in QUESTIONS.values()} == set(range(1, 10))
    fifth = [q for q in QUESTIONS.values() if q.number == 5]
    assert sorted((part for q in fifth for part in q.parts), key=int) == [str(i) for i in range(1, 10)]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["q6"], ["q6_slicing"]),
        (["Q5"], ["q5_tracking", "q5_hyperparameters"]),
        (["9", "q1_reproducibility"], ["q1_reproducibility", "q9_handover"]),
        ([], list(QUESTIONS)),
    ],
)
def test_find_questions(words: list[str], names: list[str]) -> None:
    assert [q.name for q in find_questions(words)] == names


def test_unknown_question_suggests_one() -> None:
    with pytest.raises(JournalError, match=r"unknown question 'q6_slicin'; did you mean 'q6_slicing'\?"):
        find_questions(["q6_slicin"])


def test_plan_of_a_folder(tiny: Path, tmp_path: Path) -> None:
    plan = open_plan(tiny, tmp_path)
    assert plan.kind == "synthetic" and plan.data_dir == tiny and plan.work.parent == tmp_path
    assert {"cnn-0", "cnn-1", "cnn-2", "mlp-0"} <= plan.runs.keys()
    assert plan.planned("cnn-1").config().seed == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"journal\.yaml: 'all of it': Input should be a valid dictionary.*; write a run as 'cnn-0: "),
        ("runs: 3\nsynthetic: {}", r"'runs': Input should be a valid dictionary"),
        ("runs: {a: {preset: cnn}}\nsynthetic: {}", r"'runs\.a\.set': Field required"),
        ("runs: {a: {preset: cnn, set: seed=0}}\nsynthetic: {}", r"'runs\.a\.set': Input should be a valid list"),
        ("runs: {a: {preset: cnn, set: [3]}}\nsynthetic: {}", r"'runs\.a\.set\.0': Input should be a valid string"),
        ("runs: {a: {preset: cnn, sets: []}}\nsynthetic: {}", r"'runs\.a\.set': Field required"),
        ("runs: {}\nsynthetic: {cnnn: []}", r"synthetic: unknown preset 'cnnn'; did you mean 'cnn'\?"),
    ],
)
def test_a_plan_that_is_not_well_formed(
    text: str, message: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "configs" / "journal.yaml", text)
    monkeypatch.setattr(plan_module, "project_root", lambda: tmp_path)
    with pytest.raises(ConfigError, match=message):
        open_plan(tiny, tmp_path)


def test_planned_runs_have_distinct_names_and_valid_configs(tiny: Path, tmp_path: Path) -> None:
    plan = open_plan(tiny, tmp_path)
    seeds = {config_hash(plan.planned(f"cnn-{seed}").config()) for seed in range(3)}
    assert len(seeds) == 3


def test_two_folders_of_one_name_do_not_share_a_journal(tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / tiny.name
    other.parent.mkdir()
    other.symlink_to(tiny)
    copy = tmp_path / "copy" / tiny.name
    copy.mkdir(parents=True)
    for path in tiny.iterdir():
        (copy / path.name).symlink_to(path)
    works = [open_plan(folder, tmp_path).work for folder in (tiny, other, copy)]
    assert works[0] == works[1] != works[2]


def test_outdated_sample_of_the_journal_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = functools.partial(synthetic.write_sample, train=4, valid=2, test=2)
    monkeypatch.setattr(synthetic, "write_sample", whole)
    folder = open_plan(None, tmp_path).data_dir
    marker = folder / "sample.json"
    marker.write_text(marker.read_text().replace('"generator": ', '"generator": 9'))
    assert open_split(open_plan(None, tmp_path).data_dir, "train").fingerprint()
    assert '"generator": 9' not in marker.read_text()
    marker.unlink()
    with pytest.raises(DataError, match="not a synthetic sample"):
        open_plan(None, tmp_path)


def test_an_interrupted_run_names_a_mend_that_the_journal_has(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: StopRequest) -> None:
        self.number = signal.SIGTERM

    plan = open_plan(tiny, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__init__", stopped)
        with pytest.raises(Interrupted, match=r"SIGTERM after step .*; the same command again continues it$"):
            plan.run("mlp-0")
    assert plan.run("mlp-0").state == "completed"


def test_a_run_that_lost_its_model_is_not_handed_out(tiny: Path, tmp_path: Path) -> None:
    plan = open_plan(tiny, tmp_path)
    model = plan.run("mlp-0").path / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    with pytest.raises(RunError, match=r"model\.safetensors is damaged; restore it, or remove the folder .* again"):
        plan.run("mlp-0")
    model.unlink()
    with pytest.raises(RunError, match=r"model\.safetensors is missing; restore it, or remove the folder"):
        plan.run("mlp-0")


def test_unknown_run_suggests_one(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"plans no run 'cnn-O'; did you mean 'cnn-[012]'\?"):
        open_plan(tiny, tmp_path).planned("cnn-O")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such data folder"):
        open_plan(tmp_path / "nowhere", tmp_path)


def test_work_root_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCAM_WORK", str(tmp_path))
    assert work_root() == tmp_path
