"""``htsr demo``: audit a trained Transformer, then train a small GPT with HTMuon."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from htsr.choices import DEMO_STEPS
from htsr.cli.arguments import positive_number

if TYPE_CHECKING:
    from htsr.cli.arguments import Commands


def add_parser(commands: "Commands") -> argparse.ArgumentParser:
    """Add the command and return its parser."""
    parser = commands.add_parser("demo", help="audit a trained Transformer, then train a small GPT with HTMuon")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("htsr-demo"),
        metavar="DIR",
        help="directory for the pages (default: htsr-demo)",
    )
    parser.add_argument(
        "--steps", type=positive_number, default=DEMO_STEPS, help="optimizer steps of each run (default: %(default)s)"
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from htsr.demo import run_demo

    run_demo(options.output, steps=options.steps, say=lambda line: print(line, flush=True))
    return 0
