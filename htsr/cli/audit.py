"""``htsr audit``: analyse every weight matrix of a checkpoint."""

import argparse
import sys
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from htsr.choices import Conv, Convention
from htsr.cli.arguments import add_null, add_table_options, add_tokens, jobs, whole_number
from htsr.errors import InputError

if TYPE_CHECKING:
    from htsr.audit.journal import JournalFolder
    from htsr.cli.arguments import Commands


def add_parser(commands: "Commands") -> argparse.ArgumentParser:
    """Add the command and return its parser."""
    parser = commands.add_parser("audit", help="analyse every weight matrix of a checkpoint")
    parser.add_argument(
        "path", help="a checkpoint file (.safetensors, .pt, .gguf, ...), a directory, org/name on the hub, or a URL"
    )
    parser.add_argument(
        "--base", metavar="PATH", help="the model below an adapter, if the audit is of a PEFT directory"
    )
    parser.add_argument(
        "--state", metavar="NAME", help="analyse this state of the optimizer, such as exp_avg, in place of the weights"
    )
    add_table_options(parser, "alpha > 8")
    parser.add_argument(
        "--min-eigenvalues",
        type=whole_number,
        default=0,
        metavar="N",
        help="leave out matrices with fewer eigenvalues",
    )
    parser.add_argument(
        "--conv", choices=get_args(Conv), default="pool", help="how to decompose convolutions (default: pool)"
    )
    parser.add_argument("--per-head", action="store_true", help="cut attention weights into their heads")
    parser.add_argument(
        "--convention", choices=get_args(Convention), default="htsr", help="scaling and cut-offs (default: htsr)"
    )
    add_null(parser)
    parser.add_argument(
        "--bootstrap",
        type=whole_number,
        default=0,
        metavar="N",
        help="number of resamples, such as 500, for the interval of alpha and the goodness of fit (default: 0, neither)",
    )
    parser.add_argument(
        "--clip-fingers",
        action="store_true",
        help="leave up to nine largest eigenvalues that stand apart out of the fit",
    )
    parser.add_argument("--alternatives", action="store_true", help="compare each tail with other distributions")
    parser.add_argument("--randomize", action="store_true", help="shuffle each matrix and count correlation traps")
    parser.add_argument("--vectors", action="store_true", help="measure how localised the leading singular vectors are")
    parser.add_argument(
        "--fixed-aspect", action="store_true", help="also fit square windows, whose alpha knows no shape"
    )
    add_tokens(parser, "each weight")
    parser.add_argument("--seed", type=whole_number, default=0, help="seed of resamples and shuffles (default: 0)")
    parser.add_argument(
        "--n-jobs", type=jobs, metavar="N", help="layers to analyse at a time; -1 for every core (default: 1)"
    )
    parser.add_argument("--device", metavar="DEVICE", help="where to compute, for instance cuda (default: the CPU)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted audit that had the same output")
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    try:
        return _run(options)
    except KeyboardInterrupt:
        if options.output:
            raise KeyboardInterrupt("add --resume to the same command to continue the audit") from None
        raise


def _run(options: argparse.Namespace) -> int:
    """Analyse, show and write the result, and return the exit status."""
    if options.resume and not options.output:
        options.parser.error("--resume needs the -o FILE of the audit that was interrupted")

    from htsr.audit.analysis import analyze
    from htsr.audit.table import details_frame
    from htsr.cli.results import checked_conditions, deliver
    from htsr.report.save import analysis_json
    from htsr.spectra.devices import check_device
    from htsr.tails.resampling import MIN_RESAMPLES
    from htsr.weights.readers.hub import path_or_address

    if 0 < options.bootstrap < MIN_RESAMPLES:
        options.parser.error(f"argument --bootstrap: expected 0 or at least {MIN_RESAMPLES}, got {options.bootstrap}")
    if options.bootstrap and options.clip_fingers:
        options.parser.error(
            "argument --clip-fingers: resamples of a clipped fit would hold such values again; leave out --bootstrap"
        )
    if options.device is not None:
        try:
            check_device(options.device)
        except ValueError as err:
            options.parser.error(f"argument --device: {err}")
    conditions = checked_conditions(options, details_frame([]), [options.path])
    folder = _journal_folder(options)
    with nullcontext() if folder is None else closing(folder):
        analysis = analyze(
            path_or_address(options.path),
            layers=options.layers,
            skip=options.skip,
            min_eigenvalues=options.min_eigenvalues,
            conv=options.conv,
            per_head=options.per_head,
            base=options.base and path_or_address(options.base),
            state=options.state,
            convention=options.convention,
            null=options.null,
            clip_fingers=options.clip_fingers,
            bootstrap=options.bootstrap,
            alternatives=options.alternatives,
            randomize=options.randomize,
            vectors=options.vectors,
            fixed_aspect=options.fixed_aspect,
            tokens=options.tokens,
            n_jobs=options.n_jobs,
            device=options.device,
            journal=folder,
            seed=options.seed,
        )
        if folder is not None and folder.restored:
            print(f"{folder.restored} of {len(analysis)} layers were already analysed", file=sys.stderr)
        if not len(analysis):
            reasons = "; ".join(
                f"{count} x {reason}" for reason, count in analysis.skipped["reason"].value_counts().items()
            )
            raise InputError(
                f"{options.path}: none of its {len(analysis.skipped)} tensors is a weight matrix ({reasons})"
            )
        status = deliver(options, conditions, analysis, analysis_json)
        if folder is not None:
            folder.remove()
    return status


def _journal_folder(options: argparse.Namespace) -> "JournalFolder | None":
    """Open the folder in which an audit keeps what it has done: beside its first output, until that is written."""
    from htsr.audit.journal import JournalFolder

    if not options.output:
        return None
    first: Path = options.output[0]
    try:
        return JournalFolder(first.with_name(f"{first.name}.htsr-journal"), anew=not options.resume)
    except OSError as err:
        raise InputError(f"{first}: cannot write to the folder {first.parent.absolute()} ({err.strerror})") from err
