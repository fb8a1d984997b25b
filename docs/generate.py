"""Write docs/columns.md from the records of the columns, and docs/explanations.md from the texts of ``htsr explain``.

python docs/generate.py
"""

from collections.abc import Iterable
from pathlib import Path

from htsr.audit.columns import COLUMNS, COMPARISON_COLUMNS, HISTORY_COLUMNS, STEP_COLUMNS, Column
from htsr.audit.explanations import EXPLANATIONS
from htsr.audit.phases import MEANINGS
from htsr.audit.step_columns import VERDICTS
from htsr.comparison.meanings import CHANGE_MEANINGS, KIND_MEANINGS

PAGE = Path(__file__).with_name("columns.md")
EXPLAINED = Path(__file__).with_name("explanations.md")
OF_HISTORIES = [column for column in HISTORY_COLUMNS if column not in COLUMNS]
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
        option = f" (needs `{column.needs}=`)" if column.needs else ""
        lines.append(f"| `{column.name}` | {column.dtype} | {column.meaning.replace('|', chr(92) + '|')}{option} |")
    return lines


def page() -> str:
    """The text of docs/columns.md."""
    sections = [
        ("An audit", "`Analysis.details` of `htsr.analyze`, and the files that `htsr audit -o` writes.", COLUMNS),
        ("A comparison", "`Comparison.details` of `htsr.compare`.", COMPARISON_COLUMNS),
        ("A training run", "`History.details` has the columns of an audit, and these.", OF_HISTORIES),
        ("The steps of an optimizer", "`StepAudit.details` of `htsr.audit_steps`.", STEP_COLUMNS),
    ]
    lines = [INTRODUCTION]
    for title, where, records in sections:
        lines += [f"## {title}", "", where, "", *table(records), ""]
    return "\n".join(lines)


def explanations() -> str:
    """The text of docs/explanations.md."""
    lines = [
        "# What the numbers mean",
        "",
        "*`python docs/generate.py` writes this page from the texts of `htsr explain`.*",
        "",
    ]
    for name, text in EXPLANATIONS.items():
        lines += [f"## `{name}`", "", text, ""]
    lists = {
        "Phases": MEANINGS,
        "Kinds of a comparison": KIND_MEANINGS,
        "Changes of a layer": CHANGE_MEANINGS,
        "Verdicts on an optimizer's step": VERDICTS,
    }
    for title, meanings in lists.items():
        lines += [f"## {title}", "", *(f"- `{name}`: {text}" for name, text in meanings.items()), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    EXPLAINED.write_text(explanations(), encoding="utf-8")
