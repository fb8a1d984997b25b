"""How a command hands over a table of layers: the checks before the work, then text, JSON, files and gates."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from htsr.choices import RESULT_FORMATS
from htsr.cli import terminal
from htsr.cli.terminal import check_sort
from htsr.errors import InputError
from htsr.text import visible

if TYPE_CHECKING:
    import pandas as pd

    from htsr.audit.analysis import Analysis
    from htsr.audit.conditions import Condition
    from htsr.comparison.compare import Comparison
    from htsr.comparison.survey.survey import Survey

Result = TypeVar("Result", "Analysis", "Comparison")
Saved = TypeVar("Saved", "Analysis", "Comparison", "Survey")


def check_outputs(outputs: Sequence[Path], sources: Sequence[str], formats: Sequence[str] = RESULT_FORMATS) -> None:
    """Refuse outputs that cannot be written, and those that would replace a file of the sources."""
    from htsr.report import check_output

    for path in outputs:
        check_output(path, formats)
        for source in filter(Path.exists, map(Path, sources)):
            inside = source.resolve() in path.resolve().parents and path.suffix.lower() == ".json"
            if path.exists() and (path.samefile(source) or (inside and not _is_our_json(path))):
                raise InputError(f"{path}: a file of {source}, which the result would replace; choose another name")


def _is_our_json(path: Path) -> bool:
    """Return whether a file is a result that htsr wrote as JSON."""
    with path.open("rb") as file:
        return file.read(40).lstrip(b"{ \n").startswith(b'"htsr"')


def checked_conditions(options: argparse.Namespace, table: "pd.DataFrame", sources: Sequence[str]) -> "list[Condition]":
    """Return the conditions of ``--fail-on``, after checking all that would otherwise fail only when the work is done.

    The outputs must be writable, and the conditions must fit ``table``, an empty table with the columns of the result.
    """
    from htsr.audit.columns import BY_NAME
    from htsr.audit.conditions import Condition

    check_outputs(options.output, sources)
    check_sort(options.sort, list(table))
    conditions = [Condition(text) for text in options.fail_on]
    for condition in conditions:
        condition.check_columns(table)
        for column in condition.columns:
            option = BY_NAME[column].needs
            if option and not getattr(options, option, True):
                raise InputError(f"{condition.text!r}: only --{option} computes {column}; add it")
    return conditions


def deliver(
    options: argparse.Namespace,
    conditions: "list[Condition]",
    result: Result,
    document: Callable[[Result], str],
) -> int:
    """Show a result, write it wherever the user asked for it, and return the exit status that the gates give."""
    result.note_command(options.command)
    people = sys.stderr if options.json else sys.stdout
    show(options, result, terminal.text(result, people, options.sort, options.top), document)
    ordered = result.details.iloc[result.worst_first()]
    verdicts = [condition.check(ordered) for condition in conditions]
    for verdict in verdicts:
        if doubts := verdict.doubts():
            print(f"htsr: {doubts}", file=sys.stderr)
        if verdict.holds:
            print(f"htsr: failed on {verdict}", file=sys.stderr)
    return int(any(verdict.holds for verdict in verdicts))


def show(options: argparse.Namespace, result: Saved, text: str, document: Callable[[Saved], str]) -> None:
    """Show a result as ``text``, and write it wherever the user asked for it."""
    people = sys.stderr if options.json else sys.stdout
    _print(text, people)
    if options.json:
        _print(document(result), sys.stdout)
    for path in options.output:
        _print(f"wrote {visible(result.save(path))}", people)


def _print(text: str, stream: TextIO) -> None:
    """Print, and go on in silence if the reader, for instance head, has left: files and gates do not depend on it."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
