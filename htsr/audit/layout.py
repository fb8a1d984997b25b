"""How results read as plain text: tables that fit a width, grouped findings, Markdown."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby

import pandas as pd

from htsr.audit.findings import Finding
from htsr.text import escaped, visible

# Findings of one kind beyond this many are counted; notes are counted at once.
SHOWN_OF_A_KIND = 3
# The name and the note share what the other columns leave; each keeps at least this many characters.
LEAST_NAME, LEAST_NOTE = 16, 14
# A column is left out before a name gets fewer characters than this.
ENOUGH_NAME = 24
GAP = 2


def fit_width(table: pd.DataFrame, width: int, expendable: Sequence[str] = ()) -> pd.DataFrame:
    """Return a table of texts that fits into ``width`` characters.

    Columns of ``expendable`` are left out, the last first, as long as there is no room for the name and the note, which are
    then folded: a name in the middle, where it differs least, a note at its end.
    """
    texts = table.astype("str")
    widths = {name: max(len(name), *texts[name].map(len)) if len(texts) else len(name) for name in texts}
    least = {"name": min(LEAST_NAME, widths["name"]), "note": min(LEAST_NOTE, widths.get("note", 0))}

    def room(kept: Sequence[str]) -> int:
        return width - sum(widths[name] + GAP for name in kept if name not in least) - GAP * len(least)

    kept = [name for name in texts if name != "note" or texts["note"].any()]
    for name in reversed(expendable):
        if room(kept) >= min(ENOUGH_NAME, widths["name"]) + least["note"]:
            break
        kept = [other for other in kept if other != name]
    note = max(least["note"], min(widths.get("note", 0), room(kept) - widths["name"])) if "note" in kept else 0
    longest = {"name": max(least["name"], room(kept) - note), "note": note}
    texts = texts[kept]
    return texts.assign(
        name=[folded(name, longest["name"]) for name in texts["name"]],
        **({"note": [cut(text, longest["note"]) for text in texts["note"]]} if "note" in kept else {}),
    )


def as_text(table: pd.DataFrame, expendable: Sequence[str] = (), max_rows: int = 60) -> str:
    """Return a table for a person who prints it: as wide as the terminal; whole if nobody looks at a terminal."""
    if sys.stdout is not None and sys.stdout.isatty():
        table = fit_width(table, shutil.get_terminal_size().columns, expendable)
    return table.to_string(index=False, max_rows=max_rows)


def folded(text: str, length: int) -> str:
    """Return a name no longer than ``length``: its first components as letters, as few as do, then without its middle.

    Numbers and the last component stay longest, since they tell layers apart: ``e.l.4.a.self.value``.
    """
    parts = text.split(".")
    for i, part in enumerate(parts[:-1]):
        if len(text) <= length:
            break
        parts[i] = part if part.isdigit() else part[:1]
        text = ".".join(parts)
    if len(text) <= length:
        return text
    tail = length // 2
    return f"{text[: length - 1 - tail]}\u2026{text[len(text) - tail :]}"


def cut(text: str, length: int) -> str:
    """Return a text without its end, if it is longer than ``length``."""
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"


def grouped_findings(findings: Sequence[Finding]) -> Iterator[tuple[str, str, list[Finding], int]]:
    """Yield severity and kind, the first findings of that kind, and how many more there are; of notes only the number."""
    for (severity, kind), group in groupby(findings, key=lambda finding: (finding.severity, finding.kind)):
        found = list(group)
        shown = found if len(found) == 1 else [] if severity == "note" else found[:SHOWN_OF_A_KIND]
        yield severity, kind, shown, len(found) - len(shown)


def findings_lines(findings: Sequence[Finding]) -> list[str]:
    """Return the findings in lines: a heading for each kind, then its sentences; what repeats is counted."""
    lines = []
    for severity, kind, shown, more in grouped_findings(findings):
        lines.append(f"{severity}: {kind} ({len(shown) + more})")
        lines += [f"  {visible(finding.name)}: {escaped(finding.text)}" for finding in shown]
        if shown and more:
            lines.append(f"  and {more} more")
    return lines


def markdown(title: str, paragraphs: Sequence[str], table: pd.DataFrame, findings: Sequence[Finding]) -> str:
    """Return a result as a Markdown document: title, paragraphs, a table of texts, grouped findings."""
    blocks = [f"# {in_markdown(title)}", *map(in_markdown, paragraphs), markdown_table(table)]
    lines = []
    for severity, kind, shown, more in grouped_findings(findings):
        lines.append(f"- **{severity}: {kind}** ({len(shown) + more})")
        lines += [f"  - {in_markdown(visible(found.name))}: {in_markdown(escaped(found.text))}" for found in shown]
        if shown and more:
            lines.append(f"  - and {more} more")
    if lines:
        blocks += ["## Findings", "\n".join(lines)]
    return "\n\n".join(blocks) + "\n"


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table of texts in GitHub's Markdown, with numbers to the right."""
    texts = table.astype("str").map(in_markdown)
    numeric = [is_numeric(table[name]) for name in table]
    rows = [table.columns, ["---:" if right else "---" for right in numeric], *texts.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def is_numeric(column: pd.Series) -> bool:
    """Return whether a column holds numbers, also as texts for people; empty ones do not count."""
    texts = [text.lstrip("< +-") for text in column.astype("str") if text]
    return bool(texts) and all(text[:1].isdigit() or text in ("nan", "inf") for text in texts)


def in_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is: a stranger's name is no link, no HTML and no second cell."""
    for character in "\\`*_[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text
