"""``python -m htsr``."""

import sys

from htsr.cli import main

if __name__ == "__main__":
    sys.exit(main())
