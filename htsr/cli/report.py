"""``htsr report``: write the report of a training run."""

import argparse
from pathlib import Path

from htsr.cli.arguments import Commands, add_output, new_parser


def add_parser(commands: Commands) -> None:
    """Describe the command."""
    parser = new_parser(commands, "report", "write the report of a training run that a Monitor watched")
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the run's directory; it may still grow")
    add_output(parser, default="; default: RUN_DIR/report.html")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Read the run and write its report."""
    from htsr.report import check_output
    from htsr.training import History

    history = History(options.run_dir)
    outputs = options.output or [options.run_dir / "report.html"]
    for path in outputs:
        check_output(path)
    print(history)
    for path in outputs:
        print(f"wrote {history.save(path)}")
