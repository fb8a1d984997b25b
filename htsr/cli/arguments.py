"""What the commands' parsers share: types of arguments, and the options of every command that makes a table of layers."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from htsr.choices import FORMATS, RESULT_FORMATS, Null

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_table_options(parser: argparse.ArgumentParser, condition: str) -> None:
    """Add the options of a command that makes a table of layers; the help of ``--fail-on`` shows ``condition``."""
    add_result_options(parser, RESULT_FORMATS)
    parser.add_argument(
        "--layers", action="append", metavar="GLOB", help="only layers with these names, globs or types; may repeat"
    )
    parser.add_argument("--skip", action="append", metavar="GLOB", help="leave these layers out; may repeat")
    parser.add_argument(
        "--sort",
        metavar="COLUMN[:asc]",
        help="sort the table by this column, numbers with the largest first (default: the order of the source)",
    )
    parser.add_argument(
        "--top", type=positive_number, metavar="N", help="show only the first N rows; without --sort, the N worst"
    )
    parser.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="CONDITION",
        help=f'exit with status 1 and name the layers if this holds, for instance "{condition}"; may repeat',
    )


def add_result_options(parser: argparse.ArgumentParser, formats: Sequence[str] = FORMATS) -> None:
    """Add the options of a command that writes a result in one of these formats."""
    add_output(parser, f"write the result; may repeat; the suffix picks the format ({', '.join(formats)})")
    parser.add_argument(
        "--json", action="store_true", help="write JSON to stdout; the text for people then goes to stderr"
    )


def add_output(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add ``--output``, which takes files and may repeat."""
    parser.add_argument("-o", "--output", action="append", default=[], type=Path, metavar="FILE", help=meaning)


def add_null(parser: argparse.ArgumentParser) -> None:
    """Add ``--null``, the noise that layers are compared with."""
    parser.add_argument(
        "--null",
        choices=get_args(Null),
        default="entries",
        help="what noise keeps of a matrix: nothing, its row and column scales, or these and the law of its entries "
        "(default: entries)",
    )


def add_tokens(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--tokens``, which names the leading directions of ``what``."""
    parser.add_argument(
        "--tokens",
        type=_directions,
        nargs="?",
        const=5,
        default=0,
        metavar="K",
        help=f"name the K leading directions of {what} by the tokens that they promote and suppress (default of K: 5)",
    )


def _directions(text: str) -> int:
    """Return a number of directions, or refuse the text with a word on a path that stands behind the option."""
    try:
        return positive_number(text)
    except argparse.ArgumentTypeError as err:
        raise argparse.ArgumentTypeError(f"{err}; put --tokens behind the paths, or write --tokens=5") from None


def whole_number(text: str, least: int = 0) -> int:
    """Return the number that a text spells, or refuse the text unless it is a whole number of at least ``least``."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return int(text)


def positive_number(text: str) -> int:
    """Return the number that a text spells, or refuse the text unless it is a whole number above 0."""
    return whole_number(text, least=1)


def jobs(text: str) -> int:
    """Return a number of jobs: -1, or a whole number above 0."""
    return -1 if text == "-1" else positive_number(text)


def seconds(text: str) -> float:
    """Return a finite number of seconds above 0, or refuse the text."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")
    return value
