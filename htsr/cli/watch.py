"""``htsr watch``: follow a training run in the terminal."""

import argparse
import shutil
import sys
from pathlib import Path

from htsr.cli.arguments import Commands, new_parser, seconds


def add_parser(commands: Commands) -> None:
    """Describe the command."""
    parser = new_parser(commands, "watch", "follow a training run in the terminal until it is closed")
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the run's directory")
    parser.add_argument("--interval", type=seconds, default=2.0, metavar="SECONDS", help="between looks (default: 2)")
    parser.add_argument("--once", action="store_true", help="show the last capture and end")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Show each new capture."""
    from htsr.training import History
    from htsr.training.live import watch

    terminal = sys.stdout.isatty()
    watch(
        History(options.run_dir),
        interval=options.interval,
        once=options.once,
        say=lambda text: print(text, flush=True),
        clear=terminal and not options.once,
        rows=max(10, shutil.get_terminal_size().lines - 10) if terminal else None,
    )
