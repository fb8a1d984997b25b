"""``htsr watch``: follow a training run in the terminal."""

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from htsr.cli.arguments import seconds

if TYPE_CHECKING:
    from htsr.cli.arguments import Commands


def add_parser(commands: "Commands") -> argparse.ArgumentParser:
    """Add the command and return its parser."""
    parser = commands.add_parser("watch", help="follow a training run in the terminal until its Monitor is closed")
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="directory of the run")
    parser.add_argument(
        "--interval", type=seconds, default=2.0, metavar="SECONDS", help="time between looks (default: 2)"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write the page of the run there as well, again after every capture"
    )
    parser.add_argument("--once", action="store_true", help="show the last capture and exit")
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from htsr.training import History
    from htsr.training.live import watch

    if options.html is not None:
        from htsr.report import check_output

        check_output(options.html, (".html",))
    terminal = sys.stdout is not None and sys.stdout.isatty()
    watch(
        History(options.run_dir),
        interval=options.interval,
        once=options.once,
        page=options.html,
        say=lambda text: print(text, flush=True),
        clear=terminal and not options.once,
        rows=max(10, shutil.get_terminal_size().lines - 10) if terminal else None,
    )
    return 0
