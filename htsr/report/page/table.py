"""The table of a page: its columns with their meaning, and every cell as a number and as people read it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from htsr.audit.columns import Column
from htsr.audit.explanations import EXPLANATIONS
from htsr.report.save import plain
from htsr.text import visible

# A page shortens a longer text, such as the name of a stranger's layer, in the middle.
MAX_TEXT = 1000
# Texts that are too long for a cell; the panel of a layer shows them.
LONG = ("longname", "phase_evidence", "change_evidence", "findings", "reason", "trap_elements")


def table_of(details: pd.DataFrame, columns: Mapping[str, Column], shown: Sequence[str]) -> dict[str, Any]:
    """Return columns and cells of a table for a page; a column that nothing fills is left out.

    ``texts`` holds every cell as a person reads it, ``numbers`` those of numeric columns in full precision. ``shown`` names the
    columns that the page shows at first, in this order.
    """
    filled = [column for name, column in columns.items() if _is_filled(details, name)]
    return {
        "columns": [_column(column, shown) for column in sorted(filled, key=lambda column: _rank(column.name, shown))],
        "texts": {
            column.name: [visible(column.text(value), MAX_TEXT) for value in details[column.name]] for column in filled
        },
        "numbers": {column.name: list(map(plain, details[column.name])) for column in filled if column.dtype != "str"},
    }


def explanation(name: str) -> str:
    """Return the text of ``htsr explain`` for a column; empty if there is none."""
    stem = name.removesuffix("_of_delta").removesuffix("_a").removesuffix("_b")
    return EXPLANATIONS.get(name, EXPLANATIONS.get(stem, ""))


def _is_filled(details: pd.DataFrame, name: str) -> bool:
    """Return whether a column has a value in any row, and says something that the name does not."""
    values = details[name]
    if name == "longname" and (values == details["name"]).all():
        return False
    return bool((values.notna() & (values.astype("str") != "")).any())


def _rank(name: str, shown: Sequence[str]) -> int:
    """Return the place of a column: those shown at first come first."""
    return shown.index(name) if name in shown else len(shown)


def _column(column: Column, shown: Sequence[str]) -> dict[str, Any]:
    """Return what a page knows of a column."""
    return {
        "name": column.name,
        "meaning": column.meaning,
        "unit": column.unit,
        "numeric": column.dtype != "str",
        "long": column.name in LONG,
        "shown": column.name in shown,
        "values": list(column.values),
        "explain": explanation(column.name),
    }
