"""``htsr compare``: compare two checkpoints layer by layer."""

import argparse
from typing import TYPE_CHECKING

from htsr.cli.arguments import add_null, add_table_options, add_tokens, jobs, positive_number

if TYPE_CHECKING:
    from htsr.cli.arguments import Commands


def add_parser(commands: "Commands") -> argparse.ArgumentParser:
    """Add the command and return its parser."""
    parser = commands.add_parser("compare", help="compare two checkpoints layer by layer")
    parser.add_argument(
        "a", metavar="A", help="the earlier checkpoint, or the base: a file, a directory, org/name on the hub, or a URL"
    )
    parser.add_argument("b", metavar="B", help="the later checkpoint")
    parser.add_argument(
        "--rank",
        type=positive_number,
        default=10,
        help="dimension of the leading subspaces whose angles are compared (default: 10)",
    )
    parser.add_argument(
        "--state", metavar="NAME", help="compare this state of the optimizers, such as exp_avg, in place of the weights"
    )
    parser.add_argument(
        "--n-jobs", type=jobs, metavar="N", help="layers to compare at a time; -1 for every core (default: 1)"
    )
    parser.add_argument("--device", metavar="DEVICE", help="where to compute, for instance cuda (default: the CPU)")
    parser.add_argument(
        "--other-parent", metavar="C", help="a second model that B may be a mixture of, beside A: a merge or an average"
    )
    add_null(parser)
    add_tokens(parser, "each change")
    add_table_options(parser, "relative_change > 0.1")
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from htsr.audit.columns import COMPARISON_COLUMNS
    from htsr.audit.table import details_frame
    from htsr.cli.results import checked_conditions, deliver
    from htsr.comparison.compare import compare
    from htsr.report.save import comparison_json
    from htsr.spectra.devices import check_device
    from htsr.weights.readers.hub import path_or_address

    if options.device is not None:
        try:
            check_device(options.device)
        except ValueError as err:
            options.parser.error(f"argument --device: {err}")
    conditions = checked_conditions(options, details_frame([], COMPARISON_COLUMNS), [options.a, options.b])
    comparison = compare(
        path_or_address(options.a),
        path_or_address(options.b),
        layers=options.layers,
        skip=options.skip,
        rank=options.rank,
        null=options.null,
        tokens=options.tokens,
        state=options.state,
        n_jobs=options.n_jobs,
        device=options.device,
        other_parent=None if options.other_parent is None else path_or_address(options.other_parent),
    )
    return deliver(options, conditions, comparison, comparison_json)
