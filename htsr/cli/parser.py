"""The parser of the command line. It loads neither torch nor numpy, so that --help and mistakes are answered at once."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from htsr._version import __version__
from htsr.cli import audit, compare, demo, explain, report, survey, watch
from htsr.text import escaped

EPILOG = (
    "Exit status: 0 if all is well, 1 if a --fail-on condition holds, 2 for bad input, 70 for a bug of htsr, 130 after Ctrl-C. "
    "Set the environment variable HTSR_DEBUG=1 to see the traceback of an error."
)


class Parser(argparse.ArgumentParser):
    """A parser that takes options by their full names only: an abbreviation would break when an option is added."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, which may quote an argument that a terminal would act on, and exit with status 2."""
        super().error(escaped(message))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of a command, with the function that runs it as ``run`` and its parser as ``parser``."""
    parser = Parser(prog="htsr", description="See and steer the weight spectra of neural networks.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"htsr {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (audit, compare, survey, report, watch, explain, demo):
        added = command.add_parser(commands)
        added.set_defaults(run=command.run, parser=added)
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions and waits
        import argcomplete

        argcomplete.autocomplete(parser)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:  # parse_args would show the usage of htsr instead of the command's
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.command = shlex.join(["htsr", *(sys.argv[1:] if arguments is None else arguments)])
    return options
