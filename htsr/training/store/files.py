"""The files of a run directory: their names, and lines of JSON that survive a killed writer.

run.json                               what made the run, and the schema of its files
captures/step-000000000100.npz         one capture each; a file never changes, and it is what counts
tables/rows-000000000000-....parquet   the rows of many captures once more, so that long runs open fast
scalars.jsonl                          the numbers that Monitor.record got
events.jsonl                           which captures were skipped, what failed, which conditions came true
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Schema 1 had no quantities, no tables and no events; it can still be read.
SCHEMA, READABLE = 2, (1, 2)

ABOUT, SCALARS, EVENTS = "run.json", "scalars.jsonl", "events.jsonl"
CAPTURES, TABLES = "captures", "tables"


def capture_name(step: int) -> str:
    """Return the name of a capture's file; names sort as steps do."""
    return f"step-{step:012d}.npz"


def capture_step(name: str) -> int:
    """Return the step in the name of a capture's file."""
    return int(name.removeprefix("step-").removesuffix(".npz"))


def table_name(first: int, last: int) -> str:
    """Return the name of the table that holds the captures from one step to another."""
    return f"rows-{first:012d}-{last:012d}.parquet"


def append_line(path: Path, values: Mapping[str, object]) -> None:
    """Append a line of JSON, after a line break, so that a line which a killed writer left unfinished spoils no other."""
    with path.open("a") as file:
        file.write(f"\n{json.dumps(values)}")


def read_lines(path: Path, *, numbers: bool = False) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the lines of JSON in a file, and what is wrong with the damaged ones, by file name and line number.

    The file need not exist, and its last line may be unfinished, since the writer may still be writing it. A line
    ``{"resumed": step}`` cancels the lines of later steps before it. With ``numbers``, a line that holds anything but numbers
    counts as damaged.
    """
    lines: list[dict[str, Any]] = []
    damaged: dict[str, str] = {}
    texts = path.read_text(errors="replace").split("\n") if path.exists() else []
    for number, text in enumerate(texts, start=1):
        if not text:
            continue
        try:
            values = json.loads(text)
            if "resumed" in values:
                lines = [line for line in lines if line["step"] <= values["resumed"]]
            else:
                values["step"] = int(values["step"])
                if numbers and not all(isinstance(value, int | float) for value in values.values()):
                    damaged[f"{path.name}, line {number}"] = "expected numbers only"
                else:
                    lines.append(values)
        except (ValueError, TypeError, KeyError):
            if number < len(texts):
                damaged[f"{path.name}, line {number}"] = "the line is unfinished"
    return lines, damaged
