"""``htsr demo``: the main job on real input."""

import argparse
from functools import partial
from pathlib import Path

from htsr.cli.arguments import Commands, new_parser, whole_number


def add_parser(commands: Commands) -> None:
    """Describe the command."""
    parser = new_parser(commands, "demo", "audit a trained Transformer, then train a small GPT with HTMuon")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("htsr-demo"), metavar="DIR",
        help="where the pages go (default: htsr-demo)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=partial(whole_number, least=1), default=300, help="optimizer steps of each run (default: 300)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the demo."""
    from htsr.demo import run_demo

    run_demo(options.output, steps=options.steps, say=lambda line: print(line, flush=True))
