"""The files of a run directory: their names, and how they are written so that a killed process leaves none half done.

run.json                        what made the run, and the schema of its files
captures/step-000000000100.npz  one capture each, immutable: the truth
tables/rows-000000000000-....parquet   rows of many captures again, as columns, so that long runs open fast
scalars.jsonl                   what Monitor.record was given
events.jsonl                    what was skipped, what failed, which conditions held
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# 1: no quantities, no tables, no events. Schema 1 is still read.
SCHEMA, READABLE = 2, (1, 2)

ABOUT, SCALARS, EVENTS = "run.json", "scalars.jsonl", "events.jsonl"
CAPTURES, TABLES = "captures", "tables"


def capture_name(step: int) -> str:
    """Name of the file of a capture; names sort as steps do."""
    return f"step-{step:012d}.npz"


def capture_step(name: str) -> int:
    """The step in the name of the file of a capture."""
    return int(name.removeprefix("step-").removesuffix(".npz"))


def table_name(first: int, last: int) -> str:
    """Name of the table of the captures from one step to another."""
    return f"rows-{first:012d}-{last:012d}.parquet"


def append_line(path: Path, values: Mapping[str, object]) -> None:
    """Append a line of JSON; a line that an earlier writer left unfinished ends before it and spoils no other."""
    with path.open("a") as file:
        file.write(f"\n{json.dumps(values)}")


def read_lines(path: Path, *, numbers: bool = False) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Read lines of JSON that ``append_line`` wrote, possibly while it writes.

    A line ``{"resumed": step}`` takes back the lines of later steps before it.

    Args:
        path: The file; it need not exist.
        numbers: A line that holds anything but numbers is damaged, too.

    Returns:
        The lines, and what is damaged, by file name and number. The last line may be in the middle of being written.
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
                    damaged[f"{path.name}, line {number}"] = "something else than numbers"
                else:
                    lines.append(values)
        except (ValueError, TypeError, KeyError):
            if number < len(texts):
                damaged[f"{path.name}, line {number}"] = "an unfinished line"
    return lines, damaged
