"""The entry point of the command line: it turns whatever happens into an exit status and one line on stderr."""

import os
import sys
from collections.abc import Sequence

# sysexits.h names 70 EX_SOFTWARE; shells give 128 + 2 to a program that SIGINT ended.
FINE, BAD_INPUT, BUG, INTERRUPTED = 0, 2, 70, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the command's name; ``sys.argv`` by default.

    Returns:
        The exit status: 0 if all is well, 1 if a ``--fail-on`` condition holds, 2 for bad input, 70 for a bug of htsr, 130 if
        the user interrupts the command. With the environment variable ``HTSR_DEBUG`` set, errors come with their traceback.
    """
    from htsr.errors import InputError

    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:  # the shell can close it: htsr ... >&-
                sys.stdout.flush()
    except BrokenPipeError:  # the reader, for instance head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except (InputError, OSError, MemoryError) as err:
        return _failed(str(err) or "out of memory", BAD_INPUT)
    except KeyboardInterrupt as err:
        if sys.stderr is not None and sys.stderr.isatty():
            print(file=sys.stderr)  # the terminal shows ^C
        return _failed(f"interrupted; {err}" if str(err) else "interrupted", INTERRUPTED)
    except Exception as err:  # the last resort: whatever else comes up is a bug
        from htsr._version import __version__

        remedy = "please report it with the traceback that HTSR_DEBUG=1 shows"
        return _failed(f"this is a bug of htsr {__version__}, {remedy}: {type(err).__name__}: {err}", BUG)


def _run(arguments: Sequence[str] | None) -> int:
    """Parse the arguments, run the command and return its exit status; imports are here so that Ctrl-C can stop them."""
    import io

    from htsr.cli.parser import parse

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # layer names may not fit the terminal's encoding
    options = parse(arguments)
    status: int = options.run(options)
    return status


def _failed(message: str, status: int) -> int:
    """Print a message as one safe line, after the traceback if the user asked for it, and return the exit status."""
    if os.environ.get("HTSR_DEBUG"):
        import traceback

        traceback.print_exc()
    from htsr.text import escaped

    print(f"htsr: {escaped(' '.join(message.split()))}", file=sys.stderr)
    return status
