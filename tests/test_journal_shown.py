"""Tables as prose would have them, and source that is neither cut nor begun anew at the margin."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pcam.journal import shown


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (True, "yes"),
        (np.False_, "no"),
        (1024, "1,024"),
        (np.int64(28312952), "28,312,952"),
        (0.123456, "0.123"),
        (np.float32(60.9213), "60.9"),
        (0.00058, "0.00058"),
        (4.8e-6, "4.8e-06"),
        (10256.657, "10,257"),
        ("roc_auc", "ROC-AUC"),
        ("one_cycle", "one_cycle"),
        (None, "undefined"),
        (pd.NA, "undefined"),
        (float("nan"), "undefined"),
    ],
)
def test_cells(cell: Any, text: str) -> None:
    found = shown.table(pd.DataFrame({"a": pd.Series([cell], dtype=object), "b": ["x"]}), "Cells")
    assert f"<td>{text}</td>" in found["text/html"].replace("<wbr>", "")
    assert text in found["text/plain"]


def test_a_count_beside_a_missing_one_is_no_measure() -> None:
    found = shown.table(pd.DataFrame({"n": pd.array([1024, None], dtype="Int64")}), "Counts", missing="no labels")
    assert "<td>1,024</td>" in found["text/html"] and "<td>no labels</td>" in found["text/html"]
    assert "NA" not in found["text/plain"] and "undefined" not in found["text/plain"]


def test_columns_are_words_and_keys_stay() -> None:
    found = shown.table(pd.DataFrame({"f_beta": [0.5], "best_so_far": [0.5], "train.batch_size": [8]}), "Columns")
    heads = found["text/html"].replace("<wbr>", "")
    assert all(f"<th>{name}</th>" in heads for name in ("F-beta", "best so far", "train.batch_size"))


@pytest.mark.parametrize(
    ("name", "html"),
    [
        ("test_same_seed", "test_<wbr>same_<wbr>seed"),
        ("train.batch_size", "train.<wbr>batch_<wbr>size"),
        ("1.65.2", "1.65.2"),
        ("conflicts in .py", "conflicts in .py"),
        (".venv/bin", ".venv/bin"),
    ],
)
def test_where_a_name_may_be_broken(name: str, html: str) -> None:
    assert f"<td>{html}</td>" in shown.table(pd.DataFrame({"name": [name]}), "Names")["text/html"]


def test_paragraphs_of_a_text_flow_and_columns_stay() -> None:
    text = "One paragraph\nof two lines.\n\n    a.yaml    what <it> holds\n    b.yaml    else\n"
    found = shown.source(text, language="text")
    insets = re.findall(r"padding-left:min\((\d+)ch", found["text/html"])
    assert insets == ["0", "0", "14", "14"]
    assert "One paragraph of two lines." in found["text/html"] and "One paragraph\nof" in found["text/plain"]


def test_each_line_of_source_hangs_from_its_own_inset() -> None:
    found = shown.source("def f(x):\n    return x\n", "a: 1", language="python")
    assert found["text/plain"] == "def f(x):\n    return x\n\n\na: 1\n"
    insets = re.findall(r"padding-left:min\((\d+)ch,40vw\);text-indent:calc\(-1\*min\((\d+)ch", found["text/html"])
    assert insets == [(inset, inset) for inset in ("4", "8", "4", "4", "4")]
    kept = re.sub(r"<style>.*?</style>|<[^>]*>", "", found["text/html"], flags=re.DOTALL)
    assert kept.strip() == found["text/plain"].strip()
