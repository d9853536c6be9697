"""The nine questions: the chapters that answer them, and the parts that each chapter must answer."""

from __future__ import annotations

from dataclasses import dataclass

from pcam.errors import JournalError, did_you_mean


@dataclass(frozen=True)
class Question:
    """One chapter.

    Attributes:
        name: the chapter's name; its notebook is `notebooks/NAME.ipynb`.
        number: the question's number, 1 to 9; the fifth has two chapters.
        title: the question as the cover asks it.
        parts: the part's number to what it must show.
    """

    name: str
    number: int
    title: str
    parts: dict[str, str]


QUESTIONS: dict[str, Question] = {
    q.name: q
    for q in (
        Question(
            "q1_reproducibility",
            1,
            "Is it reproducible?",
            {
                "1": "sources of non-determinism",
                "2": "the seeding code",
                "3": "twin runs",
                "4": "the cost of determinism",
            },
        ),
        Question(
            "q2_leakage",
            2,
            "What is in the data, and does it leak?",
            {
                "1": "splits and class balance",
                "2": "leakage and what it is worth",
                "3": "cross-validation",
                "4": "the size of the files",
                "5": "poisoning and corruption",
            },
        ),
        Question(
            "q3_configuration",
            3,
            "How is it configured?",
            {
                "1": "the parameters that matter",
                "2": "how they load",
                "3": "what a change does",
                "4": "the remaining risks",
            },
        ),
        Question(
            "q4_gradients",
            4,
            "What do gradients and the learning rate do?",
            {"1": "gradient norms and spikes", "2": "learning-rate schedules"},
        ),
        Question(
            "q5_tracking",
            5,
            "How is it tracked?",
            {
                "1": "the metrics chosen",
                "2": "mean, spread and interval over seeds",
                "3": "why ad-hoc logging does not scale",
                "4": "the tracker's set-up",
                "5": "the evidence each run holds",
                "6": "a run reproduced from its record",
                "7": "a checkpoint on new images",
                "8": "deployment risks",
            },
        ),
        Question("q5_hyperparameters", 5, "How is it tuned?", {"9": "search, champion, threshold and baselines"}),
        Question(
            "q6_slicing",
            6,
            "Where does it fail?",
            {"1": "false positives and negatives", "2": "slices", "3": "silent failure"},
        ),
        Question(
            "q7_collaboration",
            7,
            "How do we work together?",
            {
                "1": "the repository's history",
                "2": "what CI stops",
                "3": "why CPU wheels in CI",
                "4": "a merge conflict in a notebook",
            },
        ),
        Question(
            "q8_throughput",
            8,
            "How fast is it?",
            {
                "1": "how throughput is measured",
                "2": "batch size one on each device",
                "3": "scaling over batch sizes",
                "4": "the bottleneck",
            },
        ),
        Question(
            "q9_handover",
            9,
            "Can someone else run it?",
            {"1": "the README", "2": "the offline bundle", "3": "the submission checklist"},
        ),
    )
}


def find_questions(words: list[str]) -> list[Question]:
    """Return the chapters that words such as "q6", "Q5" or "q6_slicing" name, in book order; all for no word.

    Raises:
        JournalError: a word names no chapter.
    """
    if not words:
        return list(QUESTIONS.values())
    wanted: set[str] = set()
    for word in words:
        found = {name for name, q in QUESTIONS.items() if word.lower() in (name, f"q{q.number}", str(q.number))}
        if not found:
            known = {*QUESTIONS, *(f"q{q.number}" for q in QUESTIONS.values())}
            raise JournalError(f"unknown question '{word}'{did_you_mean(word.lower(), known)}")
        wanted |= found
    return [q for name, q in QUESTIONS.items() if name in wanted]
