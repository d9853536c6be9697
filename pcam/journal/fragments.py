"""The generated parts of the book: the cover's answers, the banner about the data, the values and the runs.

They are plain Markdown, made from evidence and run records alone, so that the cover cannot say anything that a
chapter did not compute.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

from pcam.config import config_hash
from pcam.journal.citations import cited_run
from pcam.journal.evidence import Evidence
from pcam.journal.questions import QUESTIONS, Question
from pcam.storage import read_json

_SHORT = 12  # hex digits of a hash that are shown: enough to tell a few thousand runs apart


def _status(question: Question, evidence: Evidence) -> tuple[str, str]:
    """Return the CSS class and the words for how much of a question is answered."""
    answered, total = len(evidence.answers), len(question.parts)
    words = f"{answered} of {total} {'part' if total == 1 else 'parts'} answered"
    if evidence.open_parts:
        words += f"; no evidence yet for {', '.join(sorted(evidence.open_parts))}"
    level = "complete" if answered == total else "partial"
    return f"answer-{level}", f"{words} · {evidence.data_kind} data"


def answers(evidence: Mapping[str, Evidence]) -> str:
    """Return the cover's cards: each chapter's question, one-line answer and status, linked to its page.

    Args:
        evidence: by chapter name; a chapter without any is shown as such and is not linked.
    """
    cards = []
    for question in QUESTIONS.values():
        found = evidence.get(question.name)
        level, status = _status(question, found) if found else ("answer-missing", "no evidence yet")
        link = f":link: questions/{question.name}\n:link-type: doc\n" if found else ""
        topic = question.name.partition("_")[2].capitalize()
        cards.append(
            f"::::{{grid-item-card}}\n:class-card: answer {level}\n{link}\n"
            f"{{.answer-number}}\nQ{question.number} · {topic}\n\n"
            f"{{.answer-question}}\n{question.title}\n\n"
            f"{{.answer-line}}\n{found.headline if found else 'No evidence yet.'}\n\n"
            f":::{{card-footer}}\n{status}\n:::\n::::\n"
        )
    return ":::::{grid} 1 1 2 2\n:gutter: 3\n:class-container: answers\n\n" + "\n".join(cards) + ":::::\n"


def banner(evidence: Mapping[str, Evidence]) -> str:
    """Return the note that says which data this edition of the book stands on."""
    kinds = {e.data_kind for e in evidence.values()}
    if kinds == {"real"}:
        text = "<strong>Real data.</strong> The numbers of this edition come from real patches."
    elif kinds == {"synthetic"}:
        text = (
            "<strong>Synthetic sample.</strong> The numbers of this edition come from painted patches, not from "
            "tissue: they show how each question is answered, not the answer."
        )
    elif kinds:
        text = (
            "<strong>Mixed data.</strong> Some chapters stand on real patches, some on painted ones; each says which."
        )
    else:
        return "*No evidence yet: no chapter has been run for this book.*\n"
    kind = kinds.pop() if len(kinds) == 1 else "synthetic"
    return f'<div class="pcam-banner pcam-{kind}" role="note">{text}</div>\n'


def values(evidence: Mapping[str, Evidence]) -> str:
    """Return every named value of every chapter with what it stands on: what the prose's numbers are bound to."""
    if not evidence:
        return "*No evidence yet: no chapter has been run for this book.*\n"
    return "\n".join(_chapter_values(QUESTIONS[name], chapter) for name, chapter in evidence.items())


def _chapter_values(question: Question, chapter: Evidence) -> str:
    prints = ", ".join(f"{split} `{digest[:_SHORT]}`" for split, digest in chapter.data.items())
    commit = f"commit `{chapter.commit[:_SHORT]}`" if chapter.commit else "no commit"
    changed = ", with changes that were not committed" if chapter.dirty else ""
    rows = ["| name | value | n | 95 % interval | split | runs |", "|---|---|---|---|---|---|"]
    for value in chapter.values.values():
        cited = " ".join(f"`{run[:_SHORT]}`" for run in dict.fromkeys(value.runs))
        cells = (
            f"`{value.name}`",
            f"{value}",
            f"{value:n}" if value.n else "",
            value.interval,
            value.split or "",
            cited,
        )
        rows.append(f"| {' | '.join(' '.join(cell.split()).replace('|', '&#124;') for cell in cells)} |")
    stands_on = f"{chapter.data_kind.capitalize()} data, fingerprints {prints}; {commit}{changed}; on "
    heading = f"## Q{question.number} {question.title}\n\n{stands_on}{html.escape(chapter.hardware)}.\n\n"
    return heading + "\n".join(rows) + "\n"


def runs(evidence: Mapping[str, Evidence], work: Path) -> str:
    """Return the table of all runs that the chapters cite, from the runs' own records.

    Raises:
        JournalError: a cited run is missing.
    """
    cited: dict[str, list[str]] = {}
    for name, chapter in evidence.items():
        for run in chapter.runs:
            cited.setdefault(run, []).append(name)
    if not cited:
        return "*No evidence yet: no run has been recorded for this book.*\n"
    names = _plan_names(work)
    kinds = {run: evidence[chapters[0]].data_kind for run, chapters in cited.items()}
    rows = [
        "| run | plan | state | model | seed | config hash | data | cited by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run, chapters in sorted(cited.items(), key=lambda item: (names.get(item[0], "~"), item[0])):
        record = cited_run(work, run)
        pages = ", ".join(f"[{_short_name(n)}](questions/{n}.ipynb)" for n in chapters)
        cells = (
            f"`{run[:_SHORT]}`",
            html.escape(names.get(run, "—")),
            record.state,
            record.config.model.name,
            str(record.config.seed),
            f"`{config_hash(record.config)[:_SHORT]}`",
            kinds[run],
            pages,
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _short_name(chapter: str) -> str:
    """Return "q6", or "q5 tracking" where a question has two chapters."""
    number, _, topic = chapter.partition("_")
    return number if sum(name.startswith(f"{number}_") for name in QUESTIONS) == 1 else f"{number} {topic}"


def _plan_names(work: Path) -> dict[str, str]:
    """Return the names of each planned run; a run may be planned under several, as its name is that of what it is."""
    names: dict[str, list[str]] = {}
    for path in sorted((work / "plan").glob("*.json")):
        entry = read_json(path, "plan entry")
        names.setdefault(entry["run"], []).append(entry["name"])
    return {run: ", ".join(of_run) for run, of_run in names.items()}
