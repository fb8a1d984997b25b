"""``htsr compare``: compare two checkpoints layer by layer."""

import argparse
from functools import partial

from htsr.cli.arguments import Commands, add_table_options, new_parser, whole_number


def add_parser(commands: Commands) -> None:
    """Describe the command."""
    parser = new_parser(commands, "compare", "compare two checkpoints layer by layer")
    parser.add_argument("a", metavar="A", help="the earlier or base checkpoint, as for audit")
    parser.add_argument("b", metavar="B", help="the later one")
    parser.add_argument(
        "--rank",
        type=partial(whole_number, least=1),
        default=10,
        help="dimension of the leading subspaces whose angles are taken (default: 10)",
    )
    add_table_options(parser, "relative_change > 0.1")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Compare, print, write."""
    from htsr.audit.columns import COMPARISON_COLUMNS
    from htsr.audit.table import details_frame
    from htsr.cli.delivery import checked_conditions, deliver
    from htsr.comparison.compare import compare
    from htsr.report.save import comparison_json

    conditions = checked_conditions(options, details_frame([], COMPARISON_COLUMNS))
    comparison = compare(options.a, options.b, layers=options.layers, skip=options.skip, rank=options.rank)
    deliver(options, conditions, comparison, repr(comparison), comparison_json)
