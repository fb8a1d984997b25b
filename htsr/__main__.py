"""``python -m htsr``, and the command ``htsr``."""

import sys


def run() -> int:
    """Run the command line and return the exit status; Ctrl-C ends it with one line, also while Python still imports."""
    try:
        from htsr.cli import main

        return main()
    except KeyboardInterrupt:
        print("\nhtsr: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
