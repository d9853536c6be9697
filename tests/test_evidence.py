"""Evidence: complete values, and prose that cannot say what no run said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pcam.errors import JournalError
from pcam.journal.evidence import Evidence, Value, bind, load_evidence, make_value, marked, typed_numbers

VALUES = {
    v.name: v
    for v in (
        make_value("auc", 0.95312, n=384, low=0.931, high=0.97),
        make_value("seconds", 12.5, unit="s", n=3),
        make_value("patches", 262144),
        make_value("same", True),
        make_value("gap", None, reason="one class only"),
        make_value("name", "<script>alert(1)</script>"),
        make_value("small", 0.00012, n=5),
        make_value("wide", 11.5484, unit="s", n=3, low=9.3482, high=14.2651),
    )
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("AUC {auc}", "AUC 0.953"),
        ("AUC {auc:ci}", "AUC 0.953 (95 % interval 0.931 to 0.970, n = 384)"),
        ("{auc:n} patches", "384 patches"),
        ("took {seconds}", "took 12.5 s"),
        ("took {seconds:ci}", "took 12.5 s (n = 3)"),
        ("{patches} patches", "262,144 patches"),
        ("identical: {same}", "identical: yes"),
        ("they {same:agree|differ}", "they agree"),
        ("gap {gap}", "gap undefined (one class only)"),
        ("run {name}", "run &lt;script&gt;alert(1)&lt;/script&gt;"),
        ("p = {small}", "p = 0.00012"),
        ("took {wide:ci}", "took 11.5 s (95 % interval 9.3 to 14.3, n = 3)"),
        ("F2 and `p < 0.05` in Q6", "F2 and `p < 0.05` in Q6"),
    ],
)
def test_bind(template: str, text: str) -> None:
    assert bind(template, VALUES) == text


@pytest.mark.parametrize(
    ("details", "kind"),
    [
        ({"value": 0.5, "n": 3, "runs": ("ab", "cd")}, "pcam-value varies"),
        ({"value": 0.5, "n": 3, "local": True}, "pcam-value varies"),
        ({"value": 384}, "pcam-value"),
        ({"value": True, "runs": ("ab",)}, "pcam-value"),
    ],
)
def test_a_shown_value_says_whether_another_machine_may_differ(details: dict[str, object], kind: str) -> None:
    shown = bind("It is {it}.", {"it": Value.model_validate({"name": "it", **details})}, marked)
    assert shown.startswith(f'It is <span class="{kind}" title="it')


def test_a_shown_value_names_its_evidence() -> None:
    value = make_value("auc", 0.95312, n=1384, low=0.931, high=0.97, split="test", runs=("ab", "cd"))
    title = 'title="auc · test split · n = 1,384 · runs ab, cd"'
    text = "0.953 (95 % interval 0.931 to 0.970, n = 1,384)"
    assert marked(value, "ci") == f'<span class="pcam-value varies" {title}>{text}</span>'


def test_within_code_a_value_is_plain_text() -> None:
    assert bind("run `{patches}` of {same}", VALUES, marked) == (
        'run `262,144` of <span class="pcam-value" title="same">yes</span>'
    )


@pytest.mark.parametrize(
    "template", ["it is 0.95", "over 3 seeds", "96×96 patches", "x=3", "-1.5e-3", "99 %", "12,000"]
)
def test_typed_number_is_refused(template: str) -> None:
    with pytest.raises(JournalError, match="is typed into"):
        bind(template, VALUES)


def test_unknown_name_suggests_one() -> None:
    with pytest.raises(JournalError, match=r"no value 'acu' is recorded; did you mean 'auc'\?"):
        bind("{acu}", VALUES)


@pytest.mark.parametrize("text", ["uint8", "p4m", "F2", "Q6", "`96`", "{auc}", "no digits"])
def test_names_are_not_numbers(text: str) -> None:
    assert typed_numbers(text) == []


@pytest.mark.parametrize(
    ("name", "value", "details", "message"),
    [
        ("auc", 0.5, {}, "needs n"),
        ("auc", None, {}, "needs a reason"),
        ("auc", float("nan"), {"n": 3}, "needs a reason"),
        ("auc", 0.5, {"n": 3, "low": 0.1}, "needs both ends"),
        ("mean auc", 0.5, {"n": 3}, "must be an identifier"),
        ("auc", 0.5, {"n": 3, "splt": "test"}, "splt: Extra inputs are not permitted"),
    ],
)
def test_incomplete_value_is_refused(name: str, value: float, details: dict[str, object], message: str) -> None:
    with pytest.raises(JournalError, match=message):
        make_value(name, value, **details)


@pytest.mark.parametrize(("value", "kind"), [(np.float32(0.5), float), (np.int64(3), int), (np.bool_(True), bool)])
def test_numpy_numbers_become_plain(value: np.generic, kind: type) -> None:
    assert type(make_value("x", value, n=1).value) is kind


def evidence() -> Evidence:
    return Evidence(chapter="q1", data_kind="synthetic", data={}, hardware="a CPU", commit=None, dirty=None)


def test_value_recorded_twice_is_refused() -> None:
    chapter = evidence()
    chapter.add(VALUES["auc"])
    with pytest.raises(JournalError, match="'auc' is recorded twice"):
        chapter.add(VALUES["auc"])


def test_evidence_survives_a_round_trip(tmp_path: Path) -> None:
    chapter = evidence()
    for value in VALUES.values():
        chapter.add(value)
    chapter.add(Value(name="cited", value=1, runs=("b", "a")))
    chapter.save(tmp_path / "q1.json")
    assert load_evidence(tmp_path / "q1.json") == chapter
    assert chapter.runs == ["a", "b"]


def test_damaged_evidence_is_named(tmp_path: Path) -> None:
    (tmp_path / "q1.json").write_text('{"chapter": "q1"}')
    with pytest.raises(JournalError, match=r"q1\.json: 'data_kind': Field required; run the chapter again"):
        load_evidence(tmp_path / "q1.json")
