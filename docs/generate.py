"""Write docs/columns.md from the records of the columns.

python docs/generate.py
"""

from collections.abc import Iterable
from pathlib import Path

from htsr.audit import columns
from htsr.audit.columns import COLUMNS, Column
from htsr.comparison import layer as comparison

PAGE = Path(__file__).with_name("columns.md")
COMPARISON_COLUMNS = getattr(columns, "COMPARISON_COLUMNS", None) or comparison.COMPARED
HISTORY_COLUMNS = getattr(columns, "HISTORY_COLUMNS", ())
INTRODUCTION = """\
# Columns

*`python docs/generate.py` writes this page.*

Eigenvalues are those of W^T W (of each slice, for a convolution), not divided by N. Names that contain `log` take log10.
A number that could not be had is missing (NaN), never a stand-in such as -1. Whole numbers are nullable integers (`Int64`)
where they can be missing. [How to read an audit](auditing.md) explains the columns to look at first.
"""


def table(records: Iterable[Column]) -> list[str]:
    """Lines of a Markdown table. An option of ``analyze`` that fills a column stands behind its meaning."""
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for column in records:
        needs = str(getattr(column, "needs", "")).rstrip("=")
        option = f" (needs `{needs}=`)" if needs else ""
        lines.append(f"| `{column.name}` | {column.dtype} | {column.meaning.replace('|', chr(92) + '|')}{option} |")
    return lines


def page() -> str:
    """The text of docs/columns.md."""
    sections = [
        ("An audit", "`Analysis.details` of `htsr.analyze`, and the files that `htsr audit -o` writes.", COLUMNS),
        ("A comparison", "`Comparison.details` of `htsr.compare`.", COMPARISON_COLUMNS),
        ("A training run", "`History.details` has the columns of an audit, and these.", HISTORY_COLUMNS),
    ]
    lines = [INTRODUCTION]
    for title, where, records in sections:
        if records:
            lines += [f"## {title}", "", where, "", *table(records), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
