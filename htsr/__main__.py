"""``python -m htsr``, and the command ``htsr``."""

import gc
import sys

# Python looks for garbage after so many new objects; its own default is 700. Imports make half a million objects that all
# stay, and the default spends a tenth of the start on looking through them.
NEW_OBJECTS = 50_000


def run() -> int:
    """Run the command line and return the exit status; Ctrl-C ends it with one line, also while Python still imports."""
    gc.set_threshold(NEW_OBJECTS)
    try:
        from htsr.cli import main

        return main()
    except KeyboardInterrupt:
        print("\nhtsr: interrupted", file=sys.stderr)
        return 130
    finally:
        gc.freeze()  # otherwise Python looks through the objects of every library once more as it ends: half a second


if __name__ == "__main__":
    sys.exit(run())
