"""What several commands share: options, and the checks of their values."""

import argparse
import math
from pathlib import Path
from typing import Any

Commands = Any  # argparse names the type of add_subparsers' result only in private

# The suffixes of htsr.report.save.FORMATS, which a test compares; importing them would import torch.
FORMATS = ".html, .json, .csv, .parquet"


def new_parser(commands: Commands, name: str, purpose: str) -> argparse.ArgumentParser:
    """Add a command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.", allow_abbrev=False
    )
    return parser


def add_output(parser: argparse.ArgumentParser, default: str = "") -> None:
    """Add ``--output``, which may repeat."""
    parser.add_argument(
        "-o",
        "--output",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help=f"write the result; may repeat; the suffix picks the format ({FORMATS}{default})",
    )


def add_table_options(parser: argparse.ArgumentParser, example: str) -> None:
    """Add the options of a command that makes a table of layers."""
    add_output(parser)
    parser.add_argument("--json", action="store_true", help="write JSON to stdout; text for people goes to stderr")
    parser.add_argument(
        "--layers", action="append", metavar="GLOB", help="keep only these names, globs or layer types; may repeat"
    )
    parser.add_argument("--skip", action="append", metavar="GLOB", help="leave these out; may repeat")
    parser.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="CONDITION",
        help=f'exit with status 1 and name the layers where this holds, e.g. "{example}"; may repeat',
    )


def whole_number(text: str, least: int = 0) -> int:
    """A whole number from ``least`` on."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19) or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, got {text!r:.50}")
    return int(text)


def number_of_jobs(text: str) -> int:
    """-1 for every core, or a whole number from 1 on."""
    return -1 if text == "-1" else whole_number(text, least=1)


def seconds(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text!r:.50}")
    return value
