"""``htsr survey``: which weight files are there, and which of them hold the same network."""

import argparse
from typing import TYPE_CHECKING

from htsr.choices import FORMATS
from htsr.cli.arguments import add_result_options

if TYPE_CHECKING:
    from htsr.cli.arguments import Commands


def add_parser(commands: "Commands") -> argparse.ArgumentParser:
    """Add the command and return its parser."""
    parser = commands.add_parser("survey", help="find weight files, and say which of them hold the same network")
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a directory, searched with all below it; a file; or the name of an installed package",
    )
    add_result_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from htsr.cli.results import check_outputs, show
    from htsr.comparison.survey.survey import survey
    from htsr.report.save import survey_json

    check_outputs(options.output, options.paths, FORMATS)
    found = survey(options.paths)
    show(options, found, repr(found), survey_json)
    return 0
