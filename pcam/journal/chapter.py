"""What a notebook works with: its data, its runs, and the evidence and prose that it leaves behind.

chapter = open_chapter("q6_slicing", data_dir, work_dir)
run = chapter.run("cnn-0")
chapter.record("auc", 0.95, n=384, split="test", runs=[run])
chapter.answer("1", "The network reaches {auc:ci}.")
chapter.close()
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.getipython import get_ipython
from IPython.display import Markdown, display

from pcam.data.format import Split, available_splits, open_split
from pcam.errors import JournalError, did_you_mean
from pcam.journal import shown
from pcam.journal.evidence import Evidence, Value, bind, make_value, marked
from pcam.journal.plan import Plan, open_plan
from pcam.journal.questions import QUESTIONS, Question
from pcam.provenance import git_state, hardware

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from pcam.evaluation.predictions import Predictions
    from pcam.training import Run

_ASSIGNED = re.compile(r"^(\w+)(?: *:[^=\n]*)? *=", re.MULTILINE)
_INJECTED = "# Parameters\n"  # so begins the cell that papermill writes


class Chapter:
    """One chapter at work; make it with `open_chapter`.

    Attributes:
        question: its question and the parts that it must answer.
        plan: the journal's folders and planned runs.
        evidence: what has been recorded so far.
    """

    def __init__(self, question: Question, plan: Plan) -> None:
        self.question = question
        self.plan = plan
        self.splits = available_splits(plan.data_dir)
        self._runs: dict[str, Run] = {}
        fingerprints = {name: self.split(name).fingerprint() for name in self.splits}
        git = git_state()
        self.evidence = Evidence(
            chapter=question.name,
            data_kind=plan.kind,
            data=fingerprints,
            hardware=hardware(),
            commit=git.commit,
            dirty=git.dirty,
        )

    # ------------------------------------------------------------ inputs

    @property
    def data_dir(self) -> Path:
        """The data folder."""
        return self.plan.data_dir

    @property
    def work(self) -> Path:
        """The journal's work folder."""
        return self.plan.work

    @property
    def is_sample(self) -> bool:
        """Whether the data are synthetic: the chapter then shows how it is done, not what tissue looks like."""
        return self.plan.kind == "synthetic"

    def scratch(self) -> Path:
        """Return a folder for the chapter's own intermediate files (created)."""
        folder = self.work / "scratch" / self.question.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def split(self, name: str) -> Split:
        """Open one split of the data.

        Raises:
            DataError: the folder lacks it or it breaks the contract.
        """
        return open_split(self.plan.data_dir, name)

    def run(self, name: str) -> Run:
        """Return a planned run, completed; it is trained first if it is not there."""
        # Looked up once: its identity needs the whole data read, and a chapter speaks of one run under one name.
        if name not in self._runs:
            self._runs[name] = self.plan.run(name)
        return self._runs[name]

    def predictions(self, name: str, split: str) -> Predictions:
        """Return a planned run's predictions of a split; they are computed once and kept in the work folder."""
        from pcam.evaluation.predict import kept_predictions

        return kept_predictions(self.work, self.run(name), self.split(split), self.evidence.data[split])

    # ------------------------------------------------------------ evidence

    def record(self, name: str, value: Any, *, runs: Sequence[Run] = (), **details: Any) -> Any:
        """Keep a named value as evidence and return it.

        Args:
            name: an identifier, unique in the chapter; prose refers to it as `{name}`.
            value: a number, text or truth value; NaN or None is undefined and needs `reason=`.
            runs: the completed runs that it comes from.
            details: unit, n, n_positive, low, high, method, split, local, reason; see `Value`.

        Raises:
            JournalError: the name is taken, n is missing, or a run is not completed.
        """
        for run in runs:
            if run.state != "completed":
                raise JournalError(
                    f"'{name}' cites run {run.id}, which is {run.state}: only completed runs can be cited"
                )
        self.evidence.add(make_value(name, value, runs=tuple(run.id for run in runs), **details))
        return value

    def value(self, name: str) -> Value:
        """Return a recorded value."""
        return self.evidence.values[name]

    def answer(self, part: str, template: str) -> None:
        """Answer a part of the question: show the template with its values.

        Raises:
            JournalError: unknown or answered part, a typed number, or a name that is not recorded.
        """
        self._check_part(part)
        self.evidence.answers[part] = bind(template, self.evidence.values)
        display(Markdown(f"**Answer {part}.** {bind(template, self.evidence.values, marked)}"))

    def no_evidence(self, part: str, reason: str) -> None:
        """Leave a part open, saying why; the cover shows it as open."""
        self._check_part(part)
        self.evidence.open_parts[part] = reason
        display(Markdown(f"**Answer {part}.** No evidence yet: {reason}"))

    def note(self, template: str) -> None:
        """Say something beside the question's parts: show the template with its values.

        Raises:
            JournalError: a typed number, or a name that is not recorded.
        """
        display(Markdown(bind(template, self.evidence.values, marked)))

    def headline(self, template: str) -> None:
        """State the chapter's answer in one line, for the cover."""
        self.evidence.headline = bind(template, self.evidence.values)
        display(Markdown(f"**In one line.** {bind(template, self.evidence.values, marked)}"))

    def _check_part(self, part: str) -> None:
        if part not in self.question.parts:
            raise JournalError(f"{self.question.name} has no part '{part}'{did_you_mean(part, self.question.parts)}")
        if part in self.evidence.answers or part in self.evidence.open_parts:
            raise JournalError(f"{self.question.name}: part {part} is answered twice")

    # ------------------------------------------------------------ display

    def table(self, frame: pd.DataFrame, caption: str, missing: str = "undefined") -> None:
        """Show a table whose cells come from code; measures are printed as in an answer, text is escaped.

        Args:
            frame: the table.
            caption: what it shows.
            missing: what a cell without a value says: the reason, where there is one for all.
        """
        display(shown.table(frame, caption, missing), raw=True)

    def source(self, *parts: Callable[..., Any] | str, language: str = "python") -> None:
        """Show the package's own source of functions, or a text such as a file's, never a copy of it."""
        display(shown.source(*parts, language=language), raw=True)

    def figure(self, figure: Figure, alt: str) -> None:
        """Show a figure as PNG with its text alternative; one figure a cell, as the book takes one text per cell.

        Args:
            figure: it is closed afterwards.
            alt: what the figure shows, for readers who do not see it.
        """
        if not alt.strip():
            raise JournalError(f"{self.question.name}: a figure needs a text alternative")
        display(shown.figure(figure, alt), metadata={"image/png": {"alt": alt}}, raw=True)

    def banner(self) -> None:
        """Show which data the page stands on."""
        counts = ", ".join(f"{name} {len(self.split(name)):,}" for name in self.splits)
        digest = self.evidence.data[self.splits[0]][:12]
        if self.is_sample:
            text = (
                "Synthetic sample. Every number on this page comes from painted patches, not from tissue: "
                "it shows how the question is answered, not the answer."
            )
        else:
            text = f"Real data: the folder “{self.data_dir.name}”."
        facts = f"Patches: {counts}. Fingerprint of {self.splits[0]}: {digest}."
        style = f"pcam-banner pcam-{self.plan.kind}"
        block = f'<div class="{style}" role="note"><strong>{html.escape(text)}</strong> {facts}</div>'
        display({"text/html": block, "text/plain": f"{text} {facts}"}, raw=True)

    def close(self) -> None:
        """Check that every part is answered or said to be open, and write the evidence.

        Raises:
            JournalError: a part or the one-line answer is missing.
        """
        silent = set(self.question.parts) - set(self.evidence.answers) - set(self.evidence.open_parts)
        if silent:
            part = min(silent)
            raise JournalError(f"{self.question.name}: part {part} ({self.question.parts[part]}) is not answered")
        if not self.evidence.headline:
            raise JournalError(f"{self.question.name}: the one-line answer is missing; call chapter.headline(…)")
        self.evidence.save(self.work / "evidence" / f"{self.question.name}.json")
        values, runs = len(self.evidence.values), len(self.evidence.runs)
        print(f"Kept as evidence: {values} values from {runs} {'run' if runs == 1 else 'runs'}.")


def open_chapter(name: str, data_dir: str = "", work_dir: str = "") -> Chapter:
    """Start a chapter and show the banner that says which data it stands on.

    Args:
        name: the chapter, such as "q6_slicing".
        data_dir: a folder of PCam-format files; empty: the synthetic sample, made if need be.
        work_dir: the folder of generated things; empty: the project's own.

    Raises:
        JournalError: no such chapter, a folder that is not a path, or a parameter that the notebook does not declare.
        DataError: no such data.
    """
    _refuse_unknown_parameters()
    for parameter, value in (("data_dir", data_dir), ("work_dir", work_dir)):
        if not isinstance(value, str | Path):  # papermill reads `-p data_dir 3` as a number
            raise JournalError(f"{parameter} is {value!r}, not a path; give a folder's name, with -r for one of digits")
    if name not in QUESTIONS:
        raise JournalError(f"unknown chapter '{name}'{did_you_mean(name, QUESTIONS)}")
    # What training logs is for a terminal; on a page it would show the paths of one machine.
    logging.getLogger("pcam").addHandler(logging.NullHandler())
    chapter = Chapter(QUESTIONS[name], open_plan(data_dir, work_dir))
    chapter.banner()
    return chapter


def _refuse_unknown_parameters() -> None:
    # Plain papermill only warns of a mistyped `-p data_dri DIR`, and the page would show the sample's results.
    shell = get_ipython()
    cells = [str(cell) for cell in shell.user_ns.get("In", [])] if shell else []
    injected = [cell for cell in cells if cell.startswith(_INJECTED)]
    declared = {name for cell in cells if cell not in injected for name in _ASSIGNED.findall(cell)}
    unknown = [name for name in _ASSIGNED.findall("\n".join(injected)) if name not in declared]
    if unknown and declared:
        raise JournalError(f"unknown parameter '{unknown[0]}'{did_you_mean(unknown[0], declared)}")
