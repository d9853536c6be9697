"""`pcam check`: typed numbers, unanswered parts and unfinished runs are found, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcam.errors import JournalError
from pcam.journal.check import check, check_evidence, check_journal
from pcam.journal.evidence import Evidence, Value
from pcam.journal.questions import QUESTIONS
from pcam.storage import write_json

HEAD = """# %% [markdown]
# # Q4 Gradients, with 3 seeds
#
# {prose}

# %%
chapter.answer("1", "{answer}")
chapter.headline("{headline}")
{second}
"""
SECOND = 'chapter.answer("2", "See {b}.")'


def chapter(
    folder: Path, prose: str = "Text.", answer: str = "It is {a}.", headline: str = "{a}", second: str = SECOND
) -> Path:
    path = folder / "q4_gradients.py"
    path.write_text(HEAD.format(prose=prose, answer=answer, headline=headline, second=second))
    return path


@pytest.mark.parametrize(
    "prose",
    [
        "Question 4 has parts 1 and 2; Q6 follows, and so does part 3.",
        "Patches are `96 × 96` pixels; F2, uint8 and p4m are names.",
        "Veeling et al. 2018 (arXiv 1806.03962), [record](https://zenodo.org/record/2546921).",
    ],
)
def test_what_is_not_a_result_is_left_alone(tmp_path: Path, prose: str) -> None:
    assert check_journal(chapter(tmp_path, prose)) == []


@pytest.mark.parametrize(
    ("where", "text", "number"),
    [
        ("prose", "The network reaches 0.95 on test.", "0.95"),
        ("prose", "It took 12 minutes.", "12"),
        ("prose", "| mlp | 0.74 |", "0.74"),
        ("prose", "We trained on 157,286 patches.", "157,286"),
        ("answer", "ROC-AUC is 0.9.", "0.9"),
        ("headline", "Off by -3 points.", "-3"),
        ("second", 'chapter.no_evidence("2", "It was 0.9 before.")', "0.9"),
    ],
)
def test_a_typed_number_is_found(tmp_path: Path, where: str, text: str, number: str) -> None:
    findings = check_journal(chapter(tmp_path, **{where: text}))
    assert [f.problem for f in findings] == [f"the number {number} is typed by hand"]
    assert findings[0].place == f"q4_gradients.py, cell {1 if where == 'prose' else 2}"


def test_an_unanswered_part_is_found(tmp_path: Path) -> None:
    assert [str(f) for f in check_journal(chapter(tmp_path, second=""))] == [
        'q4_gradients.py: part 2 (learning-rate schedules) is not answered; call chapter.answer("2", …)'
    ]
    assert check_journal(chapter(tmp_path, second='chapter.no_evidence("2", "no GPU here")')) == []


def test_a_text_with_a_blank_question_and_a_typed_table(tmp_path: Path) -> None:
    path = tmp_path / "mine.md"
    rest = "\n\n".join(f"## Q{n} Title\n\nAn answer in words." for n in range(1, 10) if n not in (3, 7))
    path.write_text(f"{rest}\n\n## Q3 How is it configured?\n\n## Notes\n\n| run | AUC |\n|---|---|\n| a | 0.7485 |\n")
    assert [f.problem for f in check_journal(path)] == [
        "the number 0.7485 is typed by hand",
        "question 3 is left blank",
        "question 7 has no heading",
    ]
    path.write_text("## Q6 Where does it fail?\n\nOn dark slides, as the gallery shows.\n")
    assert check_journal(path, "q6_slicing") == []


def test_a_value_that_nobody_published(tmp_path: Path) -> None:
    path = tmp_path / "mine.md"
    path.write_text("## Q6 Where?\n\nIt reaches {{ q6_slicing.no_such_value }}.\n")
    assert [f.problem for f in check_journal(path, "q6_slicing")] == [
        "no evidence 'q6_slicing.no_such_value' is published"
    ]


@pytest.mark.parametrize(
    ("name", "template", "message"),
    [
        ("q4_gradients.py", "q4_gradient", r"unknown template 'q4_gradient'; did you mean 'q4_gradients'\?"),
        ("paper.pdf", None, r"paper\.pdf: a journal is a notebook \(\.ipynb, \.py\) or a text \(\.md\)"),
        ("gone.md", None, r"gone\.md: cannot be read as a journal"),
        ("gone.ipynb", None, r"gone\.ipynb: no such notebook"),
    ],
)
def test_what_is_no_journal(tmp_path: Path, name: str, template: str | None, message: str) -> None:
    with pytest.raises(JournalError, match=message):
        check_journal(tmp_path / name, template)


def test_a_template_needs_a_journal() -> None:
    with pytest.raises(JournalError, match="--template says what a --journal FILE must answer"):
        check(template="q4_gradients")


def evidence(**changes: object) -> Evidence:
    base = Evidence(
        chapter="q4_gradients", data_kind="synthetic", data={}, hardware="a machine", commit=None, dirty=None
    )
    base.answers, base.headline = {"1": "Yes.", "2": "No."}, "Yes and no."
    base.add(Value(name="a", value=1, runs=("abc",)))
    return base.model_copy(update=changes)


@pytest.mark.parametrize(
    ("state", "changes", "problems"),
    [
        ("completed", {}, []),
        ("completed", {"answers": {"1": "Yes."}, "open_parts": {"2": "no GPU"}}, []),
        ("completed", {"answers": {"1": "Yes."}}, ["part 2 is not answered"]),
        ("completed", {"headline": ""}, ["it has no one-line answer"]),
        ("interrupted", {}, ["it cites run abc, which is interrupted"]),
        (None, {}, ["run abc is cited but not in {runs}"]),
    ],
)
def test_what_a_chapter_left_behind(
    tmp_path: Path, state: str | None, changes: dict[str, object], problems: list[str]
) -> None:
    if state:
        write_json(tmp_path / "scratch" / "q4_gradients" / "twins" / "abc" / "status.json", {"state": state})
    findings = check_evidence(QUESTIONS["q4_gradients"], evidence(**changes), tmp_path)
    assert [f.problem for f in findings] == [p.replace("{runs}", str(tmp_path / "runs")) for p in problems]
