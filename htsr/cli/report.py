"""``htsr report``: write the report of a training run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from htsr.choices import FORMATS
from htsr.cli.arguments import add_output
from htsr.text import visible

if TYPE_CHECKING:
    from htsr.cli.arguments import Commands


def add_parser(commands: "Commands") -> argparse.ArgumentParser:
    """Add the command and return its parser."""
    parser = commands.add_parser("report", help="write the report of a training run that a Monitor watched")
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="directory of the run, which may still grow")
    formats = ", ".join(FORMATS)
    add_output(parser, f"may repeat; the suffix picks the format ({formats}; default: RUN_DIR/report.html)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from htsr.report import check_output
    from htsr.training import History

    history = History(options.run_dir)
    outputs = options.output or [options.run_dir / "report.html"]
    for path in outputs:
        check_output(path)
    print(history)
    for path in outputs:
        print(f"wrote {visible(history.save(path))}")
    return 0
