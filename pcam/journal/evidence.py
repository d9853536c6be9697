"""Evidence: named values with their provenance, and prose that is bound to them.

A sentence about a result is a template, `"ROC-AUC is {auc:ci}"`; the number comes from the value of that
name and carries its interval and n. A digit typed into a template is refused, so the prose cannot say what
no run said.

    {name}      the value with its unit           0.953
    {name:ci}   with its interval and n           0.953 (95 % interval 0.931 to 0.970, n = 384)
    {name:n}    its n                             384
    {name:is|is not}    a truth value in words     is not
"""

from __future__ import annotations

import html
import math
import re
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pcam.errors import JournalError, did_you_mean
from pcam.storage import read_json, write_json

# A number stands alone: "F2", "p4m", "uint8" and what is set as code are names.
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.-])[-+±]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?(?![A-Za-z0-9_])")
_CODE = re.compile(r"`[^`]*`")


class Value(BaseModel):
    """One named value and where it comes from.

    Attributes:
        name: unique in its chapter; a Python identifier.
        value: a number, text, truth value, or None when undefined (then `reason` says why).
        unit: such as "s" or "images/s"; empty for a ratio or a count.
        n: how many patches, runs or repeats it stands on; required for a measured (float) value.
        low, high: the 95 % interval; `method` says how it was made.
        split: the split it is about.
        runs: ids of the completed runs it comes from.
        local: whether it tells of this machine or moment, such as a time, a load or a number of cores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    value: bool | int | float | str | None
    unit: str = ""
    n: int | None = None
    n_positive: int | None = None
    low: float | None = None
    high: float | None = None
    method: str = ""
    split: str | None = None
    runs: tuple[str, ...] = ()
    local: bool = False
    reason: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Value:
        if not self.name.isidentifier():
            raise ValueError("its name must be an identifier, such as mean_auc")
        if isinstance(self.value, float) and self.n is None:
            raise ValueError("a measured value needs n: how many patches, runs or repeats it stands on")
        if self.value is None and not self.reason:
            raise ValueError("an undefined value needs a reason")
        if (self.low is None) != (self.high is None) or (self.low is not None and self.n is None):
            raise ValueError("an interval needs both ends and n")
        return self

    @property
    def varies(self) -> bool:
        """Whether another machine may say otherwise: weights and times differ there, verdicts of runs must not."""
        return self.local or (bool(self.runs) and not isinstance(self.value, bool))

    @property
    def interval(self) -> str:
        """Both ends of the interval as they stand beside the value, with as many decimals; empty where it has none."""
        if self.low is None or self.high is None:
            return ""
        beside = self.value if isinstance(self.value, float) else None
        return f"{format_number(self.low, beside)} to {format_number(self.high, beside)}"

    def __format__(self, style: str) -> str:
        if style == "n":
            return format_number(self.n)
        true, either, false = style.partition("|")
        if either and isinstance(self.value, bool) and not typed_numbers(style):
            return true if self.value else false
        text = format_number(self.value)
        if self.value is None:
            text = f"undefined ({self.reason})"
        elif self.unit:
            text += f" {self.unit}"
        if style == "ci" and self.low is not None:
            text += f" (95 % interval {self.interval}, n = {self.n:,})"
        elif style == "ci" and self.n is not None:
            text += f" (n = {self.n:,})"
        elif style not in ("", "ci"):
            raise JournalError(
                f"'{{{self.name}:{style}}}': write {{{self.name}}}, :ci for its interval, :n for its n "
                "or, for a truth value, two words such as :is|is not"
            )
        return text


class Evidence(BaseModel):
    """All that one chapter says, with what it stands on.

    Attributes:
        chapter: the chapter's name.
        data_kind: "synthetic" or "real".
        data: fingerprint of each split by its name.
        hardware, commit, dirty: where and from which code the chapter was run.
        values: recorded values by name.
        answers: part → rendered answer.
        open_parts: part → why there is no evidence yet.
        headline: the one-line answer for the cover.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    chapter: str
    data_kind: str
    data: dict[str, str]
    hardware: str
    commit: str | None
    dirty: bool | None
    values: dict[str, Value] = {}
    answers: dict[str, str] = {}
    open_parts: dict[str, str] = {}
    headline: str = ""

    @property
    def runs(self) -> list[str]:
        """The ids of all runs that a value cites, sorted."""
        return sorted({run for value in self.values.values() for run in value.runs})

    def add(self, value: Value) -> None:
        """Keep a value.

        Raises:
            JournalError: a value of that name is there already.
        """
        if value.name in self.values:
            raise JournalError(f"{self.chapter}: '{value.name}' is recorded twice; give the second another name")
        self.values[value.name] = value

    def save(self, path: Path | str) -> None:
        """Write the evidence as JSON, atomically."""
        write_json(path, self.model_dump(mode="json"))


def load_evidence(path: Path | str) -> Evidence:
    """Read a chapter's evidence.

    Raises:
        StorageError: it is missing or not JSON.
        JournalError: it is not evidence.
    """
    try:
        return Evidence.model_validate(read_json(path, "evidence"))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise JournalError(f"{path}: '{where}': {problem['msg']}; run the chapter again") from error


def format_number(value: bool | int | float | str | None, beside: float | None = None) -> str:
    """Return a value as the book prints it: counts with thousands separators, measures with about three digits.

    Args:
        value: what is printed.
        beside: a measure that it stands beside, whose decimals it takes.
    """
    if value is None:
        return "undefined"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "undefined"
    decimals = _decimals(value if beside is None else beside)
    return f"{value:.1e}" if decimals is None else f"{value:,.{decimals}f}"


def _decimals(value: float) -> int | None:
    """Return how many decimals a measure is printed with; None: as a power of ten."""
    size = abs(value)
    if size and (size < 1e-4 or size >= 1e7):
        return None
    if size >= 100:
        return 0
    # Two digits of what three decimals would hide, and no third decimal behind two digits.
    return 1 if size >= 10 else 3 if size >= 0.001 or not size else 5


def typed_numbers(text: str) -> list[str]:
    """Return the numbers typed into prose: not in `code`, not in {placeholders}, not part of a name such as F2."""
    text = _CODE.sub(" ", text)
    return _NUMBER.findall(re.sub(r"\{[^{}]*\}", " ", text))


def bind(template: str, values: Mapping[str, Value], show: Callable[[Value, str], str] = format) -> str:
    """Return a template with each `{name}` replaced by the recorded value.

    Args:
        template: the prose.
        values: what is recorded, by name.
        show: how a value is written in a given style; inside `code`, where no markup counts, it is plain text.

    Raises:
        JournalError: a number is typed into the template, or a name is not recorded.
    """
    numbers = typed_numbers(template)
    if numbers:
        raise JournalError(f"'{numbers[0]}' is typed into “{template.strip()[:60]}…”: record the value and name it")
    out = []
    for literal, name, style, _ in string.Formatter().parse(template):
        out.append(literal)
        if name is None:
            continue
        if name not in values:
            raise JournalError(f"“{template.strip()[:60]}…”: no value '{name}' is recorded{did_you_mean(name, values)}")
        in_code = "".join(out).count("`") % 2 == 1
        out.append((format if in_code else show)(values[name], style or ""))
    return "".join(out)


def marked(value: Value, style: str) -> str:
    """Return a value as HTML that says, where a reader points at it, which evidence it is.

    A value that another machine may not repeat is marked as such: the comparison of stored outputs leaves it out.
    """
    facts = [value.name]
    facts += [f"{value.split} split"] if value.split else []
    facts += [f"n = {value.n:,}"] if value.n is not None else []
    facts += [f"run{'s' if len(value.runs) > 1 else ''} {', '.join(value.runs)}"] if value.runs else []
    kind = "pcam-value varies" if value.varies else "pcam-value"
    return f'<span class="{kind}" title="{html.escape(" · ".join(facts))}">{value:{style}}</span>'


def make_value(name: str, value: Any, **details: Any) -> Value:
    """Build a `Value` from plain or NumPy numbers; a NaN becomes undefined.

    Raises:
        JournalError: it lacks n, a reason or an end of its interval.
    """
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    try:
        return Value(name=name, value=value, **details)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "value"
        raise JournalError(f"evidence '{name}': {where}: {problem['msg'].removeprefix('Value error, ')}") from error
