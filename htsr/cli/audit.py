"""``htsr audit``: analyse every weight matrix of a checkpoint."""

import argparse
import sys
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

from htsr.cli.arguments import Commands, add_table_options, new_parser, number_of_jobs, whole_number
from htsr.errors import InputError

if TYPE_CHECKING:
    from htsr.audit.journal import JournalFolder

# Findings on a terminal; all of them are in every file that is written.
MAX_FINDINGS = 20


def add_parser(commands: Commands) -> None:
    """Describe the command."""
    parser = new_parser(commands, "audit", "analyse every weight matrix of a checkpoint")
    parser.add_argument("path", help="a checkpoint file (.safetensors, .pt, .gguf, ...), a directory, or a URL")
    parser.add_argument("--base", metavar="PATH", help="the model that the LoRA adapter at PATH was trained on")
    add_table_options(parser, "alpha > 8")
    parser.add_argument(
        "--min-eigenvalues", type=whole_number, default=0, metavar="N", help="leave out matrices with fewer eigenvalues"
    )
    parser.add_argument(
        "--conv", default="pool", metavar="HOW", help="decompose convolutions by pool (the default), slices or unfold"
    )
    parser.add_argument("--per-head", action="store_true", help="cut attention weights into their heads")
    parser.add_argument(
        "--convention",
        default="htsr",
        metavar="NAME",
        help="scaling and cut-offs of htsr (the default) or weightwatcher",
    )
    parser.add_argument(
        "--bootstrap",
        type=whole_number,
        default=0,
        metavar="N",
        help="resamples for intervals and goodness of fit: 0, the default, for none, or 20 and more",
    )
    parser.add_argument("--alternatives", action="store_true", help="compare each tail with other distributions")
    parser.add_argument("--randomize", action="store_true", help="shuffle each matrix and count correlation traps")
    parser.add_argument("--vectors", action="store_true", help="measure how localised the leading singular vectors are")
    parser.add_argument("--seed", type=whole_number, default=0, help="seed of resamples and shuffles (default: 0)")
    parser.add_argument(
        "--n-jobs", type=number_of_jobs, metavar="N", help="layers analysed at a time; -1 for every core (default: 1)"
    )
    parser.add_argument("--device", metavar="DEVICE", help="where to compute, for instance cuda (default: the CPU)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted audit with the same output")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Analyse, print, write."""
    from htsr.audit.analysis import analyze
    from htsr.audit.table import details_frame
    from htsr.cli.delivery import checked_conditions, deliver
    from htsr.report.save import analysis_json

    conditions = checked_conditions(options, details_frame([]))
    folder = _journal_folder(options)
    with nullcontext() if folder is None else closing(folder):
        analysis = analyze(
            options.path,
            layers=options.layers,
            skip=options.skip,
            min_eigenvalues=options.min_eigenvalues,
            conv=options.conv,
            per_head=options.per_head,
            base=options.base,
            convention=options.convention,
            bootstrap=options.bootstrap,
            alternatives=options.alternatives,
            randomize=options.randomize,
            vectors=options.vectors,
            n_jobs=options.n_jobs,
            device=options.device,
            journal=folder,
            seed=options.seed,
        )
        if folder is not None and folder.restored:
            print(f"{folder.restored} of {len(analysis)} layers were done", file=sys.stderr)
        if not len(analysis):
            reasons = "; ".join(
                f"{count} x {reason}" for reason, count in analysis.skipped["reason"].value_counts().items()
            )
            raise InputError(
                f"{options.path}: none of its {len(analysis.skipped)} tensors is a weight matrix ({reasons})"
            )
        found = analysis.findings
        lines = [f"{name}: {finding}" for name, finding in found.head(MAX_FINDINGS).itertuples(index=False)]
        if len(found) > MAX_FINDINGS:
            lines.append(f"{len(found) - MAX_FINDINGS} more findings: write them with -o audit.html")
        deliver(options, conditions, analysis, "\n".join([repr(analysis), *lines]), analysis_json)
        if folder is not None:
            folder.remove()


def _journal_folder(options: argparse.Namespace) -> "JournalFolder | None":
    """Open the folder in which an audit keeps what it has done: beside its first output, until that is written."""
    from htsr.audit.journal import JournalFolder

    if not options.output:
        if options.resume:
            raise InputError("--resume needs an output: expected the -o FILE of the audit that was interrupted")
        return None
    first = options.output[0]
    return JournalFolder(first.with_name(f"{first.name}.htsr-journal"), anew=not options.resume)
