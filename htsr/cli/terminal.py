"""Results in a terminal: tables with colours that fit its width. ``NO_COLOR`` turns the colours off."""

import io
import os
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from htsr.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from htsr.audit.analysis import Analysis
    from htsr.comparison.compare import Comparison

COLOURS = {"problem": "bold red", "caution": "yellow", "note": "", "": ""}


def text(result: "Analysis | Comparison", stream: TextIO, sort: str | None = None, top: int | None = None) -> str:
    """Return a result for the person at ``stream``: headline, table of layers, findings.

    ``sort`` names a column of ``details``, with ``:asc`` or ``:desc`` behind it if the largest shall not come first. ``top``
    limits the table to that many rows, the worst ones unless ``sort`` says otherwise.
    """
    from htsr.audit.layout import findings_lines

    findings = result.ranked_findings()
    rows = _rows(result, sort, top)
    table = result.brief().loc[rows]
    severities = {finding.name: finding.severity for finding in reversed(findings)}
    styles = [COLOURS[severities.get(name, "")] for name in result.details.loc[rows, "name"]]
    shown = _table(table, styles, result.expendable, stream)
    left_out = len(result) - len(rows)
    more = [f"{left_out} more rows; leave out --top to see them"] if left_out else []
    lines = findings_lines(findings)
    named = result.tokens_lines()
    hint = [f"What this means: htsr explain {' '.join(result.to_explain())}"] if findings else []
    return "\n".join(
        [result.headline(), "", shown, *more, *([""] if lines else []), *lines, *hint, *([""] if named else []), *named]
    )


def check_sort(sort: str | None, columns: Sequence[str]) -> None:
    """Refuse to sort by what is no column of the result."""
    from htsr.audit.table import did_you_mean

    if sort is None:
        return
    name, _, order = sort.partition(":")
    if name not in columns:
        hint = did_you_mean(name, columns)
        raise InputError(f"--sort {sort}: expected a column of the table of layers, got {name!r}; {hint}".rstrip("; "))
    if order not in ("", "asc", "desc"):
        raise InputError(f"--sort {sort}: expected :asc or :desc behind the column, got {order!r}")


def _rows(result: "Analysis | Comparison", sort: str | None, top: int | None) -> list[int]:
    """Return the rows to show, in their order."""
    details = result.details
    if sort is not None:
        name, _, order = sort.partition(":")
        column = details[name].replace("", None) if details[name].dtype == "str" else details[name]
        ascending = order == "asc" if order else details[name].dtype == "str"
        rows = list(column.sort_values(ascending=ascending, kind="stable", na_position="last").index)
    elif top is not None:
        rows = result.worst_first()
    else:
        rows = list(details.index)
    return rows[:top]


def _table(table: "pd.DataFrame", styles: Sequence[str], expendable: Sequence[str], stream: TextIO) -> str:
    """Return the table as text that fits the terminal; whole and without colours if ``stream`` is none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from htsr.audit.layout import fit_width, is_numeric

    terminal = stream is not None and stream.isatty()
    width = shutil.get_terminal_size().columns if terminal else 10_000
    fitted = fit_width(table, width, expendable)
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold" if terminal else "")
    for name in fitted:
        shown.add_column(name, justify="right" if is_numeric(fitted[name]) else "left", no_wrap=True)
    for cells, style in zip(fitted.itertuples(index=False), styles, strict=True):
        shown.add_row(*map(Text, cells), style=style)  # Text: a name in brackets is no markup
    colours = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colours,
        no_color=not colours,
        color_system="auto" if colours else None,
    )
    console.print(shown)
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())
