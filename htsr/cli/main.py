"""The entry point: reads the arguments, runs a command, and turns what went wrong into one line and an exit status.

Exit status: 0 fine, 1 a gate (``--fail-on``) failed, 2 bad input, 70 a bug of htsr, 130 interrupted.
"""

import argparse
import io
import os
import sys
import traceback
from collections.abc import Sequence

from htsr._version import __version__
from htsr.cli import audit, compare, demo, report, watch
from htsr.errors import InputError

BUG = 70  # EX_SOFTWARE of sysexits.h
COMMANDS = (audit, compare, report, watch, demo)
# Set to anything, this variable shows the traceback of an error that is a bug.
DEBUG = "HTSR_DEBUG"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the command's name; ``sys.argv`` by default.

    Returns:
        The exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may hold what the terminal's encoding does not
    options = _parser().parse_args(arguments)
    try:
        status = options.run(options)
        if sys.stdout is not None:  # it may have been closed: htsr ... >&-
            sys.stdout.flush()
    except BrokenPipeError:  # the reader, head for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = None
    except (InputError, OSError, ImportError) as err:
        return _failed(2, " ".join(str(err).split()))
    except KeyboardInterrupt:
        kept = "--resume continues the audit" if getattr(options, "output", None) else "nothing was written"
        return _failed(130, f"interrupted; {kept}", before="\n")
    except Exception as err:  # whatever else is raised is a mistake of ours, and must not look like a failed gate
        if os.environ.get(DEBUG):
            traceback.print_exc()
        said = " ".join(f"{type(err).__name__}: {err}".split())[:300]
        return _failed(
            BUG,
            f"this is a bug of htsr {__version__}, not of your file: {said}; please report it with the traceback that "
            f"{DEBUG}=1 shows",
        )
    verdicts = getattr(options, "verdicts", ())
    for verdict in verdicts:
        if doubts := verdict.doubts():
            print(f"htsr: {doubts}", file=sys.stderr)
        if verdict.holds:
            print(f"htsr: failed on {verdict}", file=sys.stderr)
    return status or int(any(verdict.holds for verdict in verdicts))


def _failed(status: int, message: str, before: str = "") -> int:
    print(f"{before}htsr: {message}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    """The parser of all commands; it knows no heavy module."""
    parser = argparse.ArgumentParser(
        prog="htsr", description="See and steer the weight spectra of neural networks.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"htsr {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser
