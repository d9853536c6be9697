"""How tables, figures and source code look on a page.

A table's cells are words and numbers as prose would have them: "yes", "1,024", "ROC-AUC", and where a cell has
nothing to say, the reason instead of an empty place.
"""

from __future__ import annotations

import html
import inspect
import io
import re
from numbers import Integral
from typing import TYPE_CHECKING, Any

from IPython.display import Code

from pcam.journal.evidence import format_number

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from matplotlib.figure import Figure

# Names of the package's columns and metrics that prose spells otherwise than with spaces for underscores.
_SPELT = {
    "roc_auc": "ROC-AUC",
    "valid_auc": "valid ROC-AUC",
    "pr_auc": "PR-AUC",
    "f_beta": "F-beta",
    "all_positive_f_beta": "F-beta, all positive",
    "train_loss": "train loss",
    "valid_loss": "valid loss",
    "valid_accuracy": "valid accuracy",
    "brier": "Brier score",
    "nll": "negative log-likelihood",
    "tp": "TP",
    "fp": "FP",
    "tn": "TN",
    "fn": "FN",
}
# Where a long name in a table may be broken, so that its column leaves room for the others.
_WITHIN_NAME = re.compile(r"(?<=\w)(?:_(?=\w)|\.(?=[a-z]))")
_LINES = re.compile(r"(<pre>)(?:<span></span>)?(.*?)\n*(</pre>)", re.DOTALL)
_WITHIN_PARAGRAPH = re.compile(r"(?<=\S)\n(?=\S)")
_BETWEEN_COLUMNS = re.compile(r" {2,}")
_HANG = 4  # characters by which the rest of a line that is too long is set in


def table(frame: pd.DataFrame, caption: str, missing: str = "undefined") -> dict[str, str]:
    """Return a table as HTML and plain text; text is escaped.

    Args:
        frame: its column names and cells are written as prose has them.
        caption: what it shows.
        missing: what a cell without a value says: the reason, where there is one for all.
    """
    # As objects, so that one kind of cell is printed alike in every column, and a missing count is no float.
    cells = frame.astype(object).map(lambda cell: _cell(cell, missing)).rename(columns=_spelt)
    rows = cells.to_html(index=False, border=0, escape=True, classes="pcam-table")
    rows = rows.replace("<thead>", f"<caption>{html.escape(caption)}</caption>\n<thead>", 1)
    shown = f'<div class="pcam-scroll">{_WITHIN_NAME.sub(_breakable, rows)}</div>'
    return {"text/html": shown, "text/plain": f"{caption}\n{cells.to_string(index=False)}"}


def _cell(cell: Any, missing: str) -> str:
    import pandas as pd

    if isinstance(cell, str):
        return _SPELT.get(cell, cell)
    if pd.isna(cell):
        return missing
    plain = cell.item() if hasattr(cell, "item") else cell
    if isinstance(plain, Integral) and not isinstance(plain, bool):
        return f"{plain:,}"
    return format_number(plain)


def _spelt(column: str) -> str:
    # A key such as train.batch_size is written as it is typed.
    return column if "." in column else _SPELT.get(column, column.replace("_", " "))


def _breakable(found: re.Match[str]) -> str:
    return f"{found[0]}<wbr>"


def figure(drawn: Figure, alt: str) -> dict[str, Any]:
    """Return a figure as PNG, with its text alternative as plain text; the figure is closed."""
    import matplotlib.pyplot as plt
    from PIL import Image

    sheet, packed = io.BytesIO(), io.BytesIO()
    drawn.savefig(sheet, format="png", dpi=110, bbox_inches="tight")
    plt.close(drawn)
    # A palette of 256 colours makes sheets of patches a third of the size, with no difference to the eye.
    # Written without a name of any software, the same picture is the same file.
    Image.open(sheet).convert("RGB").quantize(256).save(packed, format="png", optimize=True)
    return {"image/png": packed.getvalue(), "text/plain": alt}


def source(*parts: Callable[..., Any] | str, language: str = "python") -> dict[str, str]:
    """Return the source of functions, or plain texts, as HTML in colours and as plain text.

    A line that is too long for the page goes on below, set in: it is neither cut nor begun anew at the margin. In a
    text (`language="text"`) it goes on in its column, and lines of one paragraph flow.
    """
    texts = [part if isinstance(part, str) else inspect.getsource(part) for part in parts]
    text = "\n\n".join(part.strip("\n") + "\n" for part in texts)
    flowing = _WITHIN_PARAGRAPH.sub(" ", text) if language == "text" else text
    inset = _column if language == "text" else _statement
    coloured = Code(flowing, language=language)._repr_html_()
    return {"text/html": _LINES.sub(lambda found: _hanging(found, inset), coloured), "text/plain": text}


def _statement(line: str) -> int:
    return len(line) - len(line.lstrip()) + _HANG


def _column(line: str) -> int:
    columns = list(_BETWEEN_COLUMNS.finditer(line))
    return columns[-1].end() if columns else 0


def _hanging(found: re.Match[str], inset_of: Callable[[str], int]) -> str:
    lines = []
    for line in found[2].split("\n"):
        inset = inset_of(html.unescape(re.sub(r"<[^>]*>", "", line)))
        # The style stands here and not in the book's, as a notebook is read outside of the book too.
        width = f"min({inset}ch,40vw)"  # on a phone a column may be as wide as the page
        hang = f"padding-left:{width};text-indent:calc(-1*{width})"
        style = f"display:block;white-space:pre-wrap;overflow-wrap:anywhere;{hang}"
        lines.append(f'<span style="{style}">{line}\n</span>')
    return f"{found[1]}{''.join(lines)}{found[3]}"
