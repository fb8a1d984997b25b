"""``python -m htsr``."""

import sys

from htsr.cli import main

sys.exit(main())
