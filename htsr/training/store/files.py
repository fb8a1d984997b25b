"""The files of a run directory: their names, and JSON that shows any damage.

run.json                               what made the run, and the schema of its files
captures/step-000000000100.npz         one capture each; a file never changes, and it is what counts
tables/rows-000000000000-....npz       the rows of many captures once more, so that long runs open fast
scalars.jsonl                          the numbers that Monitor.record got
events.jsonl                           which captures were skipped, what failed, which conditions came true
writer.lock                            locked as long as somebody writes the run

Captures and tables end with a seal (``htsr.files.seal``). ``run.json`` and each line of the others begin with a checksum.
"""

import json
import re
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from htsr.files import read_regular

# Schema 1 had no quantities, no tables and no events; schema 2 had no checksums. Both can still be read.
SCHEMA, READABLE = 3, (1, 2, 3)
FIRST_WITH_CHECKSUMS = 3

ABOUT, SCALARS, EVENTS, LOCK = "run.json", "scalars.jsonl", "events.jsonl", "writer.lock"
CAPTURES, TABLES = "captures", "tables"

# The first member of a JSON object with a checksum: 16 hexadecimal digits for all that follows this member.
CHECKSUM = re.compile(rb'\{"#": "([0-9a-f]{16})",')
# Whole numbers beyond this fit neither a table nor, perhaps, a float.
LARGEST = 2**63 - 1


class DamageError(ValueError):
    """What stands in a file of a run is not what the writer wrote."""

    @classmethod
    def of(cls, err: Exception) -> "DamageError":
        """Return the error of a parser as damage; a mere text needs no name of a type before it."""
        return cls(str(err) if type(err) is ValueError else f"{type(err).__name__}: {err}")


# What reading a file of a run may raise.
DAMAGE = (DamageError, OSError)


def capture_name(step: int) -> str:
    """Return the name of a capture's file; names sort as steps do."""
    return f"step-{step:012d}.npz"


def capture_step(name: str) -> int:
    """Return the step in the name of a capture's file."""
    return int(name.removeprefix("step-").removesuffix(".npz"))


def table_name(first: int, last: int) -> str:
    """Return the name of the table that holds the captures from one step to another."""
    return f"rows-{first:012d}-{last:012d}.npz"


def is_number(value: object) -> bool:
    """Return whether a value from JSON is a number that a table can hold; NaN and infinities are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= LARGEST


def is_step(value: object) -> bool:
    """Return whether a value from JSON is a step."""
    return type(value) is int and 0 <= value <= LARGEST


def with_checksum(values: Mapping[str, object], indent: int | None = None) -> bytes:
    """Return a JSON object, which is not empty, with a checksum as its first member."""
    rest = json.dumps(values, indent=indent).encode()[1:]
    return b'{"#": "%s",%s' % (_checksum(rest), rest)


def read_checked(text: bytes) -> tuple[dict[str, Any], bool]:
    """Return a JSON object without its checksum, and whether it had one; raise ``DamageError`` if it does not fit."""
    found = CHECKSUM.match(text)
    if found:
        rest = text[found.end() :]
        if _checksum(rest) != found[1]:
            raise DamageError("its checksum does not fit its content")
        text = b"{" + rest
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as err:  # bad syntax or encoding, a number of too many digits; deep nesting
        raise DamageError(f"it is no JSON: {err}") from err
    if not isinstance(values, dict):
        raise DamageError(f"expected a JSON object, got {type(values).__name__}")
    return values, bool(found)


def append_line(path: Path, values: Mapping[str, object]) -> None:
    """Append a line of JSON between line breaks: what a killed writer left unfinished before it spoils no other line."""
    with path.open("ab") as file:
        file.write(b"\n%s\n" % with_checksum(values))


def read_lines(path: Path, *, numbers: bool = False) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the lines of JSON in a file, and what is wrong with the damaged ones, by file name and line number.

    The file need not exist, and its last line may be unfinished, since the writer may still be writing it. A line
    ``{"resumed": step}`` cancels the lines of later steps before it. With ``numbers``, a line that holds anything but numbers
    counts as damaged; without, one that lacks the texts of an event.
    """
    lines: list[dict[str, Any]] = []
    damaged: dict[str, str] = {}
    try:
        texts = read_regular(path).split(b"\n")
    except FileNotFoundError:
        return [], {}
    except OSError as err:
        return [], {path.name: str(err)}
    for number, text in enumerate(texts, start=1):
        if not text or (number == len(texts) and _is_unfinished(text)):
            continue
        try:
            values, _ = read_checked(text)
            if "resumed" in values:
                _check(is_step(values["resumed"]), "expected a step")
                lines = [line for line in lines if line["step"] <= values["resumed"]]
                continue
            _check(is_step(values.get("step")), "expected a step")
            if numbers:
                _check(all(map(is_number, values.values())), "expected numbers only")
            else:
                _check(all(isinstance(values.get(name), str) for name in ("kind", "message")), "expected an event")
            lines.append(values)
        except DamageError as err:
            damaged[f"{path.name}, line {number}"] = str(err)
    return lines, damaged


def _is_unfinished(text: bytes) -> bool:
    """Return whether a last line without a line break was cut off, and not changed after it had been finished."""
    for finished in (text, text[:-1]):  # the latter if its line break is what was changed
        try:
            read_checked(finished)
        except DamageError:
            continue
        return False
    return True


def _check(holds: bool, expected: str) -> None:
    if not holds:
        raise DamageError(expected)


def _checksum(text: bytes) -> bytes:
    return blake2b(text, digest_size=8).hexdigest().encode()
