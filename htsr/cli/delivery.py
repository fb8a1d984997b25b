"""What audit and compare share once their table is there: gates, the text for people, files."""

import argparse
import sys
from collections.abc import Callable
from typing import TypeVar

import pandas as pd

from htsr.audit.analysis import Analysis
from htsr.audit.columns import BY_NAME
from htsr.audit.conditions import Condition
from htsr.comparison.compare import Comparison
from htsr.errors import InputError
from htsr.report import check_output

Result = TypeVar("Result", Analysis, Comparison)


def checked_conditions(options: argparse.Namespace, table: pd.DataFrame) -> list[Condition]:
    """Check, before the work, what would only fail after it: the outputs, and the gates against an empty table."""
    for path in options.output:
        check_output(path)
    conditions = [Condition(text) for text in options.fail_on]
    for condition in conditions:
        condition.check_columns(table)
        for column in condition.columns:
            needed = BY_NAME[column].needs
            if needed and not getattr(options, needed, True):
                raise InputError(f"{condition.text!r}: only --{needed} computes {column}; add it")
    return conditions


def deliver(
    options: argparse.Namespace,
    conditions: list[Condition],
    result: Result,
    text: str,
    document: Callable[[Result], str],
) -> None:
    """Print a result for people as ``text``, write it where it was asked for, and judge the gates for the end."""
    options.verdicts = [condition.check(result.details) for condition in conditions]
    people = sys.stderr if options.json else sys.stdout
    print(text, file=people)
    if options.json:
        print(document(result))
    for path in options.output:
        print(f"wrote {result.save(path)}", file=people)
